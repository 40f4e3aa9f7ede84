"""Measurements that a user's operator explains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from iasolve.cli.errors import UnfitInput
from iasolve.cli.sources import Source
from iasolve.files import ImageFile, MeasurementFile
from iasolve.operators import LinearOperator

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["measured"]

Array = NDArray[Any]


def measured(file: MeasurementFile, operator: LinearOperator, name: str) -> Source:
    """A measurement as the solver takes it, and the image that it will become.

    Parameters
    ----------
    file : MeasurementFile
    operator : LinearOperator
        From images.
    name : str
        What the user calls it.

    Raises
    ------
    UnfitInput
        When the two do not go together, naming both.
    """
    if len(operator.in_shape) != 3:
        raise UnfitInput(
            f"{name}: the operator takes {_text(operator.in_shape)}. Expected images (C, H, W); a grey image has C = 1"
        )
    values = file.values
    if values.dtype.kind == "c" and not operator.out_dtype.is_complex:
        raise UnfitInput(
            f"{file.path}: complex values. Expected real ones: {name} puts out {operator.out_dtype}. Take the part "
            "that was measured, or correct the operator"
        )
    y, lead = _batch(file, operator.out_shape, name)
    double = values.dtype in (np.float64, np.complex128)
    like = ImageFile(
        file.path,
        ".npy",
        _first_look(operator, y),
        np.dtype(np.float64 if double else np.float32),
        lead=lead,
        slice_axis="first axis" if lead else None,
    )
    facts = {"kind": "user's operator", "in_shape": operator.in_shape, "out_shape": operator.out_shape}
    return Source(y, like, facts, size=(operator.in_shape[1], operator.in_shape[2]))


def _batch(file: MeasurementFile, shape: tuple[int, ...], name: str) -> tuple[Array, tuple[int, ...]]:
    """``(pages, *shape)`` and the batch dimensions; a single channel may be left out, as image files do."""
    found = file.values.shape
    leads = [found[: len(found) - len(shape)]] if found[-len(shape) :] == shape else []
    if not leads and len(shape) > 1 and shape[0] == 1 and found[-len(shape) + 1 :] == shape[1:]:
        leads = [found[: len(found) - len(shape) + 1]]
    if not leads:
        raise UnfitInput(
            f"{file.path}: a measurement of shape {_text(found)}. Expected (..., {', '.join(map(str, shape))}), as "
            f"{name} puts out, batch dimensions first. Reshape it, or correct the operator's arguments"
        )
    return file.values.reshape(math.prod(leads[0]), *shape), leads[0]


def _first_look(operator: LinearOperator, y: Array) -> Array:
    """What figures show as the input: ``A^H y``, scaled so that it explains ``y`` as well as it can; page by page."""
    kind = torch.promote_types(operator.out_dtype, torch.float32)
    pages = []
    with torch.no_grad():
        for page in y:
            unit = float(np.abs(page).max()) or 1.0  # or squares might leave single precision
            back = operator.adjoint(torch.from_numpy(page / unit).to(operator.device, kind))
            pages.append(unit * (_fitting(back, operator(back)) * back).abs().double().cpu().numpy())
    return np.stack(pages)


def _fitting(back: Tensor, explained: Tensor) -> float:
    """The step of steepest descent from an image of zeros: ``|A^H y|^2 / |A A^H y|^2``."""
    energy = float(explained.abs().double().square().sum())
    return float(back.abs().double().square().sum()) / energy if energy > 0 else 1.0


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
