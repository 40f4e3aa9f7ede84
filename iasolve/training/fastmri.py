"""fastMRI: complex single-coil images from the official ``.h5`` files, read through ``fastmri.data``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.bases import centred_fft2, centred_ifft2

__all__ = ["read_fastmri"]


def read_fastmri(folder: Path, size: int, max_images: int = 0) -> np.ndarray:
    """Slices of a folder such as ``singlecoil_train``, ``(n, 1, size, size)`` complex64.

    The fully sampled k-space is transformed, the middle square of the reconstruction grid is cut out (the readout
    is oversampled), and its spectrum is cropped to ``size``: band-limited resampling, which keeps the phase.

    Parameters
    ----------
    folder : Path
        Holds ``.h5`` files and nothing else.
    size : int
        Pixels of an image's side; a power of two that no slice is smaller than.
    max_images : int
        Read that many slices, evenly spread over the files; 0 reads all.

    Raises
    ------
    ValueError
        When there are no files, a file is not as fastMRI's single-coil ones are, or a slice is too small.
    """
    try:
        data = _slices(folder)
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{folder} is no folder of fastMRI's single-coil files: {error}") from None
    if len(data) == 0:
        raise ValueError(f"{folder} holds no slices")
    chosen = range(len(data))
    if 0 < max_images < len(data):
        chosen = np.linspace(0, len(data) - 1, max_images).round().astype(int).tolist()
    return np.stack([_image(data[i], size) for i in chosen])


def _slices(folder: Path) -> Any:
    with warnings.catch_warnings():
        # fastmri's own dependencies warn on import
        warnings.simplefilter("ignore")
        from fastmri.data import SliceDataset
    return SliceDataset(folder, challenge="singlecoil", use_dataset_cache=False)


def _image(sample: tuple[Any, ...], size: int) -> np.ndarray:
    kspace, _, _, attributes, name, number = sample
    if kspace.ndim != 2:
        raise ValueError(f"{name}: slice {number} has k-space of shape {kspace.shape}, single-coil files hold (H, W)")
    image = centred_ifft2(torch.from_numpy(np.asarray(kspace, dtype=np.complex64)))
    side = min(*image.shape, *attributes["recon_size"][:2])
    if side < size:
        raise ValueError(f"{name}: slice {number} is {side} pixels wide in reconstruction, less than {size}")
    small = centred_ifft2(_middle(centred_fft2(_middle(image, side)), size))
    return small.numpy()[None]


def _middle(x: Tensor, side: int) -> Tensor:
    """The central square, the pixel (or DC) of index ``n // 2`` staying in that place."""
    top, left = (n // 2 - side // 2 for n in x.shape)
    return x[top : top + side, left : left + side]
