"""Layers that torch's own are slow for on a CPU; `python -m benchmarks layers` says how slow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SMALL = 20480  # values over all axes but the last, up to which torch leaves oneDNN for one sample


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` without groups and with zero padding, quick for one small float32 sample too.

    There torch (2.13) multiplies unfolded matrices on a CPU, up to 20 times as slow as oneDNN,
    which it takes for two samples: here the two halves of the depth, with all that each sees.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        small = len(x) == 1 and x.numel() <= SMALL * x.shape[-1]
        if not small or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super()._conv_forward(x, weight, bias)
        stride, (before, *padding) = self.stride[0], self.padding
        reach = self.dilation[0] * (self.kernel_size[0] - 1) + 1
        depth = (x.shape[2] + 2 * before - reach) // stride + 1
        half = (depth + 1) // 2
        start, seen = half * stride, (half - 1) * stride + reach
        x = F.pad(x, (0, 0, 0, 0, before, before + (2 * half - depth) * stride))
        halves = torch.cat([x[:, :, :seen], x[:, :, start : start + seen]])
        done = F.conv3d(halves, weight, bias, self.stride, (0, *padding), self.dilation)
        last = done.movedim(1, -1)  # (2, half, ..., out), where the halves follow each other
        whole = last.reshape(1, 2 * half, *last.shape[2:]).movedim(-1, 1)
        return whole[:, :, :depth]


class InstanceNorm(nn.Module):
    """Every channel of every sample to mean 0 and variance 1, then a learned scale and shift.

    On a CPU it is the batch norm of one sample at a time, which keeps the channels-last layout.
    Source: Ulyanov et al. 2016, arXiv 1607.08022.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.instance_norm(x, weight=self.weight, bias=self.bias)
        settings = (self.weight, self.bias, None, None, True, 0.0, 1e-5, False)
        samples = [torch.batch_norm(sample, *settings) for sample in x.split(1)]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


class PReLU(nn.Module):
    """Rectifier with a learned slope per channel below zero (He et al. 2015, arXiv 1502.01852)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1)
        if x.device.type == "cpu" and last.is_contiguous() and not x.is_contiguous():
            return _RowPReLU.apply(last, self.weight).movedim(-1, 1)
        return F.prelu(x, self.weight.to(x.dtype))


class _RowPReLU(torch.autograd.Function):
    """PReLU of a contiguous (B, ..., W, C) as rows of W·C values, the slopes repeated along each.

    Slopes that vary along a short inner axis cost torch's own kernels about eight times as much.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        rows = x.flatten(0, -3).flatten(1)
        slopes = weight.to(x.dtype).repeat(x.shape[-2])
        ctx.save_for_backward(rows, slopes)
        ctx.channels = len(weight)
        return torch.prelu(rows, slopes).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        rows, slopes = ctx.saved_tensors
        whole = gradient.reshape(rows.shape)
        kept = torch.ops.aten.threshold_backward(whole, rows, 0)  # the gradient above 0, else 0
        leaked = whole - kept
        to_slopes = (
            (leaked * rows).sum(dim=0, dtype=torch.float32).view(-1, ctx.channels).sum(dim=0)
        )
        return kept.addcmul_(leaked, slopes).view(gradient.shape), to_slopes
