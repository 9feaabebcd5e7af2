"""Device, precision and names of the machine."""

from __future__ import annotations

import pytest
import torch

from kitslib.training import DeviceError, device_name, start


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="no CUDA device"):
        start(device="cuda")


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(DeviceError, match="'fp16' needs a GPU"):
        start(device="cpu", precision="fp16")


def test_a_second_start_may_ask_for_another_precision() -> None:
    assert start(device="cpu", precision="bf16").mixed_precision == "bf16"
    assert start(device="cpu", precision="no").mixed_precision == "no"


@pytest.mark.parametrize(
    ("able", "precision"),
    [
        ({"avx512_f": True}, "no"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_bf16": True}, "bf16"),
        ({"bf16": True}, "bf16"),
    ],
)
def test_bf16_is_taken_where_the_cpu_has_it_and_not_where_it_is_emulated(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert start(device="cpu").mixed_precision == precision
    assert device_name().endswith("without bf16") == (precision == "no")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.delattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    assert start(device="cpu").mixed_precision == "no"
