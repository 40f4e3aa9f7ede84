"""An operator from the user's own functions; the door is ``LinearOperator.from_functions``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator

__all__ = ["FunctionOperator"]


class FunctionOperator(LinearOperator):
    """See :meth:`iasolve.operators.LinearOperator.from_functions`."""

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor] | None,
        in_shape: tuple[int, ...],
        dtype: torch.dtype,
        batched: bool,
        device: torch.device,
    ) -> None:
        try:
            out = forward(torch.zeros(in_shape, dtype=dtype, device=device))
        except Exception as error:
            raise ValueError(
                f"the forward function fails on zeros of shape {tuple(in_shape)}, dtype {dtype}: {error}"
            ) from error
        if not isinstance(out, Tensor):
            raise ValueError(f"the forward function must return a tensor, got {type(out).__name__}")
        super().__init__(in_shape, tuple(out.shape), in_dtype=dtype, out_dtype=out.dtype)
        self._forward_function, self._adjoint_function, self._batched = forward, adjoint, batched
        # what the functions hold cannot be moved, but the operator knows where it is told to be
        self.register_buffer("_place", torch.empty(0, device=device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The user's function."""
        return self._each(self._forward_function, self.check_in(x), self.in_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """The user's adjoint, or the vector-Jacobian product of the forward function."""
        return self._each(self._adjoint_function or self._vjp, self.check_out(y), self.out_shape)

    def _each(self, function: Callable[[Tensor], Tensor], x: Tensor, shape: tuple[int, ...]) -> Tensor:
        lead = x.shape[: x.ndim - len(shape)]
        if self._batched or not lead:
            return function(x)
        items = [function(item) for item in x.reshape(-1, *shape)]
        return torch.stack(items).reshape(*lead, *items[0].shape)

    def _vjp(self, y: Tensor) -> Tensor:
        lead = y.shape[: y.ndim - len(self.out_shape)]
        real = y.real.dtype
        dtype = torch.promote_types(real, torch.complex32) if self.is_complex else real
        with torch.enable_grad():
            x = torch.zeros((*lead, *self.in_shape), dtype=dtype, device=y.device, requires_grad=True)
            out = self._forward_function(x)
            if not out.requires_grad:
                raise ValueError(
                    "the forward function is not differentiable by torch (it leaves torch or detaches): "
                    "pass its adjoint to from_functions"
                )
            (gradient,) = torch.autograd.grad(out, x, y.to(out.dtype))
        return gradient
