"""Which devices multiply bfloat16."""

import pytest
import torch

from iasolve.networks.precision import multiplies_bfloat16


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_is_asked_whatever_its_number(device, has, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: not has)
    multiplies_bfloat16.cache_clear()
    try:
        assert multiplies_bfloat16(device) == has
    finally:
        multiplies_bfloat16.cache_clear()
