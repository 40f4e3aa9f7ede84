"""Classical solvers to compare with: Wiener, total variation, ridge regression, and two denoisers."""

from iasolve.classical.denoisers import nonlocal_means, wavelet_denoise
from iasolve.classical.folded import wiener
from iasolve.classical.ridge import RidgeFromBins
from iasolve.classical.sense import TotalVariationSense, total_variation_sense, typical_weight
from iasolve.classical.total_variation import TotalVariationResult, total_variation

__all__ = [
    "RidgeFromBins",
    "TotalVariationResult",
    "TotalVariationSense",
    "nonlocal_means",
    "total_variation",
    "total_variation_sense",
    "typical_weight",
    "wavelet_denoise",
    "wiener",
]
