"""``check_operator``: whether an operator is linear and its adjoint is the adjoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator
from iasolve.operators.bases import on_grid
from iasolve.operators.norm import power_iteration
from iasolve.spectrum import reflect

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
    notes : tuple of str
        What was seen that is no failure.

    Examples
    --------
    >>> from iasolve.operators import Identity
    >>> report = check_operator(Identity((1, 16, 16)))
    >>> report.ok, report.failures
    (True, ())
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
    """Check adjoint, linearity, purity, shapes, batches, the transfer function and the norm of an operator.

    All errors are normalised, so that operators of any norm are judged alike. The adjoint error is
    ``|<Ax, y> - <x, A^H y>| / (|Ax| |y| + |x| |A^H y|)``, on random pairs and on the pair ``y = Ax``: random
    pairs are nearly orthogonal, so a wrong scale hides there. Unless both sides are complex, the inner product is the
    real one. An operator that is declared in single precision but follows double input is checked in double too, where
    an adjoint that is wrong in a single entry does not hide in rounding.

    Parameters
    ----------
    A : LinearOperator
        Operator to check, in its declared dtypes, where its tensors are.
    seed : int
        Seed of the random inputs.
    tolerance : float, optional
        Largest accepted error; by default 2e-5 for a single precision operator that does not follow double input, 1e-6
        for one that does (its coefficients may be in single precision), and 1e-9 for a double precision one.

    Returns
    -------
    OperatorReport
        ``ok`` is the verdict; ``str(report)`` is readable.

    Examples
    --------
    >>> A = LinearOperator.from_functions(lambda x: 2 * x, lambda y: 2.002 * y, in_shape=(1, 8, 8))
    >>> print(check_operator(A).failures[0])  # doctest: +ELLIPSIS
    <Ax, y> differs from <x, A^H y> on the pair y = Ax (error 0.0005...)
    """
    return _Check(A, seed, tolerance).run()


class _Check:
    def __init__(self, operator: LinearOperator, seed: int, tolerance: float | None) -> None:
        self.A, self.given = operator, tolerance
        self.generator = torch.Generator().manual_seed(seed)
        # a map between complex and real numbers is linear over the reals at most
        self.complex_linear = operator.in_dtype.is_complex and operator.out_dtype.is_complex
        self.errors: dict[str, float] = {}
        self.failures: dict[str, float | None] = {}  # the largest error of each sentence, where it is one of errors
        self.notes: list[str] = []
        self.double = False
        self.tolerance = self._allowed(double=False)

    def run(self) -> OperatorReport:
        norm = math.nan
        if self._guarded(self._shapes):
            for section in (self._adjoint, self._linearity, self._batches, self._strides, self._transfer):
                self._guarded(section)
            if self._follows_double():
                self.double, self.tolerance = True, self._allowed(double=True)
                for section in (self._adjoint, self._linearity, self._transfer):
                    self._guarded(section)
            norm = self._norm()
        failures = tuple(
            said if error is None else f"{said} (error {error:.2g})" for said, error in self.failures.items()
        )
        return OperatorReport(not failures, self.errors, failures, norm, self.tolerance, tuple(self.notes))

    # ------------------------------------------------------------------------------------------- the sections

    def _shapes(self) -> None:
        for name, out, shape, dtype in (
            ("forward", self._forward(self._input()), self.A.out_shape, self.A.out_dtype),
            ("adjoint", self._back(self._output()), self.A.in_shape, self.A.in_dtype),
        ):
            if tuple(out.shape) != shape:
                self._fail(f"{name} returned shape {tuple(out.shape)}, declared {shape}")
            if out.dtype != dtype:
                self._fail(f"{name} returned {out.dtype}, declared {dtype}")
            if not bool(torch.isfinite(out).all()):
                self._fail(f"{name} returned NaN or infinite values")

    def _adjoint(self) -> None:
        for trial in range(4):
            x = self._input()
            Ax = self._forward(x)
            y = Ax if trial % 2 else self._output()
            what = "on the pair y = Ax" if trial % 2 else "on random pairs"
            self._judge_adjoint(what, x, Ax, y)
        # a smooth input weighs the few strong components that white noise drowns
        x = torch.ones_like(self._input())
        Ax = self._forward(x)
        if float(Ax.abs().max()) > 0:
            self._judge_adjoint("on a constant", x, Ax, Ax)

    def _judge_adjoint(self, what: str, x: Tensor, Ax: Tensor, y: Tensor) -> None:
        error = _adjoint_error(x, Ax, y, self._back(y), self.complex_linear)
        self._judge(f"adjoint {what}", error, f"<Ax, y> differs from <x, A^H y> {what}")

    def _linearity(self) -> None:
        a, b = (0.7 - 1.1j, -0.4 + 0.3j) if self.complex_linear else (0.7, -1.3)
        kind = "complex-linear" if self.complex_linear else "linear"
        x, z = self._input(), self._input()
        left, Ax = self._forward(a * x + b * z), self._forward(x)
        self._judge(
            "linearity",
            _difference(left, a * Ax + b * self._forward(z)),
            f"A(ax + bz) differs from aAx + bAz: not {kind}",
        )
        # clipping and thresholds show only at their own size; powers of two are exact
        for power in (-12, 12):
            error = _difference(self._forward(2.0**power * x) * 2.0**-power, Ax)
            self._judge("linearity", error, f"A(cx) differs from cAx for c = {2.0**power:g}: not linear")
        for name, zero, scale in (
            ("A(0)", self._forward(torch.zeros_like(x)), left),
            ("A^H(0)", self._back(torch.zeros_like(left)), self._back(left)),
        ):
            size, whole = float(zero.abs().max()), float(scale.abs().max())
            self._judge(name, size / whole if whole else size, f"{name} is not 0: the operator is affine")

    def _batches(self) -> None:
        for name, function, draw in (
            ("forward", self._forward, self._input),
            ("adjoint", self._back, self._output),
        ):
            batch = draw(2, 3)
            singles = torch.stack([torch.stack([function(item) for item in row]) for row in batch])
            for given, expected in ((batch, singles), (batch[0], singles[0])):
                together = function(given)
                if together.shape != expected.shape:
                    self._fail(f"{name} of a batch has shape {tuple(together.shape)}, expected {tuple(expected.shape)}")
                else:
                    self._judge(
                        f"batch {name}",
                        _difference(together, expected),
                        f"{name} of a batch differs from the loop of singles",
                    )

    def _strides(self) -> None:
        # the real part of a complex image, and a transposed one, are views with strides
        for name, function, draw in (
            ("forward", self.A.forward, self._input),
            ("adjoint", self.A.adjoint, self._output),
        ):
            x = draw()
            view = torch.stack([x, x], dim=-1)[..., 0]
            try:
                out = function(view)
            except Exception as error:
                self.notes.append(f"{name} raises on a tensor that is not contiguous: {type(error).__name__}: {error}")
            else:
                sentence = f"{name} of a tensor that is not contiguous differs from that of its copy"
                self._judge(f"strides {name}", _difference(out, function(x)), sentence)

    def _transfer(self) -> None:
        A = self.A
        d = A.transfer()
        if d is None:
            return
        try:
            torch.broadcast_to(d, A.in_shape)
        except RuntimeError:
            self._fail(f"the transfer function has shape {tuple(d.shape)}, which does not broadcast to {A.in_shape}")
            return
        # a random input has every impulse's response in it; a single impulse may lie where nothing is sampled
        x, y = self._input(), self._output()
        response = A.to_grid(self._forward(x))
        self._judge(
            "transfer",
            _difference(response, d.to(response) * on_grid(x, A.domain)),
            "A x differs from the transfer function times the spectrum of x",
        )
        placed = A.to_grid(y)
        back = d.conj().to(placed) * placed
        if not A.is_complex:
            back = (back + reflect(back).conj()) / 2
        self._judge(
            "transfer, adjoint",
            _difference(on_grid(self._back(y), A.domain), back),
            "A^H y differs from the conjugate transfer function times the measurement on the grid",
        )

    def _norm(self) -> float:
        try:
            found, stated = power_iteration(self.A), self.A.norm()
        except Exception:
            return math.nan  # a failure before has said why
        if found == 0:
            self._fail("the operator is zero: A^H A x vanishes for a random x, so that no measurement tells anything")
        # with a right adjoint, power iteration stays below the norm, by little
        if not self.failures and not found * (1 - 1e-3) <= stated <= found * 1.5:
            self._fail(f"norm() says {stated:.4g}, power iteration finds {found:.4g}")
        return found

    # ------------------------------------------------------------------------------------------- their tools

    def _guarded(self, section: Callable[[], None]) -> bool:
        """Run a section; whether nothing failed in it."""
        before = len(self.failures)
        try:
            section()
        except Exception as error:
            what = section.__name__.strip("_")
            self._fail(f"the operator raised {type(error).__name__} in the check of its {what}: {error}")
        return len(self.failures) == before

    def _fail(self, sentence: str) -> None:
        self.failures.setdefault(sentence, None)

    def _judge(self, name: str, error: float, sentence: str) -> None:
        name = f"{name}, in double precision" if self.double else name
        self.errors[name] = max(error, self.errors.get(name, 0.0))
        if not error <= self.tolerance:
            self.failures[sentence] = max(error, self.failures.get(sentence) or 0.0)

    def _forward(self, x: Tensor) -> Tensor:
        return self._pure("forward", self.A.forward, x)

    def _back(self, y: Tensor) -> Tensor:
        return self._pure("adjoint", self.A.adjoint, y)

    def _pure(self, name: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        given = x.clone()
        out = function(given)
        if not torch.equal(given, x):
            self._fail(f"{name} changed its input")
        return out

    def _input(self, *batch: int) -> Tensor:
        return self._random((*batch, *self.A.in_shape), self.A.in_dtype)

    def _output(self, *batch: int) -> Tensor:
        return self._random((*batch, *self.A.out_shape), self.A.out_dtype)

    def _random(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.double:
            dtype = torch.promote_types(dtype, torch.float64)
        return torch.randn(shape, dtype=dtype, generator=self.generator).to(self.A.device)

    def _allowed(self, *, double: bool) -> float:
        if self.given is not None:
            return self.given
        if self.A.in_dtype in (torch.float64, torch.complex128):
            return 1e-9
        return 1e-6 if double else 2e-5

    def _follows_double(self) -> bool:
        """Whether the operator computes, and does not only answer, in double precision."""
        if self.A.in_dtype in (torch.float64, torch.complex128):
            return False  # has been checked in double already
        self.double = True
        try:
            x = self._input()
            y = self.A.forward(x)
            follows = _resolves(self.A.forward, x) and _resolves(self.A.adjoint, y)
        except Exception:
            follows = False
        self.double = False
        if not follows:
            self.notes.append("does not follow double precision input: checked in single precision only")
        return follows


def _resolves(function: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether a change of the input by less than single precision shows in the output, as it does in double."""
    change = 2.0**-30
    before, after = function(x), function((1 + change) * x)
    return _difference((after - before) / change, before) < 0.1


def _adjoint_error(x: Tensor, Ax: Tensor, y: Tensor, Ahy: Tensor, complex_linear: bool) -> float:
    wide = torch.complex128
    left = torch.vdot(y.flatten().to(wide), Ax.flatten().to(wide))
    right = torch.vdot(Ahy.flatten().to(wide), x.flatten().to(wide))
    gap = abs(left - right) if complex_linear else abs(left.real - right.real)
    size = _length(Ax) * _length(y) + _length(x) * _length(Ahy)
    return float(gap) / size if size else 0.0


def _length(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x.detach().to(torch.complex128)))


def _difference(a: Tensor, b: Tensor) -> float:
    size = max(_length(a), _length(b))
    return _length(a - b) / size if size else 0.0
