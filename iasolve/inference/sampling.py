"""Posterior samples and the error bar."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.inference.data import DataModel, DiagonalData
from iasolve.inference.guess import Guess, decoded
from iasolve.inference.local import LocalResidual
from iasolve.inference.problem import Problem
from iasolve.inference.topdown import Noise, Pass, descend
from iasolve.priors import Prior

__all__ = ["Sampler", "error_bar"]


class Sampler:
    """Draws of the image around a solution.

    A draw of the latents gives a deviation of the decoded image, which is added to the solution: deviations of
    overlapping tiles keep their variance that way. With further passes the spread is that of the *first* reading,
    which knows the measurement's noise; the later ones have read images that are partly the prior's own.

    Parameters
    ----------
    problem : Problem
    prior : Prior
    solution : Guess
        Around whose image samples lie.
    source : Guess
        Whose posterior the spread is that of: the solution itself or, after further passes, the first reading.
    stop : Tensor
        ``(B * T,)`` index of the finest scale of the guess.
    noise : Noise
        Source of the draws.
    """

    def __init__(
        self, problem: Problem, prior: Prior, solution: Guess, source: Guess, stop: Tensor, noise: Noise
    ) -> None:
        self.problem, self.prior, self.stop, self.noise = problem, prior, stop, noise
        self.source = source
        self.centre = decoded(problem, prior, solution.found)
        self.middle = self._tiles(self.source.found)

    def _tiles(self, found: Pass) -> Tensor:
        return self.prior.spectrum.inverse(self.prior.assemble(found.contributions))

    def decode(self, label: str, temperature: float) -> Tensor:
        """The decoded image of one draw of the latents, ``(B, C, H, W)``."""
        found = descend(
            self.prior,
            self.source.features,
            len(self.stop),
            stop=self.stop,
            temperature=temperature,
            noise=self.noise,
            label=label,
            offsets=[s.offsets for s in self.source.found.scales],
        )
        return self.centre + self.problem.geometry.deviation(self._tiles(found) - self.middle)

    def posterior(
        self, number: int, variance: Tensor, local: LocalResidual | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sample ``number``: the decoded image, its posterior mean given ``y``, and a draw of the image.

        ``variance`` is ``V``, ``(C, H, W)`` or ``(B, C, H, W)``; ``local`` spreads it over the image.
        """
        moved = self.decode(f"sample {number}", 1.0)
        count = 0

        def white(shape: tuple[int, ...]) -> Tensor:
            nonlocal count
            count += 1
            return self.noise(shape, f"pixels {number}", count)

        if local is not None:
            return moved, *local.draw(moved, white)
        return moved, *self.problem.data.posterior_draw(moved, variance, white)


def error_bar(data: DataModel, variance: Tensor, means: Tensor, draws: Tensor, stationary: bool = True) -> Tensor:
    """``std``: spread of the conditional means ``(K, B, C, H, W)`` plus the mean conditional variance.

    The latter is exact for a ``stationary`` residual and diagonal data; otherwise it is the mean square of the
    draws over 7 x 7 pixels.
    """
    if len(means) > 1:
        spread = (means - means.mean(0)).abs().square().sum(0) / (len(means) - 1)
    else:
        spread = torch.zeros_like(means[0].real)
    if stationary and isinstance(data, DiagonalData):
        # stationary: the variance of a pixel is the mean over the full grid
        within = data.posterior_variance(variance).mean((-2, -1), keepdim=True)
    else:
        squared = (draws - means).abs().square().mean(0)
        within = torch.nn.functional.avg_pool2d(squared, 7, stride=1, padding=3, count_include_pad=False)
    return (spread + within).sqrt()
