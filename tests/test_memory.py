"""The advice after a shortage of memory follows from the settings and the figures."""

from __future__ import annotations

import pytest
import torch

from kitslib.training import Shortage, ran_out, shortage, what_to_lower, window_to_lower

KIDNEY = {"stage": "kidney", "training": {"batch": 2, "slab": 64, "widths": [16, 32, 64]}}
TUMOR = {
    "stage": "tumor",
    "training": {"batch": 8, "slab": 16, "patch": [512, 512], "widths": [16, 32]},
}
SLABS, STACKS = (2, 1, 64, 256, 256), (8, 5, 512, 512)


def test_the_share_that_fits_is_what_is_there_over_what_is_needed() -> None:
    assert Shortage(held=60, asked=40, there=80).fits == 0.8
    assert Shortage(held=60, asked=0, there=80).fits == 1.0
    assert str(Shortage(held=3 << 30, asked=512 << 20, there=4 << 40)) == (
        "3.0 GiB held, 512.0 MiB more asked for, 4.0 TiB there"
    )


def test_figures_of_a_failed_request_on_the_cpu() -> None:
    with pytest.raises(RuntimeError) as info:
        torch.empty(1 << 46)
    found = shortage(info.value, torch.device("cpu"))
    assert ran_out(info.value) and found.asked == 4 * 2**46
    assert 0 < found.held < found.there < found.asked
    gpu = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of …"
    )
    assert ran_out(gpu) and shortage(gpu, torch.device("cpu")).asked == 2.5 * 2**30
    assert ran_out(MemoryError()) and not ran_out(RuntimeError("shape"))


def test_figures_of_a_gpu_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gigabytes = {
        "mem_get_info": (1 << 30, 80 << 30),
        "memory_allocated": 70 << 30,
        "memory_reserved": 75 << 30,
    }
    for name, value in gigabytes.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 25.00 GiB. GPU 0 has …")
    found = shortage(error, torch.device("cuda"))
    assert found == Shortage(held=70 << 30, asked=25 << 30, there=76 << 30)
    assert found.fits == 0.8


def test_the_batch_is_halved_first_or_the_slab_shortened() -> None:
    text = what_to_lower(KIDNEY, SLABS, fits=0.95)
    assert text.startswith("kidney.batch from 2 to 1 (or raise accumulate from 1 to 2")
    assert text.endswith(", or kidney.slab from 64 to 48")


def test_a_large_shortage_asks_for_more() -> None:
    text = what_to_lower(TUMOR, STACKS, fits=0.2)  # one of eight samples fits with room, two do not
    assert text.startswith("tumor.batch from 8 to 1 (or raise accumulate from 1 to 8")
    text = what_to_lower(KIDNEY, SLABS, fits=0.25)  # half of one sample fits
    assert text.endswith(" and kidney.slab from 64 to 32")


def test_what_no_longer_can_be_lowered_is_not_named() -> None:
    assert what_to_lower(KIDNEY, (1, 1, 64, 256, 256), fits=1.0) == "kidney.slab from 64 to 48"
    thin = {"stage": "kidney", "training": {"batch": 1, "slab": 8, "widths": [16, 32, 64]}}
    assert (
        what_to_lower(thin, (1, 1, 8, 256, 256), fits=1.0)
        == "kidney.widths from (16, 32, 64) to (8, 16, 32)"
    )
    assert what_to_lower({}, (1, 1, 8, 8), fits=1.0) == "the network's widths to half"


def test_slices_are_made_smaller_in_the_plane_and_parts_made_more() -> None:
    text = what_to_lower(TUMOR, (4, 5, 512, 512), fits=0.9, accumulate=2)
    assert text.startswith("tumor.batch from 8 to 4 (or raise accumulate from 2 to 4")
    assert text.endswith(", or tumor.patch from (512, 512) to (432, 432)")


def test_a_validation_is_given_a_smaller_window() -> None:
    settings = {"stage": "kidney", "training": {"batch": 2, "window_slices": 64}}
    assert window_to_lower(settings, fits=1.0) == "kidney.window_slices from 64 to 48"
    assert window_to_lower(settings, fits=0.3) == "kidney.window_slices from 64 to 16"
    assert window_to_lower({}, fits=1.0) == "what the validation gives the network at once"
