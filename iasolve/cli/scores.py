"""Scores of files against files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iasolve.cli.errors import UnfitInput, UsageError, describe
from iasolve.cli.folders import is_folder, list_folder
from iasolve.files import IMAGE_SUFFIXES, read_image, stem_of
from iasolve.metrics import evaluate

__all__ = ["compare_files"]


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
        By name: ``mean`` scores over the pages, and ``pages``, a list of each page's.
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
    a, b = read_image(estimate), read_image(reference)
    if a.pixels.shape != b.pixels.shape:
        raise UnfitInput(
            f"{estimate} is {_shape(a.pixels.shape)}, {reference} is {_shape(b.pixels.shape)}. Expected images of one "
            "size"
        )
    pages = []
    for number, (ours, truth) in enumerate(zip(a.pixels, b.pixels, strict=True)):
        try:
            pages.append(evaluate(ours, truth, data_range))
        except ValueError as error:
            page = f", page {number + 1}" if a.pages > 1 else ""
            raise UnfitInput(f"{estimate} against {reference}{page}: {error}") from None
    return {"mean": {key: sum(page[key] for page in pages) / len(pages) for key in pages[0]}, "pages": pages}


def _shape(shape: tuple[int, ...]) -> str:
    pages, channels, height, width = shape
    return f"{pages} page(s) of {height} x {width} with {channels} channel(s)"
