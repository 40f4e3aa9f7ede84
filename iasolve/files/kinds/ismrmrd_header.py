"""What an ISMRMRD header, XML, says about the Fourier encoding of a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ..errors import UnfitData

__all__ = ["Encoding", "read_encoding", "reconstructed_size"]


@dataclass(frozen=True)
class Encoding:
    """What the header says about the Fourier encoding.

    Attributes
    ----------
    readout, lines : int
        Size of the encoded matrix.
    kept : int
        Entries of the readout that are left without its oversampling.
    centre : int
        Counter of the line through the middle of k-space.
    separate_calibration : bool
        Whether calibration lines are a scan of their own, not to be mixed with the image's.
    """

    readout: int
    lines: int
    kept: int
    centre: int
    separate_calibration: bool


def _encodings(header: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(header)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # the namespace is not always declared
    return root.findall("encoding")


def reconstructed_size(header: str | None) -> tuple[int, int] | None:
    """Size of the image that a scan was made for, which is less than that of its k-space where it was oversampled.

    Parameters
    ----------
    header : str or None
        XML.

    Returns
    -------
    tuple of int, or None
        Along the readout and the phase encoding, in pixels of the k-space's own size; None where the header does not
        say so, or where images are interpolated.
    """
    try:
        one = _encodings(header or "")[0]
        sizes = [
            [
                float(one.findtext(f"{space}/{what}/{axis}") or "nan")
                for space in ("encodedSpace", "reconSpace")
                for what in ("fieldOfView_mm", "matrixSize")
            ]
            for axis in "xy"
        ]
    except (ElementTree.ParseError, IndexError, ValueError):
        return None
    found = []
    for encoded, lines, shown, pixels in sizes:
        pixel = encoded / lines if lines else math.nan
        if not (pixels >= 1 and abs(pixel * pixels - shown) <= 0.02 * shown):
            return None
        found.append(int(pixels))
    return found[0], found[1]


def read_encoding(header: str, path: Path) -> Encoding:
    """Read the first encoding of a header.

    Parameters
    ----------
    header : str
        XML.
    path : Path
        Its file, for the message.

    Returns
    -------
    Encoding
        Of a Cartesian, two-dimensional scan.

    Raises
    ------
    UnfitData
        For other scans.
    ValueError, xml.etree.ElementTree.ParseError
        For a header that is damaged.
    """
    encodings = _encodings(header)
    if not encodings:
        raise UnfitData(path, "a header without an encoding", "one", "Convert the scan again")
    one = encodings[0]
    trajectory = (one.findtext("trajectory") or "cartesian").strip().lower()
    if trajectory != "cartesian":
        raise UnfitData(
            path,
            f"a scan with {trajectory} readouts",
            "a Cartesian one",
            "Grid it first, or reconstruct it with an operator of your own",
        )

    def number(where: str, default: float | None = None) -> float:
        found = one.findtext(where)
        if found is None and default is None:
            raise ValueError(f"no {where} in the header")
        return float(found) if found is not None else float(default or 0)

    readout, lines, partitions = (int(number(f"encodedSpace/matrixSize/{axis}")) for axis in "xyz")
    if partitions > 1:
        raise UnfitData(
            path,
            f"a three-dimensional scan, {partitions} partitions",
            "two-dimensional slices",
            "Transform along the partitions first, and save the slices as .npy",
        )
    # by the fields of view: the reconstructed matrix may be interpolated
    encoded = number("encodedSpace/fieldOfView_mm/x")
    kept = round(readout * min(1.0, number("reconSpace/fieldOfView_mm/x") / encoded))
    if not (readout > 0 and lines > 0 and kept > 0):
        raise ValueError(f"matrix of {readout} x {lines}, of which {kept} to keep")
    centre = int(number("encodingLimits/kspace_encoding_step_1/center", lines // 2))
    mode = (one.findtext("parallelImaging/calibrationMode") or "").strip().lower()
    return Encoding(readout, lines, kept, centre, mode in ("separate", "external", "interleaved"))
