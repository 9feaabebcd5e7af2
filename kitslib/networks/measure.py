"""What a network costs, how its shapes run, and what its gates let through."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kitslib.networks.blocks import AdditiveGate, ConcatGate, crop_to
from kitslib.networks.cpu import UpConv

TRANSPOSED_CONV = (UpConv, nn.ConvTranspose2d, nn.ConvTranspose3d)


def count_parameters(network: nn.Module) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in network.parameters())


def multiply_adds(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of the convolutions and linear layers for one input of `shape` (B, C, ...), in evaluation."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        sites = inputs[0] if isinstance(module, TRANSPOSED_CONV) else output
        total += (
            sites.numel() * module.weight[0].numel()
        )  # weight[0]: all that one site is multiplied with

    twin = _twin(network).eval()
    for module in twin.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, *TRANSPOSED_CONV, nn.Linear)):
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

            def note(
                _: nn.Module, __: tuple[Tensor], output: Tensor, name=name, parameters=parameters
            ) -> None:
                rows.append((name, tuple(output.shape), parameters))

            module.register_forward_hook(note)
    twin(torch.empty(tuple(shape), device="meta"))
    return rows


def gate_maps(network: nn.Module, x: Tensor) -> dict[int, Tensor]:
    """What each attention gate lets through of `x` (B, C, ...): a map (B, 1, ...) in [0, 1] on the grid of `x`.

    The keys say by how much the gate's own grid is coarser (4, 2, 1, the deepest first); its values are repeated.
    The network is run once in evaluation and left as it was. Raises `ValueError` for one without gates.
    """
    gates = [
        module for module in network.modules() if isinstance(module, (ConcatGate, AdditiveGate))
    ]
    if not gates:
        raise ValueError(
            f"gate_maps: {type(network).__name__} has no attention gate; build it with attention=True"
        )
    caught: list[Tensor] = []
    hooks = [
        gate.map.register_forward_hook(lambda _, __, output: caught.append(output.float()))
        for gate in gates
    ]
    training = network.training
    try:
        with torch.inference_mode():
            network.eval()(x)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    maps = {}
    for found in caught:
        factor = caught[-1].shape[-1] // found.shape[-1]
        maps[factor] = crop_to(
            F.interpolate(found, scale_factor=factor, mode="nearest"), x.shape[2:]
        )
    return maps


def _twin(network: nn.Module) -> nn.Module:
    """A copy with shapes and no values, free to run at any size."""
    return copy.deepcopy(network).to("meta").requires_grad_(False)


def _stages(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{index}", member) for index, member in enumerate(child, start=1))
        else:
            yield name, child
