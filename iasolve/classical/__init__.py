"""Classical solvers to compare with: Wiener and total variation."""

from iasolve.classical.folded import wiener
from iasolve.classical.sense import TotalVariationSense, total_variation_sense, typical_weight
from iasolve.classical.total_variation import TotalVariationResult, total_variation

__all__ = [
    "TotalVariationResult",
    "TotalVariationSense",
    "total_variation",
    "total_variation_sense",
    "typical_weight",
    "wiener",
]
