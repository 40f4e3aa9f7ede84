"""Parallel-beam projections in scikit-image's geometry, with their exact transpose."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from iasolve.operators.autograd import apply_linear
from iasolve.operators.base import LinearOperator, as_tensor, image_shape

__all__ = ["Radon"]


class Radon(LinearOperator):
    """Parallel-beam projections: the image is rotated about its centre and summed along its columns.

    With the square of side ``n`` that scikit-image takes from the image, its centre ``c = n // 2`` and an angle
    ``t``, detector ``d`` sums along the ray ::

        (A x)[d, t] = sum_{r = 0}^{n - 1} x(row = c + (r - c) cos t - (d - c) sin t,
                                            column = c + (r - c) sin t + (d - c) cos t)

    ``x`` between pixels is interpolated linearly, and 0 outside the square. This is
    ``skimage.transform.radon(image, angles, circle)``, equal to it up to rounding. The adjoint is the transpose of
    the very same sums; ``skimage.transform.iradon``, with or without a filter, is not.

    Real and complex images ``(..., C, H, W)`` go to ``(..., C, n, angles)``, each channel on its own.

    Parameters
    ----------
    angles : sequence of float
        In degrees.
    in_shape : (C, H, W)
        A rectangular image is made square as scikit-image does: see ``circle``.
    circle : bool
        True: the object lies within the inscribed circle; the image is cropped to its central square,
        ``n = min(H, W)``. What lies outside the circle is measured at some angles only, outside the square never.
        False: the image is padded with zeros, ``n = ceil(sqrt(2) max(H, W))``, so that every ray meets all of it.
    dtype : torch.dtype
        Of the image. The weights are stored in its precision; a double input to an operator declared single gives
        double output with weights rounded to single.

    Notes
    -----
    The sums are stored as a sparse matrix and its transpose, about ``2 H W`` entries per angle in each, 8 bytes an
    entry in single precision (12 in double): 90 MB for 180 angles at 128x128, 1.5 GB at 512x512. ``to(device)``
    moves them. Torch without Intel's MKL multiplies them more slowly.

    Raises
    ------
    ValueError
        For angles that are not a one-dimensional, finite, real list, or an ``in_shape`` that is not ``(C, H, W)``.

    Examples
    --------
    >>> A = Radon([0, 45, 90], (1, 8, 8), circle=False)
    >>> A(torch.ones(1, 8, 8)).shape
    torch.Size([1, 12, 3])
    >>> A(torch.ones(1, 8, 8)).sum(-2).tolist()[0][::2]  # along the axes every ray keeps its mass
    [64.0, 64.0]
    """

    def __init__(
        self,
        angles: Sequence[float] | np.ndarray | Tensor,
        in_shape: tuple[int, ...],
        circle: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = image_shape(in_shape)
        degrees = as_tensor(angles if isinstance(angles, Tensor) else np.asarray(angles)).detach().cpu()
        if degrees.ndim != 1 or len(degrees) == 0 or degrees.is_complex() or not bool(torch.isfinite(degrees).all()):
            raise ValueError(
                "the angles must be a non-empty list of finite real numbers, in degrees, "
                f"got shape {tuple(degrees.shape)}, {degrees.dtype}"
            )
        size, corner = _square(shape[1], shape[2], circle)
        super().__init__(shape, (shape[0], size, len(degrees)), in_dtype=dtype)
        self.circle = circle
        precision = np.float64 if dtype in (torch.float64, torch.complex128) else np.float32
        matrix = _projections(degrees.double().numpy(), shape[1:], size, corner, precision)
        self.register_buffer("angles", degrees)
        # not persistent: they follow from the arguments. Not sparse tensors: those can be neither copied nor pickled
        for name, values in (("_matrix", matrix), ("_transpose", matrix.T.tocsr())):
            # scipy stacks matrices with indices of eight bytes where four would do
            index = torch.int32 if max(*values.shape, values.nnz) < 2**31 else torch.int64
            for part, kind in (("indptr", index), ("indices", index), ("data", None)):
                entries = torch.from_numpy(getattr(values, part)).to(kind)
                self.register_buffer(f"{name}_{part}", entries, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The sinogram, ``(..., C, n, angles)``."""
        return apply_linear(self._project, self._back_project, self.check_in(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Unfiltered back-projection with the weights of :meth:`forward`, ``(..., C, H, W)``."""
        return apply_linear(self._back_project, self._project, self.check_out(y))

    def _project(self, x: Tensor) -> Tensor:
        size, count = self.out_shape[1:]
        return self._multiply("_matrix", x, (count, size)).mT

    def _back_project(self, y: Tensor) -> Tensor:
        return self._multiply("_transpose", y.mT, self.in_shape[1:])

    def _multiply(self, name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The sparse matrix times the last two axes of ``x``; complex values are two real columns."""
        lead = x.shape[:-2]
        parts = (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x[..., None]).movedim(-1, 0)
        columns = parts.reshape(len(parts) * math.prod(lead), math.prod(x.shape[-2:])).T
        pointers, indices, weights = (getattr(self, f"{name}_{part}") for part in ("indptr", "indices", "data"))
        with warnings.catch_warnings():
            # torch announces once that its sparse matrices are in beta
            warnings.filterwarnings("ignore", "Sparse CSR", UserWarning)
            matrix = torch.sparse_csr_tensor(
                pointers,
                indices,
                weights.to(columns.dtype),
                (math.prod(shape), columns.shape[0]),
                check_invariants=False,
            )
        out = (matrix @ columns).T.reshape(len(parts), *lead, *shape)
        return torch.complex(out[0], out[1]) if x.is_complex() else out[0]


def _square(height: int, width: int, circle: bool) -> tuple[int, tuple[int, int]]:
    """Side of scikit-image's square, and the position in it of the image's first pixel (negative if cropped)."""
    if circle:
        size = min(height, width)
        return size, (-math.ceil((height - size) / 2), -math.ceil((width - size) / 2))
    size = math.ceil(math.sqrt(2) * max(height, width))
    # the centre pixel, size // 2, of the image goes to that of the square
    return size, (size // 2 - height // 2, size // 2 - width // 2)


def _projections(
    degrees: np.ndarray, shape: tuple[int, ...], size: int, corner: tuple[int, int], precision: type[np.floating]
) -> sparse.csr_array:
    """The projections as a matrix from pixels to ``(angle, detector)``."""
    angles = (_projection(math.radians(t), shape, size, corner).astype(precision) for t in degrees)
    return sparse.vstack(list(angles), format="csr")


def _projection(t: float, shape: tuple[int, ...], size: int, corner: tuple[int, int]) -> sparse.csr_array:
    """One angle's matrix from pixels to detectors: every sample of a ray shares its weight among four pixels."""
    centre = size // 2
    along, detector = np.mgrid[:size, :size]
    u, v = along - centre, detector - centre
    row = centre + u * math.cos(t) - v * math.sin(t)
    column = centre + u * math.sin(t) + v * math.cos(t)
    top, left = np.floor(row).astype(np.int64), np.floor(column).astype(np.int64)
    down, right = row - top, column - left
    detectors, pixels, weights = [], [], []
    for i, j, weight in (
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    ):
        y, x = i - corner[0], j - corner[1]
        inside = (weight > 0) & (i >= 0) & (i < size) & (j >= 0) & (j < size)
        inside &= (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
        detectors.append(detector[inside])
        pixels.append((y * shape[1] + x)[inside])
        weights.append(weight[inside])
    entries = np.concatenate(weights), (np.concatenate(detectors), np.concatenate(pixels))
    return sparse.coo_array(entries, shape=(size, shape[0] * shape[1])).tocsr()
