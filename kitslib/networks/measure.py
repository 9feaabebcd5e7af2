"""What a network costs and how its shapes run, worked out without computing a voxel."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from kitslib.networks.blocks import CONV, TRANSPOSED_CONV


def count_parameters(network: nn.Module) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in network.parameters())


def multiply_adds(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of the convolutions and linear layers for one input of `shape` (B, C, ...), in evaluation."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        sites = inputs[0] if isinstance(module, tuple(TRANSPOSED_CONV.values())) else output
        total += sites.numel() * module.weight[0].numel()  # weight[0]: all that one site is multiplied with

    twin = _twin(network).eval()
    for module in twin.modules():
        if isinstance(module, (*CONV.values(), *TRANSPOSED_CONV.values(), nn.Linear)):
            module.register_forward_hook(count)
    twin(torch.empty(tuple(shape), device="meta"))
    return total


def shape_probe(network: nn.Module, shape: Sequence[int]) -> list[tuple[str, tuple[int, ...], int]]:
    """Rows (stage, output shape, parameters) in the order of the forward pass, in training mode.

    A stage is a direct child of the network, or each member where the child is a list; what is switched off
    or has no parameters is left out.
    """
    rows: list[tuple[str, tuple[int, ...], int]] = []
    twin = _twin(network).train()
    for name, module in _stages(twin):
        if parameters := count_parameters(module):

            def note(_: nn.Module, __: tuple[Tensor], output: Tensor, name=name, parameters=parameters) -> None:
                rows.append((name, tuple(output.shape), parameters))

            module.register_forward_hook(note)
    twin(torch.empty(tuple(shape), device="meta"))
    return rows


def _twin(network: nn.Module) -> nn.Module:
    """A copy with shapes and no values, free to run at any size."""
    return copy.deepcopy(network).to("meta").requires_grad_(False)


def _stages(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{index}", member) for index, member in enumerate(child, start=1))
        else:
            yield name, child
