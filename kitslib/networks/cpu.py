"""Layers that stay quick on a CPU, in channels-last bf16 and in float32, where torch's own kernels do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SMALL = 20480  # values over all axes but the last, up to which torch takes its slow float32 convolution of one sample
INTEGERS = {
    2: torch.int16,
    4: torch.int32,
    8: torch.int64,
}  # that hold the bits of a floating-point number, by bytes


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` that stays with oneDNN where torch leaves it: float32, one sample, few values, on a CPU.

    There torch multiplies unfolded matrices, which takes up to 20 times as long (2.13; its rule counts the values over
    all axes but the last, and calls up to 20480 few).
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (
            x.device.type == "cpu"
            and x.dtype == weight.dtype == torch.float32
            and x.ndim == 5
            and len(x) == 1
            and 0 < x.numel() <= SMALL * x.shape[-1]
            and self.groups == 1
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and not torch.is_autocast_enabled("cpu")
            and torch.backends.mkldnn.is_available()
            and not torch.compiler.is_compiling()
        ):
            return _SmallConv.apply(x, weight, bias, self.stride, self.padding, self.dilation)
        return super()._conv_forward(x, weight, bias)


class _SmallConv(torch.autograd.Function):
    """A convolution by oneDNN; gradients of the two halves of its depth as if of two samples, which oneDNN gets."""

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.bias = (stride, padding, dilation), None if bias is None else [len(bias)]
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, dilation, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (stride, padding, dilation) = ctx.saved_tensors, ctx.geometry
        half, odd = divmod(gradient.shape[2], 2)
        seen = (
            (half - 1) * stride[0] + (weight.shape[2] - 1) * dilation[0] + 1
        )  # slices that half of the output sees
        wanted = [*ctx.needs_input_grad[:2], ctx.bias is not None]
        if odd or seen > x.shape[2]:  # halves that overlap so much cost more than the slow way
            to_x, to_weight, to_bias = torch.ops.aten.convolution_backward(
                gradient, x, weight, ctx.bias, stride, padding, dilation, False, [0] * 3, 1, wanted
            )
            return to_x, to_weight, to_bias, None, None, None
        deep, second = padding[0], half * stride[0]
        padded = F.pad(x, (0, 0, 0, 0, deep, deep))
        to_halves, to_weight, to_bias = torch.ops.aten.convolution_backward(
            torch.cat(gradient.split(half, dim=2)),
            torch.cat([padded[:, :, :seen], padded[:, :, second : second + seen]]),
            weight, ctx.bias, stride, (0, *padding[1:]), dilation, False, [0] * 3, 1, wanted,
        )  # fmt: skip
        to_x = None
        if wanted[0]:
            whole = torch.zeros_like(padded)
            whole[:, :, :seen] = to_halves[:1]
            whole[:, :, second : second + seen] += to_halves[1:]
            to_x = whole[:, :, deep : deep + x.shape[2]]
        return to_x, to_weight, to_bias, None, None, None


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
            return (
                self._normalise(x)
                if len(x) == 1
                else torch.cat([self._normalise(one) for one in x.split(1)])
            )
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


class UpConv(nn.Module):
    """Transposed convolution of width and stride 2, which doubles every axis of (B, C, H, W) or (B, C, D, H, W).

    No two of its outputs overlap, so that on a CPU it is one matrix product and a rearrangement of the rows: forward
    and backward together take a third of the time.
    """

    def __init__(self, dims: int, channels: int, out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, out, *[2] * dims))
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1)
        if x.device.type == "cpu" and last.is_contiguous():
            return self._product(last).movedim(-1, 1)
        transposed = F.conv_transpose2d if x.ndim == 4 else F.conv_transpose3d
        return transposed(x, self.weight, self.bias, stride=2)

    def _product(self, x: Tensor) -> Tensor:
        """(B, ..., C) to (B, doubled axes, out)."""
        axes, out = range(1, x.ndim - 1), self.weight.shape[1]
        to_corners = self.weight.movedim(1, -1).flatten(1).t()  # (corners · out, C)
        bias = None if self.bias is None else self.bias.repeat(2 ** len(axes))
        corners = F.linear(x, to_corners, bias).view(*x.shape[:-1], *[2 for _ in axes], out)
        order = [0, *(k for axis in axes for k in (axis, axis + len(axes))), -1]
        return corners.permute(order).reshape(len(x), *(2 * x.shape[axis] for axis in axes), out)


def join(a: Tensor, b: Tensor) -> Tensor:
    """`torch.cat` along the channels, with gradients in one piece on a CPU: kernels are slow on views with gaps."""
    return _Join.apply(a, b) if a.device.type == "cpu" else torch.cat([a, b], dim=1)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        ctx.channels = a.shape[1], b.shape[1]
        return torch.cat([a, b], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        to_a, to_b = (
            part.movedim(1, -1).contiguous().movedim(-1, 1)
            for part in gradient.split(ctx.channels, dim=1)
        )
        return to_a, to_b


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """`F.dropout`, which spends most of its time on drawing numbers; in bf16 on a CPU 15 random bits a value do."""
    if training and share and x.device.type == "cpu" and x.dtype == torch.bfloat16:
        return _BitDropout.apply(x, share)
    return F.dropout(x, share, training)


class _BitDropout(torch.autograd.Function):
    """Dropout by a mask of bits, drawn four to a 64-bit number; the share is met to 1 in 32768."""

    @staticmethod
    def forward(ctx, x: Tensor, share: float) -> Tensor:
        numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        mask = numbers.view(torch.int16)[: x.numel()].bitwise_and_(0x7FFF)  # 0 to 32767
        mask.sub_(round(share * 2**15)).bitwise_right_shift_(
            15
        ).bitwise_not_()  # all bits where it is kept
        ctx.save_for_backward(mask)
        ctx.scale = 1 / (1 - share)
        return _masked(x, mask, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _masked(gradient, *ctx.saved_tensors, ctx.scale), None


def _masked(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """The bf16 values (B, C, ...) that the mask keeps, scaled; the mask lies in the order of channels last."""
    last = x.movedim(1, -1).contiguous()
    kept = last.view(torch.int16) & mask.view(last.shape)
    return kept.view(torch.bfloat16).mul_(scale).movedim(-1, 1)


class _RowPReLU(torch.autograd.Function):
    """PReLU of a contiguous (B, ..., W, C) seen as rows of W·C values, the slopes repeated along the row.

    Slopes that vary along a short inner axis cost torch's own kernels about eight times as much, and its bf16
    arithmetic more than the same work on the values' sign bits. Where x is 0 the gradient passes whole.
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
        bits, dtype = INTEGERS[rows.element_size()], rows.dtype
        whole = gradient.contiguous().view(rows.shape).view(bits)
        leaked = (rows.view(bits) >> torch.iinfo(bits).bits - 1).bitwise_and_(
            whole
        )  # the gradient where x < 0, else 0
        kept, leaked = (whole ^ leaked).view(dtype), leaked.view(dtype)
        to_input = kept.addcmul_(leaked, slopes)
        return to_input.view(gradient.shape), _products(leaked, rows).view(-1, ctx.channels).sum(
            dim=0
        )


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Sum over the rows of a · b, float32 for bf16, in one pass: the gradient of the scale of a batch norm."""
    dtype = torch.promote_types(a.dtype, torch.float32)
    zeros, ones = (torch.full((a.shape[1],), value, dtype=dtype) for value in (0.0, 1.0))
    only_scale = (False, True, False)
    return torch.ops.aten.native_batch_norm_backward(
        a, b, ones, None, None, zeros, ones, True, 0.0, only_scale
    )[1]
