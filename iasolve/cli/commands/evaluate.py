"""``iasolve evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from iasolve.cli.options import Printing

__all__ = ["evaluate"]


def evaluate(
    estimate: Annotated[Path, typer.Argument(metavar="ESTIMATE", help="Image, or a folder of images.")],
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="True image, or a folder with images of the same names.")
    ],
    printing: Printing,
    data_range: Annotated[
        float | None,
        typer.Option(metavar="R", help="Range of values for PSNR and SSIM; by default that of each reference image."),
    ] = None,
) -> None:
    """Compare images with the truth: PSNR, SSIM, NMSE.

    Of the whole image and of its foreground, which is the head without the air around it. Pages are compared one by
    one and averaged. Of a folder, files that cannot be compared are listed at the end.

    Examples
    --------
    iasolve evaluate clean.png truth.png
    iasolve evaluate denoised/ truth/ --data-range 255
    """
    import math

    from iasolve.cli.errors import SOME_FAILED, UsageError
    from iasolve.cli.folders import list_failures
    from iasolve.cli.reporter import Reporter
    from iasolve.cli.scores import compare_files

    if data_range is not None and not (math.isfinite(data_range) and data_range > 0):
        raise UsageError(f"--data-range {data_range}: expected a positive number")
    reporter = Reporter(printing)
    files, failures = compare_files(estimate, reference, data_range)
    names = list(files)
    for name in names:
        for text in files[name]["warnings"]:
            reporter.warn(f"{name}: {text}")
    rows = [["", "PSNR dB", "SSIM", "NMSE", "foreground: PSNR dB", "SSIM", "NMSE"]]
    rows += [[name, *_cells(files[name]["mean"])] for name in names]
    if len(names) > 1:
        total = {key: sum(files[n]["mean"][key] for n in names) / len(names) for key in files[names[0]]["mean"]}
        rows.append([f"mean of {len(names)}", *_cells(total)])
    if names:
        reporter.table(rows)
    reporter.result({"files": [{"name": name, **files[name]} for name in names], "failed": failures})
    if failures:
        list_failures(failures, len(names) + len(failures), reporter)
        raise typer.Exit(SOME_FAILED)


def _cells(scores: dict[str, Any]) -> list[str]:
    form = {"psnr": "{:.2f}", "ssim": "{:.4f}", "nmse": "{:.3g}"}
    return [form[key].format(scores[key + part]) for part in ("", "_foreground") for key in form]
