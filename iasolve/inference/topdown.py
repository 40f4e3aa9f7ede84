"""One pass down the hierarchy, with or without refinement, and what it leaves behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from iasolve.inference.objective import complete
from iasolve.networks import Gaussian
from iasolve.priors import Prior

__all__ = ["Noise", "Pass", "ScalePass", "descend"]


class Noise:
    """Standard normal draws that depend on a seed and a label only, never on the batch.

    The same values serve every image of a batch, so an image's result does not depend on its neighbours.
    """

    def __init__(self, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self.seed, self.device, self.dtype = seed, device, dtype

    def __call__(self, shape: tuple[int, ...], *label: int | str | None) -> Tensor:
        """Values of ``(1, *shape)``."""
        text = "/".join(map(str, (self.seed, *label)))
        digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
        generator = torch.Generator().manual_seed(digest)
        values = torch.randn((1, *shape), generator=generator, dtype=torch.float32)
        return values.to(device=self.device, dtype=self.dtype)


@dataclass
class ScalePass:
    """What happened at one scale.

    Attributes
    ----------
    guess : list of Gaussian
        Posterior of each layer, ``(B, z, g, g)``, in the context of this pass.
    offsets : list of Tensor
        What refinement moved each mean by, in posterior standard deviations (zeros without refinement).
    priors : list of Gaussian
        Prior of each layer in the same context.
    contribution : Tensor
        ``h_s`` ``(B, C, n_s)``.
    """

    guess: list[Gaussian]
    offsets: list[Tensor]
    priors: list[Gaussian]
    contribution: Tensor


@dataclass
class Pass:
    """A whole pass: every scale's part, coarse to fine."""

    scales: list[ScalePass] = field(default_factory=list)

    @property
    def contributions(self) -> list[Tensor]:
        """Every scale's contribution."""
        return [s.contribution for s in self.scales]


Refine = Callable[[int, Tensor, list[Gaussian], list[Tensor]], list[Tensor]]
"""``refine(index, context, guess, means) -> means``: refined means of a scale's latents; the same list for none."""


def descend(
    prior: Prior,
    features: list[Tensor] | None,
    batch: int,
    *,
    stop: Tensor,
    temperature: float = 0.0,
    noise: Noise | None = None,
    label: str = "",
    offsets: list[list[Tensor]] | None = None,
    refine: Refine | None = None,
) -> Pass:
    """Go down the hierarchy once.

    Parameters
    ----------
    prior : Prior
    features : list of Tensor, optional
        The encoder's, per scale; None starts every latent from the prior (iterative inference).
    batch : int
        Number of tiles.
    stop : Tensor
        ``(B,)`` index of the finest scale that the guess covers for each tile; finer latents come from the prior.
    temperature : float
        Standard deviations of noise added to a latent's mean: 0 takes means, 1 samples.
    noise : Noise, optional
        Needed for a positive temperature.
    label : str
        Names the draw.
    offsets : list of lists of Tensor, optional
        Refinement found earlier, in posterior standard deviations, per scale and layer.
    refine : callable, optional
        Refines a scale's means before its context is committed.
    """
    scales: list[tuple[list[Gaussian], list[Tensor], list[Gaussian]]] = []
    contexts: list[Tensor] = []
    context: Tensor | None = None
    for index in range(len(prior.spectrum.scales)):
        start = prior.enter(index, context, batch)
        covered = (stop >= index).reshape(-1, 1, 1, 1)
        evidence = None if features is None else features[index]
        means: list[Tensor] = []
        guess: list[Gaussian] = []
        draws: list[Tensor] = []
        moved: list[Tensor] = []
        priors: list[Gaussian] = []
        context = start
        for number, layer in enumerate(prior.layers(index)):
            p, feature = layer.prior(context)
            q = complete(layer, context, evidence, p, covered)
            shift = offsets[index][number] if offsets is not None else torch.zeros_like(q.mean)
            draw = torch.zeros_like(q.mean)
            if temperature > 0:
                assert noise is not None
                draw = temperature * noise(tuple(q.mean.shape[1:]), label, index, number) * q.std
            mean = q.mean + q.std * shift
            guess.append(q)
            priors.append(p)
            means.append(mean)
            draws.append(draw)
            moved.append(shift)
            context = layer.update(context, mean + draw, feature)
        refined = means if refine is None else refine(index, start, guess, means)
        if refined is not means:
            guess, moved, priors = [], [], []
            context = start
            for layer, mean, draw in zip(prior.layers(index), refined, draws, strict=True):
                # offsets count from the posterior in the refined context: that is where a sample adds them
                p, feature = layer.prior(context)
                q = complete(layer, context, evidence, p, covered)
                guess.append(q)
                priors.append(p)
                moved.append((mean - q.mean) / q.std)
                context = layer.update(context, mean + draw, feature)
        scales.append((guess, moved, priors))
        contexts.append(context)
    rings = prior.contributions(contexts)
    return Pass([ScalePass(*found, h) for found, h in zip(scales, rings, strict=True)])
