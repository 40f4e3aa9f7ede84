"""Blur without wrap-around: convolution with boundary ``"valid"`` or ``"reflect"``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, image_shape
from iasolve.operators.fourier import CircularBlur
from iasolve.operators.kernels import as_kernel
from iasolve.operators.window import Window

__all__ = ["Convolution"]


class Convolution(LinearOperator):
    """Convolution with a kernel whose centre is at index ``size // 2``; image in, image out; not diagonal.

    ``(A x)[n] = sum_m kernel[m] x~[n - m + size // 2]``, where ``x~`` goes on beyond the image:

    ``"valid"``
        It does not: only the ``(H - h + 1, W - w + 1)`` pixels whose sum stays inside the image are put out, the first
        of them at ``size - 1 - size // 2``. What a camera sees of a scene that is larger than its sensor.
    ``"reflect"``
        It is mirrored at the *edges* of the border pixels, ``d c b a | a b c d | d c b a``, as
        ``scipy.ndimage.convolve(mode="reflect")`` and ``numpy.pad(mode="symmetric")`` do; the output has the
        image's size. (``torch.nn.functional.pad(mode="reflect")`` mirrors at the border pixels' centres, scipy's
        ``"mirror"``: that reflection cannot be repeated on an axis of one pixel, and a symmetric kernel of sum 1 would
        not keep the image's mean.)

    Computed by Fourier transforms of the (extended) image, so the size of the kernel does not matter for speed.

    Parameters
    ----------
    kernel : Tensor or array
        Real ``(h, w)``, not normalised; for ``"valid"`` at most as large as the image.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image.
    boundary : {"valid", "reflect"}

    Raises
    ------
    ValueError
        For an impossible kernel or boundary.

    Examples
    --------
    >>> from iasolve.operators import disk_kernel
    >>> Convolution(disk_kernel(2.5), (1, 32, 40), boundary="valid").out_shape
    (1, 28, 36)
    >>> A = Convolution(disk_kernel(2.5), (1, 32, 40), boundary="reflect")
    >>> bool(torch.allclose(A(torch.ones(1, 32, 40)), torch.ones(1, 32, 40)))  # no dark border
    True
    """

    def __init__(
        self,
        kernel: Tensor | np.ndarray,
        in_shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        *,
        boundary: str = "reflect",
    ) -> None:
        channels, *size = image_shape(in_shape)
        if boundary not in ("valid", "reflect"):
            raise ValueError(
                f'the boundary must be "valid" or "reflect", got {boundary!r}; for a circular one use CircularBlur'
            )
        values = as_kernel(kernel)
        if boundary == "reflect":
            # what the sums reach beyond the image, before and after: then the valid part has the image's size
            before = [k - 1 - k // 2 for k in values.shape]
            indices = [_reflected(n, b, k // 2) for n, b, k in zip(size, before, values.shape, strict=True)]
            grid = [len(index) for index in indices]
        else:
            indices, grid = [], size
            if any(k > n for k, n in zip(values.shape, size, strict=True)):
                raise ValueError(
                    f"the kernel, {values.shape[0]}x{values.shape[1]}, is larger than the image, {size[0]}x{size[1]}: "
                    'no pixel is valid; crop the kernel or use boundary="reflect"'
                )
        out = [g - k + 1 for g, k in zip(grid, values.shape, strict=True)]
        super().__init__((channels, *size), (channels, *out), in_dtype=dtype, domain="image", codomain="image")
        self.boundary = boundary
        for axis, index in zip(("_rows", "_columns"), indices, strict=False):
            self.register_buffer(axis, index, persistent=False)
        self._rows: Tensor
        self._columns: Tensor
        self.register_buffer("_kernel", values, persistent=False)
        self._kernel: Tensor
        # on the valid pixels a circular convolution does not wrap around
        self.circular = CircularBlur(values, (channels, *grid), dtype)
        self._top, self._left = (k - 1 - k // 2 for k in values.shape)

    def forward(self, x: Tensor) -> Tensor:
        """The blurred image, ``(..., *out_shape)``."""
        x = self.check_in(x)
        if self.boundary == "reflect":
            x = x[..., self._rows[:, None], self._columns]
        _, height, width = self.out_shape
        out: Tensor = self.circular(x)
        return out[..., self._top : self._top + height, self._left : self._left + width]

    def window(self) -> Window | None:
        """Of ``"valid"``: the circular convolution, and the pixels on which it does not wrap around."""
        if self.boundary != "valid":
            return None
        _, height, width = self.out_shape
        seen = torch.zeros(self.circular.in_shape[1:], dtype=torch.bool, device=self.device)
        seen[self._top : self._top + height, self._left : self._left + width] = True
        return Window(self.circular.transfer(), seen)

    def interior_transfer(self, shape: tuple[int, int]) -> Tensor | None:
        """That of the kernel, where it is no larger than the grid."""
        if any(k > n for k, n in zip(self._kernel.shape, shape, strict=True)):
            return None
        return CircularBlur(self._kernel, (1, *shape), self.in_dtype).transfer().abs().to(self.device)

    def adjoint(self, y: Tensor) -> Tensor:
        """Correlation with the kernel, what lies beyond the image folded back, ``(..., *in_shape)``."""
        y = self.check_out(y)
        _, height, width = self.out_shape
        _, rows, columns = self.circular.in_shape
        padding = (self._left, columns - width - self._left, self._top, rows - height - self._top)
        x = self.circular.adjoint(torch.nn.functional.pad(y, padding))
        if self.boundary == "reflect":
            x = _folded(_folded(x, self._rows, -2, self.in_shape[-2]), self._columns, -1, self.in_shape[-1])
        return x


def _reflected(length: int, before: int, after: int) -> Tensor:
    """Pixel shown at each place of an axis extended by reflection, as often as needed."""
    place = torch.arange(-before, length + after) % (2 * length)
    return torch.minimum(place, 2 * length - 1 - place)


def _folded(x: Tensor, index: Tensor, axis: int, length: int) -> Tensor:
    """The adjoint of ``x.index_select(axis, index)``."""
    shape = list(x.shape)
    shape[axis] = length
    return x.new_zeros(shape).index_add(axis, index, x)
