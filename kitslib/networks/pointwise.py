"""Instance norm and PReLU that stay quick in channels-last bf16 on a CPU, where torch's own kernels do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


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
        if x.device.type == "cpu":
            return self._normalise(x) if len(x) == 1 else torch.cat([self._normalise(one) for one in x.split(1)])
        return F.instance_norm(x, weight=self.weight, bias=self.bias)

    def _normalise(self, sample: Tensor) -> Tensor:
        return torch.batch_norm(sample, self.weight, self.bias, None, None, True, 0.0, 1e-5, False)


class PReLU(nn.Module):
    """Rectifier with one learned slope per channel below zero (He et al. 2015, arXiv 1502.01852)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1)
        if x.device.type == "cpu" and last.is_contiguous() and not x.is_contiguous():
            return _RowPReLU.apply(last, self.weight).movedim(-1, 1)
        return F.prelu(x, self.weight.to(x.dtype))


class _RowPReLU(torch.autograd.Function):
    """PReLU of a contiguous (B, ..., W, C) seen as rows of W·C values, the slopes repeated along the row.

    Slopes that vary along a short inner axis cost torch's own kernels about eight times as much.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        width, channels = x.shape[-2:]
        rows = x.view(-1, width * channels)
        slopes = weight.to(x.dtype).repeat(width)
        ctx.save_for_backward(rows, slopes)
        ctx.channels = channels
        return torch.prelu(rows, slopes).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        rows, slopes = ctx.saved_tensors
        grid = gradient.shape
        gradient = gradient.reshape(rows.shape)
        kept = torch.ops.aten.threshold_backward(gradient, rows, 0)  # the gradient where x > 0
        leaked = gradient - kept
        to_input = kept.addcmul_(leaked, slopes)
        to_slopes = leaked.mul_(rows).sum(dim=0).view(-1, ctx.channels).sum(dim=0, dtype=torch.float32)
        return to_input.view(grid), to_slopes
