"""Posterior samples."""

from __future__ import annotations

from itertools import count as count_from

import torch
from torch import Tensor

from iasolve.inference.objective import Noise
from iasolve.inference.passes import Guess, descend
from iasolve.priors import Prior
from iasolve.priors.hierarchy import Hierarchy, Node
from iasolve.problem.closing import Closing
from iasolve.problem.likelihood import Draw, white_noise
from iasolve.problem.options import Watch
from iasolve.problem.pose import Problem
from iasolve.spectrum import fft2, ifft2, uneven_variance

__all__ = ["Samples", "StationaryError", "draw_errors", "draw_samples"]


class Samples:
    """Draws of the image around a solution.

    A draw of the latents gives a deviation of the decoded image, which is added to the solution: deviations of
    overlapping tiles keep their variance that way. With further passes the spread is that of the *first* reading,
    which knows the measurement's noise; the later ones have read images that are partly the prior's own.

    Parameters
    ----------
    problem : Problem
    prior : Prior
    centre : Tensor
        Decoded image of the solution, ``(B, C, H, W)``, around which samples lie.
    source : Guess
        Whose posterior the spread is that of: the solution itself or, after further passes, the first reading.
    stop : Tensor
        ``(B * T,)`` index of the finest scale of the guess.
    noise : Noise
        Source of the draws.
    """

    def __init__(
        self, problem: Problem, prior: Prior, centre: Tensor, source: Guess, stop: Tensor, noise: Noise
    ) -> None:
        self.problem, self.prior, self.centre = problem, prior, centre
        self.source, self.stop, self.noise = source, stop, noise
        self.middle = self._tiles(source)
        self._offsets = source.offsets

    def _tiles(self, guess: Guess) -> Tensor:
        return self.prior.spectrum.inverse(self.prior.assemble(guess.contributions))

    def decoded(self, number: int) -> Tensor:
        """The decoded image of draw ``number`` of the latents, ``(B, C, H, W)``."""
        scale_of = Hierarchy(self.prior, 0).scale_of

        def choose(node: Node) -> Tensor:
            place = node.number - scale_of.index(node.scale)
            q = node.posterior
            draw = self.noise(tuple(q.mean.shape[1:]), f"sample {number}", node.scale, place)
            return q.mean + q.std * self._offsets[node.number][node.rows] + draw * q.std

        drawn = self._tiles(descend(self.prior, self.source.features, self.stop, choose))
        return self.centre + self.problem.geometry.deviation(drawn - self.middle)

    def image(self, number: int, closing: Closing) -> tuple[Tensor, Tensor]:
        """Sample ``number``: the posterior mean of the image given its draw of the latents, and a draw of the image."""
        count = 0

        def white(shape: tuple[int, ...]) -> Tensor:
            nonlocal count
            count += 1
            return self.noise(shape, f"pixels {number}", count)

        return closing.draw(self.decoded(number), white)


def draw_samples(samples: Samples, count: int, closing: Closing, watch: Watch) -> tuple[Tensor, Tensor]:
    """``count`` samples ``(K, B, C, H, W)``, and their error bar ``(B, C, H, W)``."""
    means, draws = [], []
    for number in range(count):
        mean, draw = samples.image(number, closing)
        means.append(mean)
        draws.append(draw)
        watch.tell("sample", number + 1, count)
    drawn = torch.stack(draws)
    return drawn, closing.error_bar(torch.stack(means), drawn)


class StationaryError:
    """A reader's error: of known variance at each frequency, and larger where the reader says so.

    ``e = F^H sqrt(V) F W u`` with white ``u``: uneven noise, filtered. What was measured exactly has no error.

    Parameters
    ----------
    variance : Tensor
        ``V`` ``(B, C, H, W)``, unshifted full grid.
    spread : Tensor
        ``W`` ``(B, C, H, W)``.
    is_complex : bool
        Whether images are.
    """

    def __init__(self, variance: Tensor, spread: Tensor, is_complex: bool) -> None:
        self.variance, self.spread, self.is_complex = variance, spread, is_complex

    @property
    def std(self) -> Tensor:
        """Standard deviation of each pixel, ``(B, C, H, W)``, exact (:func:`iasolve.spectrum.uneven_variance`)."""
        return uneven_variance(self.variance, self.spread).sqrt()

    @property
    def power(self) -> Tensor:
        """Mean square at each frequency, ``(B, C, H, W)``, unshifted: uneven white noise is white."""
        return self.variance * self.spread.square().mean((-2, -1), keepdim=True)

    def draw(self, normal: Draw) -> Tensor:
        """One error ``(B, C, H, W)``."""
        white = white_noise(normal, tuple(self.spread.shape[1:]), self.is_complex)
        error = ifft2(self.variance.sqrt() * fft2(self.spread * white))
        return error if self.is_complex else error.real


def draw_errors(error: StationaryError, count: int, noise: Noise, watch: Watch) -> list[Tensor]:
    """``count`` draws of a reader's error."""
    calls, draws = count_from(1), []
    for number in range(count):
        draws.append(error.draw(lambda shape: noise(shape, "error", next(calls))))
        watch.tell("sample", number + 1, count)
    return draws
