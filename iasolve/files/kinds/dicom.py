r"""DICOM, through pydicom: grey images in, a derived series out.

What is written is a new object that says so: identifiers of its own, ``DERIVED\SECONDARY``, a description of what was
done and a reference to the image it was made from. Patient, study, frame of reference and position are the input's.
"""

from __future__ import annotations

import copy
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..contents import Picture, Scaling, Wanted
from ..errors import UnfitData, UnreadableFile, WriteError
from ..optional import DICOM
from ..source import decoding, require_plausible, require_room

__all__ = ["decode_dicom", "dicom_obstacle", "encode_dicom"]

Array = NDArray[Any]

# What is said of the source's values and making, and is no longer so.
STALE = (
    *("InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID"),
    *("SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries", "LargestPixelValueInSeries"),
    *("DigitalSignaturesSequence", "MACParametersSequence", "IconImageSequence"),
)
LONGEST_DESCRIPTION = 1024  # of a value of type ST


@dataclass(frozen=True, eq=False)
class Source:
    """The object that a picture was read from, without its pixels.

    Attributes
    ----------
    dataset : pydicom.Dataset
        All else.
    shape : tuple of int
        Frames (if it has an axis of them), rows, columns.
    padding : ndarray of bool or None
        Pixels that were not scanned, whose value says so.
    """

    dataset: Any
    shape: tuple[int, ...]
    padding: NDArray[np.bool_] | None = None
    facts = ("patient, study and place of the slices",)


def decode_dicom(path: Path, key: str | None = None) -> Picture:
    """Read an image, or the frames of a multi-frame one.

    Returns
    -------
    Picture
        As stored, with the scaling to values: rescale slope and intercept, and the inversion of MONOCHROME1, where
        low values are shown bright.

    Raises
    ------
    UnreadableFile
        Truncated, corrupt, in a compression without its decoder; or pydicom is not installed.
    UnfitData
        Colours, no image, or a look-up table or slopes that differ between frames.
    """
    pydicom = DICOM.load(path)
    with decoding(path, "a complete DICOM image"):
        dataset = pydicom.dcmread(path)
        if "PixelData" not in dataset:
            name = getattr(pydicom.uid.UID(dataset.get("SOPClassUID", "")), "name", "") or "unknown kind"
            raise UnfitData(
                path,
                f"a DICOM object with no pixels ({name})",
                "a whole image",
                "Give the files of an image series; if it is an image, it is truncated",
            )
        interpretation = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
        if interpretation not in ("MONOCHROME1", "MONOCHROME2"):
            raise UnfitData(
                path,
                f"photometric interpretation {interpretation}",
                "MONOCHROME2 or MONOCHROME1",
                "Export the original grey images rather than a screenshot or a colour map",
            )
        bits = int(dataset.BitsAllocated)
        if bits not in (8, 16, 32):
            raise UnfitData(
                path,
                f"{bits} bit(s) a pixel, as segmentations have",
                "a grey image of 8, 16 or 32",
                "Give the image that was segmented",
            )
        _require_decoder(dataset, path)
        slope, intercept = _rescaling(dataset, path)
        frames = int(dataset.get("NumberOfFrames") or 1)
        declared = frames * int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
        require_plausible(declared, path)
        require_room(frames * int(dataset.Rows) * int(dataset.Columns), path)
        stored = np.asarray(dataset.pixel_array)
        stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if interpretation == "MONOCHROME1":
        # low + high - stored, as one more slope and intercept
        slope, intercept = -slope, intercept + slope * (low + high)
    del dataset.PixelData
    source = Source(dataset, stored.shape, _padding(dataset, stored))
    lead = stored.shape[:-2]
    return Picture(
        stored[..., np.newaxis],
        lead,
        slice_axis="frame" if lead else None,
        scaling=Scaling(slope, intercept, low, high),
        header=source,
    )


def _rescaling(dataset: Any, path: Path) -> tuple[float, float]:
    """Slope and intercept, of enhanced objects from their functional groups."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    groups = [item for group in (*shared, *frames) for item in group.get("PixelValueTransformationSequence") or []]
    found = {
        (float(item.get("RescaleSlope", 1)), float(item.get("RescaleIntercept", 0))) for item in groups or [dataset]
    }
    if "ModalityLUTSequence" in dataset:
        raise UnfitData(
            path,
            "values given by a look-up table (ModalityLUTSequence)",
            "a rescale slope and intercept",
            "Export it with the table applied",
        )
    if len(found) > 1:
        raise UnfitData(
            path, "frames with different rescale slopes", "the same for all", "Save the frames as files of their own"
        )
    slope, intercept = found.pop()
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise UnfitData(path, f"a rescale slope of {slope:g}", "one that is not zero", "Export the image again")
    return slope, intercept


def _require_decoder(dataset: Any, path: Path) -> None:
    from pydicom.pixels import get_decoder  # type: ignore[attr-defined]  # public, but not in its __all__

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise UnreadableFile(
            path,
            f"compressed as {syntax.name}, for which there is no decoder here",
            "a decoder",
            "Install those of the extra, pip install 'iasolve[dicom]', or export the image uncompressed",
        )


def _padding(dataset: Any, stored: Array) -> NDArray[np.bool_] | None:
    """Pixels that hold the padding value, or a value between it and its limit."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit", value)
    low, high = sorted((int(value), int(limit)))
    padded: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return padded if padded.any() else None


def dicom_obstacle(wanted: Wanted) -> str | None:
    """Why a DICOM object cannot hold what is wanted, or None if it can: the integers of the one it derives from."""
    if wanted.own is None:
        return "a DICOM file is written only from a DICOM file, whose patient and study it keeps"
    return wanted.coloured or wanted.lacking(wanted.own.name)


def encode_dicom(handle: BinaryIO, picture: Picture, path: Path) -> None:
    """Write a derived object, uncompressed.

    The files of one run on one series are one series again: its identifier follows from the source's and the note.
    That of the object follows from its pixels too, so that the same identifier never stands for two images.

    ``picture``: with the header it was read with.

    Raises
    ------
    WriteError
        If the image has another size, which the positions in the header do not describe.
    """
    pydicom = DICOM.load(path)
    source = picture.header
    stored = picture.samples[..., 0]
    if stored.shape != source.shape:
        raise WriteError(
            path,
            f"a result of shape {stored.shape}",
            f"{source.shape}, the frames, rows and columns whose positions the input describes",
            "Write it to .npy or .tif",
        )
    if source.padding is not None:
        stored = np.where(source.padding, stored.dtype.type(source.dataset.PixelPaddingValue), stored)
    dataset = copy.deepcopy(source.dataset)
    note = picture.note or "Processed with iasolve"
    pixels = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<")).tobytes()
    parent = str(dataset.get("SOPInstanceUID", ""))
    kind = dataset.get("SOPClassUID")
    dataset.SeriesInstanceUID = _identifier(pydicom, str(dataset.get("SeriesInstanceUID", "")), note)
    dataset.SOPInstanceUID = _identifier(pydicom, parent, note, hashlib.sha256(pixels).hexdigest())
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    kinds = [str(value) for value in _values(dataset.get("ImageType"))]
    dataset.ImageType = ["DERIVED", "SECONDARY", *kinds[2:]]
    dataset.DerivationDescription = note[:LONGEST_DESCRIPTION]
    # or a viewer lists two series of one name
    dataset.SeriesDescription = f"{str(dataset.get('SeriesDescription') or 'series')[:50]} (iasolve)"
    if parent and kind:
        reference = pydicom.Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = kind, parent
        dataset.SourceImageSequence = [reference]
    for keyword in STALE:
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    content = io.BytesIO()
    try:
        pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    except OSError as error:  # pydicom's for values that do not fit their type; in memory there is no disk to be full
        raise ValueError(str(error).partition("\n")[0]) from error
    handle.write(content.getvalue())


def _identifier(pydicom: Any, *parts: str) -> Any:
    """An identifier that is the same whenever these are the same, and unlike any other."""
    return pydicom.uid.generate_uid(entropy_srcs=["iasolve", *parts])


def _values(element: Any) -> list[Any]:
    return [] if element is None else [element] if isinstance(element, str) else list(element)
