"""Scores of files against files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iasolve.cli.errors import UnfitInput, UsageError, describe
from iasolve.cli.folders import is_folder, list_folder
from iasolve.cli.results import open_result
from iasolve.files import IMAGE_SUFFIXES, ImageFile, Stack, reconstructed_size, runs, stem_of
from iasolve.metrics import evaluate

__all__ = ["compare_files"]

Array = NDArray[Any]


def compare_files(
    estimate: Path, reference: Path, data_range: float | None
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Scores of an image, or of all images in a folder that have a namesake in the other.

    Parameters
    ----------
    estimate, reference : Path
        Two files or two folders.
    data_range : float or None
        See :func:`iasolve.metrics.psnr`.

    Returns
    -------
    found : dict
        By name: ``mean`` scores over the pages, ``pages``, a list of each page's, and ``warnings``.
    failures : list of dict
        Of a folder: ``name``, ``exit_code`` and ``error`` of the files that cannot be compared.

    Raises
    ------
    UsageError, UnfitInput, FileError
    """
    if is_folder(estimate) != is_folder(reference):
        raise UsageError(f"{estimate} and {reference}: expected two files or two folders")
    if not is_folder(estimate):
        return {str(estimate): _compare(estimate, reference, data_range)}, []
    estimates = list_folder(estimate, IMAGE_SUFFIXES)
    references = list_folder(reference, IMAGE_SUFFIXES)
    found: dict[str, dict[str, Any]] = {}
    failures: list[dict[str, Any]] = []
    for path in estimates:
        try:
            found[path.name] = _compare(path, _namesake(path, references, reference), data_range)
        except Exception as error:
            code, message = describe(error)
            failures.append({"name": path.name, "exit_code": code, "error": message})
    return found, failures


def _namesake(path: Path, references: list[Path], folder: Path) -> Path:
    # the same name, or the same stem where that is unmistakable: results of k-space have another suffix
    namesakes = [r for r in references if r.name == path.name] or [r for r in references if stem_of(r) == stem_of(path)]
    if len(namesakes) != 1:
        raise UnfitInput(
            f"{path}: {len(namesakes)} images of that name in {folder}. Expected one. Give the files one by one"
        )
    return namesakes[0]


def _compare(estimate: Path, reference: Path, data_range: float | None) -> dict[str, Any]:
    a, b = open_result(estimate), open_result(reference)
    # a few pages at a time, where the files are large
    estimated, warnings = _cropped(_stack(a.pixels), b)
    truths = _stack(b.pixels)
    if estimated.shape != truths.shape and estimated.shape[-2:] == truths.shape[-2:] and estimated.size == truths.size:
        # pages of the one may be colours of the other, as in formats without pages
        estimated = estimated.channels_alone().channels_together(truths.shape[1])
    if estimated.shape != truths.shape:
        raise UnfitInput(
            f"{estimate} is {_shape(a.pixels.shape)}, {reference} is {_shape(b.pixels.shape)}. Expected images of one "
            "size. Crop the larger one, or make the estimate again: 'iasolve reconstruct' crops oversampled k-space"
        )
    warnings += _other_range(estimated, truths)
    pages = []
    for number, (ours, truth) in enumerate(zip(estimated, truths, strict=True)):
        try:
            pages.append(evaluate(ours, truth, data_range))
        except ValueError as error:
            page = f", page {number + 1}" if len(truths) > 1 else ""
            raise UnfitInput(f"{estimate} against {reference}{page}: {error}") from None
    mean = {key: sum(page[key] for page in pages) / len(pages) for key in pages[0]}
    return {"mean": mean, "pages": pages, "warnings": warnings}


def _stack(pixels: Array | Stack) -> Stack:
    return pixels if isinstance(pixels, Stack) else Stack(pixels.shape, pixels.dtype, lambda rows: pixels[rows])


def _cropped(estimate: Stack, reference: ImageFile) -> tuple[Stack, list[str]]:
    """The middle of an estimate that has the oversampling of its k-space, where the reference's header tells of it."""
    size = estimate.shape[-2:]
    header = reference.header if isinstance(reference.header, str) else None
    target = reference.pixels.shape[-2:]
    if size == target or reconstructed_size(header) != target or size[0] < target[0] or size[1] < target[1]:
        return estimate, []
    rows, columns = (slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(size, target, strict=True))
    text = (
        f"the estimate was cropped from {size[0]} x {size[1]} to {target[0]} x {target[1]}, as the reference's header"
    )
    cropped = estimate.then(lambda run: run[..., rows, columns], (estimate.shape[1], *target), estimate.dtype)
    return cropped, [f"{text} says"]


_OTHER_RANGE = 4.0


def _other_range(estimate: Stack, reference: Stack) -> list[str]:
    """A warning where one is many times the other: scores take values as they are."""
    ours, theirs = (
        math.sqrt(sum(float((np.abs(run) ** 2).sum()) for run in runs(values)) / values.size)
        for values in (estimate, reference)
    )
    if min(ours, theirs) == 0 or max(ours / theirs, theirs / ours) < _OTHER_RANGE:
        return []
    return [
        f"values of the estimate are {ours / theirs:.3g} times those of the reference (root mean square): scores take "
        "them as they are. If one is in 8 bits and the other in 16, or from 0 to 1, bring both to one range first"
    ]


def _shape(shape: tuple[int, ...]) -> str:
    pages, channels, height, width = shape
    return f"{pages} page(s) of {height} x {width} with {channels} channel(s)"
