"""The real libraries that adapters and files are tested against, imported as far as they can be here."""

import functools
import importlib
import importlib.util
import warnings
from pathlib import Path

import pytest
import torch

__all__ = ["library"]


def library(name, needs):
    """The real library, or a skip that says what it needs here."""
    with warnings.catch_warnings():
        # theirs, at import: readers and back ends that no test uses
        warnings.simplefilter("ignore")
        _torchvision()
        try:
            return importlib.import_module(name)
        except ImportError:
            pytest.skip(f"needs {needs}")


@functools.cache
def _torchvision():
    """Let torchvision be imported where its compiled part cannot be loaded; None, or what declares its operators.

    PyPI has torchvision's CUDA build, whose compiled part does not load beside a CPU build of torch. Its import then
    ends at two operators that it only describes further, unless they are declared. deepinv imports torchvision; its
    physics calls neither of them, and they stay without an implementation.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    for compiled in Path(found.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(compiled)
            return None
        except OSError:
            pass
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return declared
