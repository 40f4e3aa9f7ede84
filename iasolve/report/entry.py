"""What a report is told about one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Entry"]

DOMAINS = ("image", "kspace")


@dataclass(frozen=True)
class Entry:
    """One image of a report, as plain data.

    Parameters
    ----------
    name : str
        The file's name, or any other title; shown as it is, whatever characters it holds.
    image : ndarray
        The result: ``(H, W)``, or ``(H, W, 3)`` in colour. Complex values are shown as magnitudes.
    before : ndarray, optional
        The measurement as an image of ``image``'s height and width: the noisy one, the zero-filled one.
    std : ndarray, optional
        Error bar ``(H, W)``, or ``(H, W, 3)``, in ``image``'s units.
    residual : ndarray, optional
        Measurement minus what the operator makes of ``image``, ``(..., H, W)`` real or complex. Leading axes, such as
        coils, are averaged over.
    residual_domain : {"image", "kspace"}
        What the axes of ``residual`` are: pixels, or centred k-space, where entries that are exactly 0 were not
        sampled.
    sigma : float, optional
        Noise level of the measurement: root mean square of a noise value.
    residual_ratio : float, optional
        Root mean square of the residual over the noise level, as ``whole`` of :attr:`iasolve.Result.residual`;
        without it that of ``residual``.
    residual_bands : sequence of float
        The same for each of equally wide bands from frequency 0 to the highest, as ``bands`` there; without them the
        spectrum is that of ``residual``.
    scales : sequence of mapping
        A row for each scale, as :attr:`iasolve.Result.scales` of one image: any of ``scale``, ``steps``, ``before``,
        ``after``, ``misfit``.
    warnings : sequence of str
        In words.
    seconds : float, optional
    settings : mapping
        What a reader wants to copy: version, prior and its hash, recipe, seed, hashes of files.

    Raises
    ------
    ValueError
        When shapes do not fit each other, values are not finite, or the domain is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> entry = Entry("head.png", np.zeros((4, 4)), before=np.ones((4, 4)), sigma=0.1)
    >>> entry.image.shape
    (4, 4)
    """

    name: str
    image: NDArray[Any]
    before: NDArray[Any] | None = None
    std: NDArray[Any] | None = None
    residual: NDArray[Any] | None = None
    residual_domain: str = "image"
    sigma: float | None = None
    residual_ratio: float | None = None
    residual_bands: Sequence[float] = ()
    scales: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = ()
    seconds: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.residual_domain not in DOMAINS:
            raise ValueError(f"residual_domain must be one of {', '.join(DOMAINS)}, got {self.residual_domain!r}")
        size = np.shape(self.image)[:2]
        for what in ("image", "before", "std"):
            values = getattr(self, what)
            if values is None:
                continue
            shape = np.shape(values)
            if len(shape) not in (2, 3) or shape[:2] != size or 0 in shape or (len(shape) == 3 and shape[2] != 3):
                raise ValueError(
                    f"{self.name}: {what} has shape {shape}, expected (H, W) or (H, W, 3) with (H, W) = {size}"
                )
        if self.residual is not None and np.ndim(self.residual) < 2:
            raise ValueError(f"{self.name}: residual has shape {np.shape(self.residual)}, expected (..., H, W)")
        for what in ("image", "before", "std", "residual"):
            values = getattr(self, what)
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"{self.name}: {what} holds NaN or infinite values: leave it out of the report")
