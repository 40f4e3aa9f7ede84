"""DeepInverse's linear physics as operators."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_declared
from iasolve.operators.host import like

__all__ = ["from_deepinv"]


def from_deepinv(
    physics: Any, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32, *, pairs: bool = False
) -> LinearOperator:
    """An operator from a ``deepinv.physics.LinearPhysics``: its ``A`` and ``A_adjoint``, without noise and sensor.

    The physics is cloned: ``physics.update(...)`` or ``physics(x, mask=...)`` change theirs, never this operator.
    Leading dimensions become DeepInverse's one batch dimension and come back. DeepInverse's adjoints are taken as
    they are, and not all are exact: :func:`iasolve.operators.check_operator` tells.

    Parameters
    ----------
    physics : deepinv.physics.LinearPhysics
        With one tensor as its measurement; on the device on which images are given.
    in_shape : (C, H, W)
        Of the image; with ``pairs``, ``(1, H, W)`` or ``(1, D, H, W)``.
    dtype : torch.dtype
        Of the image. The physics computes in its precision, and the result has the input's: for double, make the
        physics of double tensors.
    pairs : bool
        Complex images and measurements as DeepInverse's MRI has them, real and imaginary part as two channels
        ``(B, 2, ...)``; here they are one complex channel ``(..., 1, ...)``. With a real ``dtype`` the image is
        the real part alone.

    Returns
    -------
    LinearOperator
        From ``in_shape`` to what ``physics.A`` returns, its batch dimension taken off.

    Raises
    ------
    ImportError
        When DeepInverse cannot be imported, saying what is missing.
    TypeError
        For physics that are not linear, and for stacked ones, whose measurement is a list of tensors.
    ValueError
        When ``physics.A`` does not accept zeros of ``in_shape``.

    Examples
    --------
    >>> from deepinv.physics import MRI, Inpainting
    >>> A = from_deepinv(Inpainting((3, 64, 64), mask=0.5), (3, 64, 64))
    >>> A.out_shape
    (3, 64, 64)
    >>> A = from_deepinv(MRI(torch.ones(64, 64)), (1, 64, 64), torch.complex64, pairs=True)
    >>> A.out_shape, A.out_dtype
    ((1, 64, 64), torch.complex64)
    """
    try:
        linear = importlib.import_module("deepinv.physics").LinearPhysics
    except (ImportError, RuntimeError) as error:
        # torchvision's CUDA build, which is what PyPI has, raises a RuntimeError beside a CPU build of torch
        raise ImportError(
            f"from_deepinv needs DeepInverse (pip install deepinv), whose import fails: {error}. Beside a CPU build "
            "of torch it needs the CPU build of torchvision: "
            "pip install torchvision --index-url https://download.pytorch.org/whl/cpu"
        ) from error
    if not isinstance(physics, linear):
        raise TypeError(f"from_deepinv takes a deepinv.physics.LinearPhysics, got {type(physics).__name__}")
    return _FromDeepinv(physics.clone(), in_shape, dtype, pairs)


class _FromDeepinv(LinearOperator):
    def __init__(self, physics: Any, in_shape: tuple[int, ...], dtype: torch.dtype, pairs: bool) -> None:
        shape = tuple(int(n) for n in in_shape)
        if pairs and shape[0] != 1:
            raise ValueError(f"with pairs the image has one complex channel, in_shape (1, H, W), got {shape}")
        zeros = torch.zeros((1, *shape), dtype=dtype, device=_device(physics))
        try:
            with torch.no_grad():
                out = physics.A(_paired(zeros) if pairs else zeros)
        except Exception as error:
            raise ValueError(
                f"{type(physics).__name__}.A fails on zeros of shape {tuple(zeros.shape)}, dtype {dtype}: {error}"
            ) from error
        if not isinstance(out, Tensor):
            raise TypeError(
                f"{type(physics).__name__}.A must return one tensor, got {type(out).__name__}: convert the physics "
                "it is stacked of one by one"
            )
        if pairs:
            out = _unpaired(out)
        out_dtype = like(out.dtype, dtype)
        super().__init__(shape, tuple(out.shape[1:]), in_dtype=dtype, out_dtype=out_dtype)
        self.physics, self.pairs = physics, pairs

    def forward(self, x: Tensor) -> Tensor:
        """``physics.A(x)``."""
        items = self._batch(self.check_in(x), self.in_shape, self.in_dtype)
        out = _unpaired(self.physics.A(_paired(items))) if self.pairs else self.physics.A(items)
        return self._unbatch(out, x, self.in_shape, self.out_dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        """``physics.A_adjoint(y)``, its real part for real images."""
        items = self._batch(self.check_out(y), self.out_shape, self.out_dtype)
        out = _unpaired(self.physics.A_adjoint(_paired(items))) if self.pairs else self.physics.A_adjoint(items)
        return self._unbatch(out, y, self.out_shape, self.in_dtype)

    @staticmethod
    def _batch(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return x.reshape(-1, *shape).to(dtype)

    @staticmethod
    def _unbatch(out: Tensor, given: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        lead = given.shape[: given.ndim - len(shape)]
        values = as_declared(out, dtype)
        return values.reshape(*lead, *values.shape[1:]).to(like(dtype, given.dtype))


def _device(physics: torch.nn.Module) -> torch.device:
    tensors = itertools.chain(physics.buffers(), physics.parameters())
    return next((t.device for t in tensors), torch.device("cpu"))


def _paired(x: Tensor) -> Tensor:
    """``(B, 1, ...)``, real or complex, as real ``(B, 2, ...)``."""
    imaginary = x.imag if x.is_complex() else torch.zeros_like(x)
    return torch.cat([x.real, imaginary], 1)


def _unpaired(x: Tensor) -> Tensor:
    """``(B, 2, ...)`` as complex ``(B, 1, ...)``."""
    if x.is_complex() or x.ndim < 2 or x.shape[1] != 2:
        raise TypeError(
            f"with pairs the physics must return real and imaginary part as two channels, (B, 2, ...), got "
            f"{tuple(x.shape)}, {x.dtype}"
        )
    return torch.complex(x[:, :1].contiguous(), x[:, 1:].contiguous())
