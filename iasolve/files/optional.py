"""Libraries that come with an extra, imported only when a file asks for them."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from .errors import PathInput, UnreadableFile, WriteError

__all__ = ["DICOM", "NIFTI", "Extra"]


@dataclass(frozen=True)
class Extra:
    """An extra of this package.

    Attributes
    ----------
    name : str
        As in ``pip install 'iasolve[name]'``.
    module : str
        The module it brings.
    """

    name: str
    module: str

    def load(self, path: PathInput) -> Any:
        """Import the module.

        Raises
        ------
        UnreadableFile
            With the command that installs it.
        """
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise UnreadableFile(path, *self._message()) from error

    def require_to_read(self, path: PathInput) -> None:
        """Check, without importing it, that the module is there to read ``path`` with.

        Raises
        ------
        UnreadableFile
            With the command that installs it.
        """
        if importlib.util.find_spec(self.module) is None:
            raise UnreadableFile(path, *self._message())

    def require(self, path: PathInput) -> None:
        """Check, without importing it, that the module is there to write ``path`` with.

        Raises
        ------
        WriteError
            With the command that installs it.
        """
        if importlib.util.find_spec(self.module) is None:
            raise WriteError(path, *self._message())

    def _message(self) -> tuple[str, str, str]:
        return (
            f"this kind of file needs {self.module}, which is not installed",
            f"iasolve with the extra {self.name!r}",
            f"Install it: pip install 'iasolve[{self.name}]'",
        )


NIFTI = Extra("nifti", "nibabel")
DICOM = Extra("dicom", "pydicom")
