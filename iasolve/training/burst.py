"""Bursts: windows between validations that ended far worse than the run was before, and what is done about them."""

from __future__ import annotations

import math

from iasolve.training.progress import Progress

__all__ = ["HALVINGS", "DivergedError", "judge", "rate_factor"]

HALVINGS = 5
"""How often the learning rate is halved at most: a lower one would freeze the run."""


class DivergedError(ArithmeticError):
    """Training has ended in numbers that are not finite; nothing was exported."""


_BURST = 0.2
"""Nats per dimension that a score may lie below the best one; an ELBO wanders by a quarter of that."""


def rate_factor(progress: Progress) -> float:
    """What the bursts so far left of the learning rate: at least ``2**-HALVINGS``."""
    return float(0.5 ** min(progress.taken_back, HALVINGS))


def judge(progress: Progress, training: float, validation: float) -> tuple[bool, str]:
    """Whether to keep a window, and what to say of it; the progress learns the new best scores.

    A burst is a score far below the best so far: the mean of the training images, or, when it has only begun, that of
    the validation images. Clipping and refused steps do not prevent it: a vanilla network trained at a constant rate
    was lost that way. The window is undone and the rate halved, ``HALVINGS`` times at most. A burst at the lowest rate
    is no accident: the best scores were luck, or training has changed for good. Undoing it for ever would freeze the
    run, so its window becomes the new reference.

    Parameters
    ----------
    progress : Progress
        Of the run.
    training, validation : float
        Scores of the window, in nats per dimension.

    Raises
    ------
    DivergedError
        When scores are not finite even at the lowest rate, ``HALVINGS`` times, or validation's are not in the first
        window: there is nothing to go back to.
    """
    now = (training, validation)
    best = tuple(-math.inf if b is None else b for b in (progress.best_training, progress.best_validation))
    if all(value > before - _BURST for value, before in zip(now, best, strict=True)):
        progress.best_training, progress.best_validation = (max(n, b) for n, b in zip(now, best, strict=True))
        return True, ""
    if best[0] == -math.inf and not math.isfinite(validation):
        raise DivergedError(f"training diverges: the first window's scores are {_pair(now)}. {_ADVICE}")
    if best[0] == -math.inf:
        return True, f"the first window's scores are not finite ({_pair(now)}): a lower learning_rate may help"
    what = f"scores fell from {_pair(best)} to {_pair(now)} (training, validation; nats per dimension)"
    if progress.taken_back >= HALVINGS and all(map(math.isfinite, now)):
        progress.best_training, progress.best_validation = now
        return True, f"burst: {what}; the rate is the lowest, 1/{2**HALVINGS}: going on from here"
    if progress.taken_back >= 2 * HALVINGS:
        raise DivergedError(
            f"training diverges: {what}, and {progress.taken_back} windows were undone before. {_ADVICE}"
        )
    progress.taken_back += 1
    return False, f"burst: {what}; undone, going on at 1/{round(1 / rate_factor(progress))} of the learning rate"


_ADVICE = "Start over with a lower optimisation.learning_rate"


def _pair(scores: tuple[float, ...]) -> str:
    return " and ".join(f"{score:.3f}" for score in scores)
