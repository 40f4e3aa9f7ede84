"""ISMRMRD: raw acquisitions, sorted into Cartesian k-space without the readout's oversampling.

An HDF5 file with a header in XML and a table of acquisitions. The table is read at once with h5py: one acquisition at
a time, as the ``ismrmrd`` package reads them, takes minutes for a scan.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contents import Measured
from ..errors import UnfitData
from ..source import require_room
from .acquisitions import lines_of_images, sort_lines, without_oversampling
from .hdf5 import find, opened
from .ismrmrd_header import read_encoding

__all__ = ["decode_ismrmrd", "is_ismrmrd"]

DEFAULT_GROUP = "dataset"


def is_ismrmrd(path: Path, key: str | None) -> bool:
    """Whether an HDF5 file holds acquisitions, in the group ``dataset`` or the one named.

    Raises
    ------
    UnreadableFile
        If it is no HDF5 file.
    """
    import h5py

    with opened(path) as file:
        group = find(file, key or DEFAULT_GROUP, path)
        return isinstance(group, h5py.Group) and "xml" in group and "data" in group


def decode_ismrmrd(path: Path, key: str | None, slices: slice | None) -> Measured:
    """Read Cartesian k-space.

    Lines that were not measured (acceleration, partial Fourier along the phase) are zero and outside the mask; lines
    measured more than once are averaged; noise, navigator and calibration scans are left out.

    ``key``: name of the group, ``dataset`` by default.

    Returns
    -------
    Measured
        ``H`` is the readout, ``W`` the phase encoding. The mask is None where images were sampled differently.

    Raises
    ------
    UnreadableFile
        No complete ISMRMRD file.
    UnfitData
        Radial, spiral, echo-planar or three-dimensional scans, or partial echoes that are oversampled.
    """
    import h5py

    with opened(path, "a complete ISMRMRD file") as file:
        group = find(file, key or DEFAULT_GROUP, path)
        if not isinstance(group, h5py.Group) or "xml" not in group or "data" not in group:
            raise UnfitData(
                path,
                f"no group {key or DEFAULT_GROUP!r} with 'xml' and 'data' ({', '.join(file) or 'nothing'} found)",
                "an ISMRMRD file",
                f"Name the group, as in {path.name}:{next(iter(file), DEFAULT_GROUP)}",
            )
        xml, data = find(group, "xml", path), find(group, "data", path)
        text = xml[0] if xml.shape else xml[()]
        header = text.decode("utf-8") if isinstance(text, bytes) else str(text)
        require_room(path.stat().st_size // 4, path)
        encoding = read_encoding(header, path)
        heads = np.atleast_1d(data.fields("head")[()])
        wanted, skipped = lines_of_images(heads, encoding, path)
        readouts = np.atleast_1d(data.fields("data")[()])[wanted]
        kspace, measured, series = sort_lines(heads[wanted], readouts, encoding, path)
    axes = " x ".join(series)
    same = bool((measured == measured[:1]).all())
    columns = measured[0].all(axis=0, keepdims=True)
    lines_only = bool((measured[0] == columns).all())
    kspace = without_oversampling(kspace, measured, encoding, path)[slices or slice(None)]
    return Measured(
        kspace,
        sliced=True,
        coiled=kspace.shape[1] > 1,
        mask=(columns if lines_only else measured[0]) if same else None,
        attributes={"readout_oversampling": encoding.readout / encoding.kept, "skipped": skipped},
        header=header,
        key=key or DEFAULT_GROUP,
        slice_axis=axes,
    )
