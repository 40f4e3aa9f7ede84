"""What a TIFF says of its axes and pixels, kept so that a result says it too: ImageJ, OME, and the tags for sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np

__all__ = ["TiffMetadata", "read_metadata", "writing_options"]

IMAGEJ_TYPES = ("uint8", "uint16", "float32")
# What ImageJ's description may say that stays true of a result; brightness ranges and colour tables do not.
IMAGEJ_KEYS = ("unit", "spacing", "finterval", "fps", "tunit", "zunit", "Info", "Labels")
OME_KEYS = ("PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ", "TimeIncrement")


@dataclass(frozen=True)
class TiffMetadata:
    """What a file says besides its samples.

    Attributes
    ----------
    kind : str
        ``"imagej"``, ``"ome"`` or ``""``.
    lead : str
        Letters of the page axes, as in ``"TZC"``.
    resolution : tuple of (tuple of int, tuple of int), or None
        Pixels a unit across and down, as fractions.
    unit : int
        TIFF's number for that unit: 1 none, 2 inch, 3 centimetre.
    values : dict
        What ImageJ's or OME's description says, in the words in which tifffile writes it.
    """

    kind: str
    lead: str
    resolution: tuple[Any, Any] | None = None
    unit: int = 1
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> list[str]:
        """What another format has no place for."""
        facts = [] if not self.kind or len(self.lead) < 2 else [f"the names of the axes, {self.lead}YX"]
        sized = self.resolution is not None and (self.kind or self.unit != 1)
        if sized or any(key.startswith("PhysicalSize") for key in self.values):
            facts.append("the size of the pixels")
        return facts


def read_metadata(tif: Any, axes: str) -> TiffMetadata:
    """What an open ``tifffile.TiffFile`` says of a series with these axes."""
    lead = "".join(letter for letter in axes if letter not in "YXS")
    tags = tif.pages[0].tags
    across, down, unit = (tags.get(name) for name in ("XResolution", "YResolution", "ResolutionUnit"))
    resolution = None if across is None or down is None else (tuple(across.value), tuple(down.value))
    number = 1 if unit is None else int(unit.value)
    if tif.is_imagej:
        said = tif.imagej_metadata or {}
        return TiffMetadata(
            "imagej", lead, resolution, number, {key: said[key] for key in IMAGEJ_KEYS if said.get(key) is not None}
        )
    if tif.is_ome:
        return TiffMetadata("ome", lead, resolution, number, _ome(tif.ome_metadata))
    return TiffMetadata("", lead, resolution, number)


def _ome(text: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    try:
        root = ElementTree.fromstring(text or "")
    except ElementTree.ParseError:
        return values
    pixels = next((one for one in root.iter() if one.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return values
    for key in OME_KEYS:
        try:
            size = float(pixels.get(key, ""))
        except ValueError:
            continue
        values[key] = size
        if unit := pixels.get(f"{key}Unit"):
            values[f"{key}Unit"] = unit
    names = [one.get("Name") for one in pixels if one.tag.rpartition("}")[2] == "Channel"]
    if names and all(names):
        values["Channel"] = {"Name": names}
    return values


def writing_options(header: object, lead: tuple[int, ...], colours: bool, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Options of ``tifffile.imwrite`` that say what the input said.

    Parameters
    ----------
    header : TiffMetadata or object
        The input's, where it was a TIFF.
    lead : tuple of int
        Lengths of the page axes.
    colours : bool
        Whether samples of a pixel stand last.
    dtype : numpy.dtype
        Of what is written.
    """
    last = "YX" + ("S" if colours else "")
    if not isinstance(header, TiffMetadata) or len(header.lead) != len(lead):
        # named axes, since images of width 1 are otherwise read back lying down
        return {"metadata": {"axes": "Q" * len(lead) + last}}
    options: dict[str, Any] = {}
    if header.resolution is not None:
        options = {"resolution": header.resolution, "resolutionunit": header.unit}
    imagej = header.kind == "imagej" and dtype.name in IMAGEJ_TYPES and not (colours and dtype.name != "uint8")
    values = header.values if imagej or header.kind == "ome" else {}
    if imagej or header.kind == "ome":
        options[header.kind] = True
    if "Channel" in values and "C" not in header.lead:
        values = {key: value for key, value in values.items() if key != "Channel"}
    return {**options, "metadata": {"axes": header.lead + last, **values}}
