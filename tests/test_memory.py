"""The advice where memory runs out follows from the settings and the input that did not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kitslib.training import explain_out_of_memory, out_of_memory, what_to_lower

SLABS, STACKS = (2, 1, 64, 256, 256), (8, 5, 512, 512)


def lower(stage: str, shape: tuple[int, ...], **training: Any) -> str:
    return what_to_lower({"stage": stage, "training": training}, shape)


def test_a_failed_request_on_the_cpu_is_quoted() -> None:
    with pytest.raises(RuntimeError) as info:
        torch.empty(1 << 46)
    assert out_of_memory(info.value)
    text = explain_out_of_memory(info.value, torch.device("cpu"), "step 1", "this from 2 to 1")
    assert text.startswith("out of memory in step 1: 281.5 TB asked for, ")
    assert text.endswith(" free. Lower this from 2 to 1.")
    unknown = explain_out_of_memory(MemoryError(), torch.device("cpu"), "step 1", "this")
    assert "asked for" not in unknown and " free. Lower this." in unknown


def test_other_errors_are_none_of_memory() -> None:
    assert out_of_memory(MemoryError()) and not out_of_memory(RuntimeError("shape"))
    assert out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling …"))


def test_figures_of_a_gpu_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 80 << 30))
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 25.00 GiB. GPU 0 has …")
    text = explain_out_of_memory(error, torch.device("cuda"), "step 1", "this")
    assert out_of_memory(error) and "26.8 GB asked for, 1.1 GB free" in text


def test_the_batch_is_halved_first_or_taken_in_parts() -> None:
    assert lower("kidney", SLABS, batch=2, slab=64) == (
        "kidney.batch from 2 to 1, or raise kidney.accumulate from 1 to 2"
        " (the same weights within rounding)"
    )
    in_parts = lower("tumor", (4, 5, 512, 512), batch=8, accumulate=2, slab_batch=1)
    assert in_parts.startswith("tumor.batch from 8 to 4, or raise tumor.accumulate from 2 to 4")


def test_parts_of_an_odd_batch_are_equal() -> None:
    assert lower("tumor", (9, 5, 64, 64), batch=9).startswith("tumor.batch from 9 to 3, or raise")
    text = lower("tumor", (5, 5, 64, 64), batch=5)
    assert text.startswith("tumor.batch from 5 to 1, or raise tumor.accumulate from 1 to 5")


def test_the_3d_arm_has_a_batch_of_its_own() -> None:
    text = lower("tumor", (2, 1, 16, 64, 64), batch=8, slab_batch=2)
    assert text.startswith("tumor.slab_batch from 2 to 1, ")


def test_one_sample_is_made_smaller_in_the_plane_then_in_depth_then_the_network() -> None:
    one = (1, 1, 64, 64, 64)
    sizes = {"patch": 64, "slab": 64, "widths": (16, 32, 64)}
    assert lower("kidney", one, **sizes) == "kidney.patch from 64 to 32"
    assert lower("kidney", one, **sizes | {"patch": None}) == "kidney.slab from 64 to 32"
    thin = sizes | {"patch": 16, "slab": 8}
    assert lower("kidney", one, **thin) == "kidney.widths from [16, 32, 64] to [8, 16, 32]"
    assert lower("tumor", (1, 5, 512, 512), patch=(512, 768)) == (
        "tumor.patch from [512, 768] to [256, 384]"
    )


def test_what_cannot_be_lowered_is_not_named() -> None:
    assert lower("tumor", (1, 5, 16, 16), patch=(16, 16), slab=16, widths=(4, 4)) == (
        "tumor.widths from [4, 4] to [2, 2]"
    ), "a 2.5D network has no slab"
    assert what_to_lower({}, (1, 1, 8, 8)) == "the size of what the network is given at once"


def test_a_validation_is_given_a_smaller_window() -> None:
    assert lower("kidney", (), batch=2, window_slices=64) == "kidney.window_slices from 64 to 32"
    assert lower("tumor", (), batch=2) == "the size of what the network is given at once"
