"""Training of priors.

The names below are imported when they are first used: not all that reads a log needs torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iasolve.training.calibration import CHECKED, calibrate
    from iasolve.training.cifar import read_cifar
    from iasolve.training.config import TrainingConfig, load_config
    from iasolve.training.crops import Crops
    from iasolve.training.data import Augmentation, DataConfig, load_images, load_split, normalise
    from iasolve.training.degradations import Degradation, DegradationMix
    from iasolve.training.fastmri import read_fastmri
    from iasolve.training.folder import read_folder
    from iasolve.training.loop import Trainer, train
    from iasolve.training.objective import Objective, clean_evidence
    from iasolve.training.optimizer import Muon
    from iasolve.training.reading import ReaderObjective
    from iasolve.training.shards import Shards
    from iasolve.training.source import CroppedImages, Mixture, ShardedImages, WholeImages, open_source
    from iasolve.training.status import Status
    from iasolve.training.streams import Streams
    from iasolve.training.validation import validate_reader

_HOMES = {
    "calibration": ("CHECKED", "calibrate"),
    "cifar": ("read_cifar",),
    "config": ("TrainingConfig", "load_config"),
    "crops": ("Crops",),
    "data": ("Augmentation", "DataConfig", "load_images", "load_split", "normalise"),
    "degradations": ("Degradation", "DegradationMix"),
    "fastmri": ("read_fastmri",),
    "folder": ("read_folder",),
    "loop": ("Trainer", "train"),
    "objective": ("Objective", "clean_evidence"),
    "optimizer": ("Muon",),
    "reading": ("ReaderObjective",),
    "shards": ("Shards",),
    "source": ("CroppedImages", "Mixture", "ShardedImages", "WholeImages", "open_source"),
    "status": ("Status",),
    "streams": ("Streams",),
    "validation": ("validate_reader",),
}

__all__ = [
    "CHECKED",
    "Augmentation",
    "CroppedImages",
    "Crops",
    "DataConfig",
    "Degradation",
    "DegradationMix",
    "Mixture",
    "Muon",
    "Objective",
    "ReaderObjective",
    "ShardedImages",
    "Shards",
    "Status",
    "Streams",
    "Trainer",
    "TrainingConfig",
    "WholeImages",
    "calibrate",
    "clean_evidence",
    "load_config",
    "load_images",
    "load_split",
    "normalise",
    "open_source",
    "read_cifar",
    "read_fastmri",
    "read_folder",
    "train",
    "validate_reader",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
