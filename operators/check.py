"""``check_operator``: whether an operator is linear and its adjoint is the adjoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, centred_ifft2
from iasolve.spectrum import fft2

__all__ = ["OperatorReport", "check_operator"]


@dataclass(frozen=True)
class OperatorReport:
    """Verdict of :func:`check_operator`.

    Attributes
    ----------
    ok : bool
        Whether every check passed.
    errors : dict of str to float
        The normalised error of each check; compare with ``tolerance``.
    failures : tuple of str
        One sentence for each failed check.
    norm : float
        Largest singular value, by power iteration.
    tolerance : float
        Largest error accepted.
    """

    ok: bool
    errors: dict[str, float]
    failures: tuple[str, ...]
    norm: float
    tolerance: float
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{'ok' if self.ok else 'NOT ok'}: norm {self.norm:.4g}, tolerance {self.tolerance:.1g}"]
        lines += [f"  {name}: {error:.2g}" for name, error in self.errors.items()]
        lines += [f"  failed: {failure}" for failure in self.failures]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def check_operator(A: LinearOperator, seed: int = 0, *, tolerance: float | None = None) -> OperatorReport:
    """Check adjoint, linearity, purity, shapes, batches and the transfer function of an operator.

    All errors are normalised, so that operators of any norm are judged alike. The adjoint error is
    ``|<Ax, y> - <x, A^H y>| / (|Ax| |y| + |x| |A^H y|)``, on random pairs and on the pair ``y = Ax``: random
    pairs are nearly orthogonal, so a wrong scale hides there.

    Parameters
    ----------
    A : LinearOperator
        Operator to check, in its declared dtypes.
    seed : int
        Seed of the random inputs.
    tolerance : float, optional
        Largest accepted error; by default 2e-5 in single and 1e-9 in double precision.

    Returns
    -------
    OperatorReport
        ``ok`` is the verdict; ``str(report)`` is readable.
    """
    if tolerance is None:
        tolerance = 2e-5 if A.in_dtype in (torch.float32, torch.complex64) else 1e-9
    return _Check(A, seed, tolerance).run()


class _Check:
    def __init__(self, operator: LinearOperator, seed: int, tolerance: float) -> None:
        self.A, self.tolerance = operator, tolerance
        self.generator = torch.Generator().manual_seed(seed)
        self.errors: dict[str, float] = {}
        self.failures: list[str] = []
        self.notes: list[str] = []

    def run(self) -> OperatorReport:
        norm = math.nan
        try:
            if self._shapes():
                self._adjoint()
                self._linearity()
                self._batches()
                self._transfer()
                norm = self._norm()
        except Exception as error:
            self.failures.append(f"the operator raised {type(error).__name__}: {error}")
        return OperatorReport(
            not self.failures, self.errors, tuple(self.failures), norm, self.tolerance, tuple(self.notes)
        )

    def _random(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, dtype=dtype, generator=self.generator)

    def _judge(self, name: str, error: float, sentence: str) -> None:
        self.errors[name] = max(error, self.errors.get(name, 0.0))
        if not error <= self.tolerance:
            self.failures.append(f"{sentence} (error {error:.2g})")

    def _shapes(self) -> bool:
        A = self.A
        x, y = self._random(A.in_shape, A.in_dtype), self._random(A.out_shape, A.out_dtype)
        for name, function, argument, shape, dtype in (
            ("forward", A.forward, x, A.out_shape, A.out_dtype),
            ("adjoint", A.adjoint, y, A.in_shape, A.in_dtype),
        ):
            kept = argument.clone()
            out = function(argument)
            if tuple(out.shape) != shape:
                self.failures.append(f"{name} returned shape {tuple(out.shape)}, declared {shape}")
            if out.dtype != dtype:
                self.failures.append(f"{name} returned {out.dtype}, declared {dtype}")
            if not torch.equal(kept, argument):
                self.failures.append(f"{name} changed its input")
            if not bool(torch.isfinite(out).all()):
                self.failures.append(f"{name} returned NaN or infinite values")
        return not self.failures

    def _adjoint(self) -> None:
        A = self.A
        for trial in range(4):
            x = self._random(A.in_shape, A.in_dtype)
            Ax = A.forward(x.clone())
            y = Ax.clone() if trial % 2 else self._random(A.out_shape, A.out_dtype)
            error = _adjoint_error(x, Ax, y, A.adjoint(y.clone()), A.is_complex)
            what = "on the pair y = Ax" if trial % 2 else "on random pairs"
            self._judge(f"adjoint {what}", error, f"<Ax, y> differs from <x, A^H y> {what}")
        # a smooth input weighs the few strong components that white noise drowns
        x = torch.ones(A.in_shape, dtype=A.in_dtype)
        Ax = A.forward(x)
        if float(Ax.abs().max()) > 0:
            error = _adjoint_error(x, Ax, Ax, A.adjoint(Ax.clone()), A.is_complex)
            self._judge("adjoint on a constant", error, "<Ax, Ax> differs from <x, A^H A x> for constant x")

    def _linearity(self) -> None:
        A = self.A
        x, z = self._random(A.in_shape, A.in_dtype), self._random(A.in_shape, A.in_dtype)
        a, b = (0.7 - 1.1j, -0.4 + 0.3j) if A.is_complex else (0.7, -1.3)
        left, right = A.forward(a * x + b * z), a * A.forward(x) + b * A.forward(z)
        kind = "complex-linear" if A.is_complex else "linear"
        self._judge("linearity", _difference(left, right), f"A(ax + bz) differs from aAx + bAz: not {kind}")
        zero = A.forward(torch.zeros_like(x))
        scale = float(left.abs().max())
        self._judge(
            "A(0)",
            float(zero.abs().max()) / scale if scale else float(zero.abs().max()),
            "A(0) is not 0: the operator is affine",
        )

    def _batches(self) -> None:
        A = self.A
        for name, function, shape, dtype in (
            ("forward", A.forward, A.in_shape, A.in_dtype),
            ("adjoint", A.adjoint, A.out_shape, A.out_dtype),
        ):
            batch = self._random((2, 3, *shape), dtype)
            together = function(batch)
            singles = torch.stack([torch.stack([function(item) for item in row]) for row in batch])
            if together.shape != singles.shape:
                self.failures.append(
                    f"{name} of a batch has shape {tuple(together.shape)}, expected {tuple(singles.shape)}"
                )
            else:
                self._judge(
                    f"batch {name}",
                    _difference(together, singles),
                    f"{name} of a batch differs from the loop of singles",
                )

    def _transfer(self) -> None:
        A = self.A
        d = A.transfer()
        if d is None:
            return
        # a random input has every impulse's response in it; a single impulse may lie where nothing is sampled
        x = self._random(A.in_shape, A.in_dtype)
        response = A.to_grid(A.forward(x))
        inside = centred_ifft2(x) if A.domain == "kspace" else x
        expected = d.to(response.dtype) * fft2(inside)
        self._judge(
            "transfer",
            _difference(response, expected),
            "A x differs from the transfer function times the spectrum of x",
        )

    def _norm(self) -> float:
        A = self.A
        x = self._random(A.in_shape, A.in_dtype)
        norm = 0.0
        for _ in range(30):
            length = float(torch.linalg.vector_norm(x))
            if length == 0:
                self.notes.append("A^H A x vanished: the operator may be zero")
                return 0.0
            x = A.adjoint(A.forward(x / length))
            norm = math.sqrt(float(torch.linalg.vector_norm(x)))
        return norm


def _adjoint_error(x: Tensor, Ax: Tensor, y: Tensor, Ahy: Tensor, is_complex: bool) -> float:
    wide = torch.complex128
    left = torch.vdot(y.flatten().to(wide), Ax.flatten().to(wide))
    right = torch.vdot(Ahy.flatten().to(wide), x.flatten().to(wide))
    gap = abs(left - right) if is_complex else abs(left.real - right.real)
    size = _length(Ax) * _length(y) + _length(x) * _length(Ahy)
    return float(gap) / size if size else 0.0


def _length(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x.to(torch.complex128)))


def _difference(a: Tensor, b: Tensor) -> float:
    size = max(_length(a), _length(b))
    return _length(a - b) / size if size else 0.0
