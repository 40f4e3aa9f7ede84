"""Checks of what is wrong by convention: axes in another order, DC in the corner, arguments of another kind.

Each returns nothing, or raises an error that says what was found, what was expected, and what to do.
"""

from __future__ import annotations

import numbers

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_tensor

__all__ = ["check_batch_size", "check_image_axes", "check_kspace_order", "check_operator_kind"]

_MARGIN = 4.0  # energy in the middle under one order of axes over that under the other
_WINDOW = 8  # the middle is an eighth of each axis
_CHANNELS = 4  # images have up to so many


def check_operator_kind(operator: object) -> None:
    """Refuse a function, a matrix or an array for an operator.

    Raises
    ------
    TypeError
        When ``operator`` is no :class:`LinearOperator`.
    """
    if isinstance(operator, LinearOperator):
        return
    if callable(operator):
        advice = "wrap the function: LinearOperator.from_functions(function, adjoint, in_shape=(C, H, W))"
    elif hasattr(operator, "shape"):
        advice = "wrap the matrix: iasolve.operators.from_scipy(matrix, in_shape=(C, H, W))"
    else:
        advice = "build one, e.g. iasolve.operators.Identity((C, H, W)) for denoising"
    raise TypeError(f"the operator is a {type(operator).__name__}, expected a LinearOperator: {advice}")


def check_batch_size(size: object) -> None:
    """Refuse batch sizes that are no whole number from 1.

    Raises
    ------
    TypeError
        When it is no whole number.
    ValueError
        When it is below 1.
    """
    if isinstance(size, bool) or not isinstance(size, numbers.Integral):
        raise TypeError(f"batch_size is {size!r}, expected a whole number of images, at least 1")
    if size < 1:
        raise ValueError(f"batch_size is {size}, expected at least 1: the number of images solved at a time")


def check_image_axes(shape: tuple[int, ...]) -> None:
    """Refuse images with the channel axis last: ``(..., H, W, 1)``, or 3 or 4 for colours.

    Raises
    ------
    ValueError
        When the last axis has up to 4 entries and the two before it have more than 8.
    """
    if len(shape) < 3 or shape[-1] > _CHANNELS or min(shape[-3:-1]) <= 2 * _CHANNELS or shape[-1] == 2:
        return
    height, width, channels = shape[-3:]
    advice = "array[..., 0]" if channels == 1 else "numpy.moveaxis(array, -1, -3)"
    raise ValueError(
        f"the images have shape {tuple(shape)}: read as (..., C, H, W) they would be {width} x {channels} pixels. They "
        f"look like {height} x {width} pixels with {channels} channel(s) last: pass {advice}"
    )


def check_kspace_order(kspace: Tensor | np.ndarray) -> None:
    """Refuse k-space ``(..., coils, H, W)`` whose coils are last, or whose DC is at index 0 instead of in the middle.

    K-space has most of its energy about DC. Its place is looked for in the middle and in the corners of the last two
    axes, and of the two axes before the last where that could be coils. Only a clear answer is refused: four times as
    much energy in the corners as in the middle; half of it in the middle of axes before the last, and evenly spread
    over the last.

    Parameters
    ----------
    kspace : Tensor or array
        ``(..., H, W)``, unsampled entries 0.

    Raises
    ------
    ValueError
        When coils are last, or DC is in the corner.
    """
    values = as_tensor(kspace)
    if values.ndim < 2 or min(values.shape[-2:]) < 1 or not bool((values != 0).any()):
        return
    unit = values.abs().amax()
    power = (values / unit).abs().square()
    middle = _about_middle(power.reshape(-1, *power.shape[-2:]).sum(0))
    if values.ndim >= 3 and values.shape[-1] < min(values.shape[-3:-1]):
        last = _about_middle(power.sum(-1).reshape(-1, *power.shape[-3:-1]).sum(0))
        if last > 0.5 and _even(power.reshape(-1, power.shape[-1]).sum(0)):
            height, width, coils = values.shape[-3:]
            raise ValueError(
                f"k-space has shape {tuple(values.shape)}, expected (..., coils, H, W), and its energy lies as if "
                f"{coils} coils of {height} x {width} came last: pass numpy.moveaxis(kspace, -1, -3)"
            )
    if min(values.shape[-2:]) < 2 * _WINDOW:
        return
    corner = _about_middle(torch.fft.fftshift(power.reshape(-1, *power.shape[-2:]).sum(0)))
    if corner > _MARGIN * middle:
        raise ValueError(
            f"k-space of shape {tuple(values.shape)} has {corner:.0%} of its energy about index (0, 0) and "
            f"{middle:.0%} about the middle, ({values.shape[-2] // 2}, {values.shape[-1] // 2}), where DC is expected: "
            "pass numpy.fft.fftshift(kspace, axes=(-2, -1)), or solve with FourierTransform(shape, centred=False)"
        )


def _middle(n: int) -> slice:
    """The middle eighth of an axis, at least three entries."""
    reach = max(1, n // (2 * _WINDOW))
    return slice(max(0, n // 2 - reach), n // 2 + reach + 1)


def _about_middle(power: Tensor) -> float:
    """Share of the power ``(H, W)`` in the middle of both axes."""
    return float(power[_middle(power.shape[0]), _middle(power.shape[1])].sum() / power.sum())


def _even(power: Tensor) -> bool:
    """Whether the power ``(n,)`` is hardly larger in the middle than elsewhere, as over coils."""
    middle = power[_middle(len(power))]
    return float(middle.sum() / power.sum()) <= 2 * len(middle) / len(power)
