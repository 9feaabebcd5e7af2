"""What a network costs, how its shapes run, and what its gates let through."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kitslib.networks.blocks import TRANSPOSED, WEIGHTED, AdditiveGate, ConcatGate, crop_to
from kitslib.networks.cpu import InstanceNorm, PReLU


def count_parameters(network: nn.Module) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in network.parameters())


def multiply_adds(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of convolutions and linear layers in evaluation, for an input (B, C, ...)."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        sites = inputs[0] if isinstance(module, TRANSPOSED) else output
        total += sites.numel() * module.weight[0].numel()  # [0]: what one site is multiplied with

    twin = _twin(network).eval()
    for module in twin.modules():
        if isinstance(module, WEIGHTED):
            module.register_forward_hook(count)
    twin(torch.empty(tuple(shape), device="meta"))
    return total


def shape_probe(network: nn.Module, shape: Sequence[int]) -> list[tuple[str, tuple[int, ...], int]]:
    """Rows (part, output shape, parameters) in the order of the forward pass, in training mode.

    A part is a direct child of the network, or each member where the child is a list; what is
    switched off or has no parameters is left out. `shape` is that of the input, (B, C, ...).
    """
    rows: list[tuple[str, tuple[int, ...], int]] = []
    twin = _twin(network).train()
    parts: dict[str, nn.Module] = {}
    for name, child in twin.named_children():
        if isinstance(child, nn.ModuleList):
            parts |= {f"{name}.{index}": member for index, member in enumerate(child, start=1)}
        else:
            parts[name] = child

    def note(name: str, module: nn.Module, _: tuple[Tensor], output: Tensor) -> None:
        if parameters := count_parameters(module):
            rows.append((name, tuple(output.shape), parameters))

    for name, module in parts.items():
        module.register_forward_hook(partial(note, name))
    twin(torch.empty(tuple(shape), device="meta"))
    return rows


def gate_maps(network: nn.Module, x: Tensor) -> dict[int, Tensor]:
    """What each gate lets through of `x` (B, C, ...), as maps (B, 1, ...) in [0, 1] on its grid.

    The keys say by how much the gate's own grid is coarser (4, 2, 1, the deepest first); its values
    are repeated. The network is run once in evaluation and left as it was.
    Raises ValueError for a network without gates.
    """
    caught: list[Tensor] = []
    hooks = []
    for module in network.modules():
        if isinstance(module, (ConcatGate, AdditiveGate)):
            hook = module.map.register_forward_hook(lambda _, __, map_: caught.append(map_.float()))
            hooks.append(hook)
    if not hooks:
        name = type(network).__name__
        raise ValueError(f"gate_maps: {name} has no attention gate; build it with attention=True")
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
        whole = F.interpolate(found, scale_factor=factor, mode="nearest")
        maps[factor] = crop_to(whole, x.shape[2:])
    return maps


def _twin(network: nn.Module) -> nn.Module:
    """A copy with shapes and no values, free to run at any size.

    What changes no shape is left out: without values, torch would load its compiler for it.
    """
    twin = copy.deepcopy(network).to("meta").requires_grad_(False)
    for module in twin.modules():
        if isinstance(module, (InstanceNorm, PReLU)):
            module.forward = nn.Identity().forward
    return twin
