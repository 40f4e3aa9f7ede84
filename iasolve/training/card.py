"""The card of a trained prior: what a user of it should know."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from iasolve.networks import HVAE
from iasolve.priors.activity import latent_activity
from iasolve.priors.likeness import edge_share, level_share, ring_statistics
from iasolve.priors.trained import HVAEPrior
from iasolve.training.augmentation import normalise
from iasolve.training.config import OptimisationConfig, TrainingConfig
from iasolve.training.progress import Progress
from iasolve.training.source import ImageSource

__all__ = ["card_of", "reader_card"]


def card_of(
    network: HVAE,
    config: TrainingConfig,
    source: ImageSource,
    progress: Progress,
    validation: dict[str, float],
    commit: str | None,
) -> dict[str, Any]:
    """Architecture and hash are not in it: :func:`iasolve.priors.checkpoint.save_checkpoint` adds them.

    Parameters
    ----------
    network : HVAE
        What is exported.
    config, source, progress
        Of its training.
    validation : dict
        Its figures, of :func:`iasolve.training.validation.validate`.
    commit : str or None
        Of the code that trained it.
    """
    spectrum, images = network.spectrum, normalise(source.validation)
    return {
        "name": config.name,
        "kind": "ia-hvae" if network.separable else "hvae",
        **_images(config, source),
        "training": _training(config.optimisation, source, progress, commit),
        "validation": {
            **{k: round(v, 6) for k, v in validation.items()},
            "coarse_rings": ring_statistics(spectrum, images),
            **_flattest(images),
        },
        "latents": latent_activity(HVAEPrior(network, config.name, {}), images),
        "sigma_x": [[round(float(v), 6) for v in row] for row in network.sigma_x],
        "ring_power": [
            [round(float(v), 6) for v in row] for row in spectrum.ring_means(spectrum.half(network.power.cpu()))
        ],
    }


def reader_card(
    config: TrainingConfig,
    optimisation: OptimisationConfig,
    source: ImageSource,
    progress: Progress,
    validation: dict[str, float],
    commit: str | None,
) -> dict[str, Any]:
    """The card of a reader; see :func:`card_of`."""
    return {
        "name": config.name,
        "kind": "reader",
        **_images(config, source),
        "training": _training(optimisation, source, progress, commit),
        "validation": {
            **{k: round(v, 6) for k, v in validation.items()},
            **_flattest(normalise(source.validation)),
        },
    }


def _flattest(images: Tensor) -> dict[str, float]:
    """Largest shares of edges and of the commonest greys; fewer than ten images say nothing of the largest."""
    if len(images) < 10:
        return {}
    found = {"edge_share_largest": edge_share(images), "level_share_largest": level_share(images)}
    return {key: round(float(share.max()), 4) for key, share in found.items()}


def _images(config: TrainingConfig, source: ImageSource) -> dict[str, Any]:
    """What the images are; ``shift``, how far they were moved, in pixels: crops are taken anywhere."""
    augmentation, sources = config.augmentation, config.data.sources or [config.data]
    everywhere = all(entry.crops is not None for entry in sources)
    return {
        "normalisation": "root mean square of the image = 1",
        "nonnegative": source.nonnegative,
        "shift": float(config.network.size) if everywhere else augmentation.shift,
        "mirrors": [axis for axis, done in zip((-2, -1), augmentation.flip, strict=True) if done],
        "data": _data(config, source),
    }


def _data(config: TrainingConfig, source: ImageSource) -> dict[str, Any]:
    data = config.data
    return {
        "name": data.name or data.path,
        "licence": data.licence,
        "citation": data.citation,
        "train_labels": list(data.train_labels),
        "validation_every": data.validation_every,
        "phase": asdict(data.phase) if data.phase else None,
        "train_images": source.count,
        "validation_images": len(source.validation),
    }


def _training(o: OptimisationConfig, source: ImageSource, progress: Progress, commit: str | None) -> dict[str, Any]:
    device = source.device
    return {
        "images": progress.images,
        "steps_this_run": progress.steps,
        "seconds": round(progress.seconds),
        "skipped_steps": progress.skipped,
        "windows_taken_back": progress.taken_back,
        "seed": o.seed,
        "batch": o.batch * o.accumulate,
        "commit": commit,
        "started_from_sha256": progress.started_from,
        "tensors_started_anew": progress.fresh,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
