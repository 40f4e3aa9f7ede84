"""The blurs of ``deblur`` and ``simulate``: one definition, so that what one makes the other undoes."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iasolve.cli.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iasolve.operators import LinearOperator

__all__ = ["Blur"]


class Blur:
    """A Gaussian, a kernel from a file, or a cut-off; exactly one is given.

    Parameters
    ----------
    gaussian : float or None
        Standard deviation, pixels.
    kernel : Path or None
        Its file.
    cutoff : float or None
        Finest scale kept.

    Raises
    ------
    UsageError, FileError
        When not exactly one is given, or it is impossible.
    """

    def __init__(self, gaussian: float | None, kernel: Path | None, cutoff: float | None) -> None:
        given = [name for name, v in (("gaussian", gaussian), ("kernel", kernel), ("cutoff", cutoff)) if v is not None]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none of them"
            raise UsageError(f"expected exactly one of --gaussian PIXELS, --kernel FILE, --cutoff SCALE; got {found}")
        self.facts: dict[str, Any]
        self.notes: list[str] = []
        self._kernel: NDArray[Any] | None = None
        self._cutoff = cutoff
        if gaussian is not None:
            if not (math.isfinite(gaussian) and gaussian > 0):
                raise UsageError(f"a Gaussian blur of {gaussian:g} pixels: expected a positive number")
            self._width = gaussian
            self.facts = {"kind": "gaussian blur", "width": gaussian}
        elif kernel is not None:
            self._read(kernel)
        else:
            assert cutoff is not None
            if not (math.isfinite(cutoff) and cutoff >= 1):
                raise UsageError(f"--cutoff {cutoff:g}: expected a scale of at least 1 (1, 2, 4, ..)")
            self.facts = {"kind": "low-pass", "cutoff": cutoff}

    def _read(self, path: Path) -> None:
        from iasolve.files import read_kernel

        kernel = read_kernel(path)
        total = float(kernel.sum())
        self._kernel = kernel / total
        self.facts = {
            "kind": "kernel blur",
            "kernel": str(path),
            "kernel_shape": list(kernel.shape),
            "kernel_sum": total,
        }
        if abs(total - 1) > 0.01:
            self.notes.append(f"the kernel {path} sums to {total:.4g}; it was scaled to sum to 1")

    def of_scene(self, size: tuple[int, int], dtype: Any, channels: int) -> LinearOperator:
        """The picture of ``size`` that a camera takes of a larger scene, :meth:`scene`.

        Raises
        ------
        ValueError
            When the blur is larger than the image.
        """
        from iasolve.operators import CircularBlur
        from iasolve.operators.crop import Crop

        scene = (channels, *self.scene(size))
        return Crop(scene, size, dtype) @ CircularBlur(self._values(size), scene, dtype)

    def scene(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what a picture of ``size`` shows something of, or a little more, for quick transforms."""
        from scipy.fft import next_fast_len

        reach = self._values(size).shape
        height, width = (
            next(n for n in itertools.count(next_fast_len(length + more - 1)) if n % 2 == 0 and next_fast_len(n) == n)
            for length, more in zip(size, reach, strict=True)
        )
        return height, width

    def _values(self, size: tuple[int, int]) -> NDArray[Any]:
        from iasolve.operators import gaussian_kernel

        if self._kernel is not None:
            if any(k > n for k, n in zip(self._kernel.shape, size, strict=True)):
                raise ValueError(
                    f"the kernel, {self._kernel.shape[0]}x{self._kernel.shape[1]}, is larger than the image, "
                    f"{size[0]}x{size[1]}: crop it"
                )
            return self._kernel
        if self._width > max(size):
            raise ValueError(f"a blur of {self._width:g} pixels is wider than the image, {size[0]}x{size[1]}")
        values: NDArray[Any] = gaussian_kernel(self._width).numpy()
        return values

    def operator(self, shape: tuple[int, int, int], dtype: Any) -> LinearOperator:
        """The circular blur of images ``(C, H, W)``.

        Raises
        ------
        ValueError
            When the blur is larger than the image.
        """
        from iasolve.operators import CircularBlur, LowPass

        if self._cutoff is not None:
            return LowPass(self._cutoff, shape, dtype)
        values = self._values(shape[1:])
        return CircularBlur(values if self._kernel is not None else _wrapped(values, shape[1:]), shape, dtype)


def _wrapped(kernel: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """The same circular blur with a kernel no larger than the image: what reaches beyond comes in on the other side."""
    import numpy as np

    for axis, length in enumerate(shape):
        size = kernel.shape[axis]
        if size > length:
            places = (np.arange(size) - size // 2 + length // 2) % length
            folded = np.zeros((length, *kernel.shape[:axis], *kernel.shape[axis + 1 :]))
            np.add.at(folded, places, np.moveaxis(kernel, axis, 0))
            kernel = np.moveaxis(folded, 0, axis)
    return kernel
