"""Networks: sizes, switches, gradients, and blocks against plain statements of what they do."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kitslib.networks import (
    ResUNet3D,
    Together,
    build,
    count_parameters,
    gate_maps,
    hdc_coverage,
    multiply_adds,
    shape_probe,
)
from kitslib.networks.blocks import (
    AdditiveGate,
    ConcatGate,
    HybridDilated,
    PyramidJoin,
    SqueezeExcite,
    resize,
)
from kitslib.networks.cpu import Conv3d, InstanceNorm, PReLU

MECHANISMS = ("multi_scale", "se", "attention", "hdc")
SHAPES = {"2d": (2, 1, 19, 12), "2.5d": (2, 5, 19, 12), "3d": (1, 1, 9, 19, 12)}
TINY = {"widths": (2, 4, 4)}
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def without_gradient(network: nn.Module) -> list[str]:
    return [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().any()
    ]


# The kidney network


def test_the_ancestors_form_has_its_parameter_count() -> None:
    assert count_parameters(build("resunet3d")) == 9_498_260


def test_four_maps_in_training_and_the_finest_in_evaluation() -> None:
    network = build("resunet3d", widths=(2, 2, 2, 2, 2))
    for index, head in enumerate((network.map1, network.map2, network.map3, network.map4), start=1):
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, index)
    x = torch.randn(2, 1, 8, 16, 24)
    outputs = network.train()(x)
    assert [o.shape for o in outputs] == [x.shape] * 4
    for index, output in enumerate(outputs, start=1):  # coarsest first
        torch.testing.assert_close(output, torch.full_like(output, index))
    torch.testing.assert_close(network.eval()(x), outputs[-1])


@pytest.mark.parametrize("residual", [False, True])
def test_without_deep_supervision_the_coarse_maps_are_left_out(residual: bool) -> None:
    options = {"widths": (2, 2, 2, 2, 2), "residual": residual}
    network = build("resunet3d", deep_supervision=False, **options)
    assert network.train()(torch.randn(1, 1, 8, 8, 8)).shape == (1, 1, 8, 8, 8)
    left_out = set(build("resunet3d", **options).state_dict()) - set(network.state_dict())
    assert left_out == {f"map{n}.{kind}" for n in (1, 2, 3) for kind in ("weight", "bias")}


@pytest.mark.parametrize("size", [(16, 16, 16), (13, 30, 27), (1, 5, 3)])
def test_resunet_gives_back_every_size(size: tuple[int, ...]) -> None:
    network = build("resunet3d", widths=(2, 2, 2, 2, 2), norm=True)
    assert all(logits.shape == (1, 1, *size) for logits in network(torch.randn(1, 1, *size)))


def test_padding_does_not_reach_what_is_far_from_it() -> None:
    network = build("resunet3d", widths=(2, 2, 2, 2, 2)).eval()
    whole = torch.randn(1, 1, 8, 8, 96)
    whole[..., 89:] = whole[..., 88:89]  # as padding by repetition makes it
    torch.testing.assert_close(network(whole)[..., :89], network(whole[..., :89]))


def test_residual_off_leaves_out_the_sums_and_what_fits_a_shortcut() -> None:
    options = {"widths": (2, 2, 2, 2, 2), "dropout": 0.0}
    on, off = build("resunet3d", **options), build("resunet3d", residual=False, **options)
    left_out = set(on.state_dict()) - set(off.state_dict())
    assert left_out and all(key.startswith("bottom.") for key in left_out)
    off.load_state_dict(on.state_dict(), strict=False)
    x = torch.randn(1, 1, 8, 8, 8)
    assert not torch.allclose(on.eval()(x), off.eval()(x))


def test_dropout_acts_in_training_only() -> None:
    network = build("resunet3d", widths=(2, 2, 2, 2, 2), dropout=0.5)
    x = torch.randn(1, 1, 16, 16, 16)
    assert not torch.equal(network.train()(x)[-1], network(x)[-1])
    assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_every_resunet_parameter_gets_a_gradient(
    norm: bool, residual: bool, deep_supervision: bool
) -> None:
    network = build(
        "resunet3d",
        widths=(2, 4, 4, 4, 4),
        norm=norm,
        dropout=0.0,
        residual=residual,
        deep_supervision=deep_supervision,
    )
    outputs = network(torch.randn(2, 1, 16, 16, 16))
    sum(
        (logits * torch.randn_like(logits)).sum()
        for logits in (outputs if deep_supervision else [outputs])
    ).backward()
    assert without_gradient(network) == []


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (1, 2, 8, 8, 8), (1, 1, 0, 8, 8)])
def test_another_batch_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"ResUNet3D expects a batch \(B, 1, D, H, W\)"):
        build("resunet3d", widths=(2, 2, 2, 2, 2))(torch.zeros(shape))


def test_resunet_widths_are_five() -> None:
    with pytest.raises(ValueError, match="widths: expected 5"):
        build("resunet3d", widths=(8, 16, 32))


# The tumour networks


@pytest.mark.parametrize("name", ["vnet", "unet", "deeplab"])
@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("norm", [False, True])
def test_tumour_networks_give_back_the_size_and_train_every_parameter(
    name: str, dims: str, norm: bool
) -> None:
    network = build(name, dims=dims, widths=(2, 4, 4, 4), norm=norm)
    x = torch.randn(SHAPES[dims])
    logits = network(x)
    assert logits.shape == (x.shape[0], 1, *x.shape[2:])
    (logits * torch.randn_like(logits)).sum().backward()
    assert without_gradient(network) == []


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=4)))
def test_every_combination_of_mechanisms_trains_every_parameter(
    dims: str, flags: tuple[bool, ...]
) -> None:
    options = dict(zip(MECHANISMS, flags, strict=True))
    network, plain = build("vnet", dims=dims, **TINY, **options), build("vnet", dims=dims, **TINY)
    keys, plain_keys = set(network.state_dict()), set(plain.state_dict())
    assert keys >= plain_keys
    assert (keys == plain_keys) == (not any(flags))
    x = torch.randn(SHAPES[dims])
    logits = network(x)
    assert logits.shape == (x.shape[0], 1, *x.shape[2:])
    (logits * torch.randn_like(logits)).sum().backward()
    assert without_gradient(network) == []


def outputs_of(*modules: nn.Module) -> list[torch.Tensor]:
    """What these give from now on, call by call."""
    seen: list[torch.Tensor] = []
    for module in modules:
        module.register_forward_hook(lambda _, __, output: seen.append(output))
    return seen


def heard_from(**options: object) -> float:
    """How far from the centre, in pixels along the rows, a pixel still changes the centre."""
    network = build("vnet", **TINY, **options)
    x = torch.randn((1, 5, 224, 16), requires_grad=True)
    network(x)[0, 0, 112, 8].backward()
    rows = torch.nonzero(x.grad.abs().sum(dim=(0, 1, 3)))[:, 0]
    return float((rows - 112).abs().max())


def test_the_centre_hears_as_far_as_each_mechanism_says() -> None:
    plain = heard_from()
    assert 30 < plain < 60
    assert heard_from(multi_scale=True) <= plain + 4 and heard_from(attention=True) <= plain + 4
    # 2 + 3 + 5 pixels of the deepest map, 4 pixels each
    assert heard_from(hdc=True) == pytest.approx(plain + 40, abs=4)
    assert heard_from(se=True) == 112, "channels are weighed by the whole image"


def test_the_image_reaches_the_deepest_level_by_itself() -> None:
    for multi_scale in (False, True):
        network = build("vnet", **TINY, multi_scale=multi_scale)
        for parameter in network.encoder[0].down.parameters():
            nn.init.zeros_(parameter)  # nothing comes from above
        seen = outputs_of(network.encoder[-1])
        for _ in range(2):
            network(torch.randn(SHAPES["2.5d"]))
        assert torch.equal(seen[0], seen[1]) != multi_scale


def test_a_closed_gate_hides_the_skip() -> None:
    network = build("vnet", **TINY, attention=True)
    for level in network.decoder:
        nn.init.zeros_(level.attention.map[-2].weight)
        nn.init.constant_(level.attention.map[-2].bias, -1e4)
    skips = outputs_of(*(level.attention for level in network.decoder))
    network(torch.randn(SHAPES["2.5d"]))
    assert len(skips) == 2 and not any(skip.any() for skip in skips)


@pytest.mark.parametrize(
    ("level", "prefix"), [(0, "hdc."), (1, "encoder.0.hdc."), ("bottom", "encoder.1.hdc.")]
)
def test_dilated_layers_sit_at_the_level_asked_for(level: int | str, prefix: str) -> None:
    network = build("vnet", **TINY, hdc=True, hdc_level=level)
    extra = set(network.state_dict()) - set(build("vnet", **TINY).state_dict())
    assert extra and all(key.startswith(prefix) for key in extra)


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("level", [0, 1, 2, "bottom"])
@pytest.mark.parametrize("dilations", [(2, 3, 5), (2, 2, 2)])
def test_dilated_layers_train_at_every_level(
    dims: str, level: int | str, dilations: tuple[int, ...]
) -> None:
    options = dict.fromkeys(MECHANISMS, True) | {"hdc_level": level, "hdc_dilations": dilations}
    network = build("vnet", dims=dims, **TINY, **options)
    logits = network(torch.randn(SHAPES[dims]))
    (logits * torch.randn_like(logits)).sum().backward()
    assert without_gradient(network) == []


@pytest.mark.parametrize("dims", SHAPES)
def test_the_additive_gate_is_a_variant(dims: str) -> None:
    network = build("vnet", dims=dims, **TINY, attention=True, attention_gate="additive")
    assert sum(isinstance(m, AdditiveGate) for m in network.modules()) == 2
    network(torch.randn(SHAPES[dims])).square().sum().backward()
    assert without_gradient(network) == []


@pytest.mark.parametrize("name", ["vnet", "unet", "deeplab"])
@pytest.mark.parametrize(
    "size", [(16, 16), (17, 31), (33, 20), (1, 3), (16, 16, 8), (5, 9, 14), (1, 1, 2)]
)
def test_tumour_networks_give_back_every_size(name: str, size: tuple[int, ...]) -> None:
    on = dict.fromkeys(MECHANISMS, True) if name == "vnet" else {}
    network = build(
        name, dims="3d" if len(size) == 3 else "2d", widths=(2, 4, 4, 4), norm=True, **on
    )
    logits = network(torch.randn(1, 1, *size))
    assert logits.shape == (1, 1, *size) and logits.isfinite().all()


@pytest.mark.parametrize("gate", ["concat", "additive"])
@pytest.mark.parametrize("dims", SHAPES)
def test_gate_maps_lie_between_0_and_1_on_the_grid_of_the_image(gate: str, dims: str) -> None:
    network = build(
        "vnet", dims=dims, widths=(2, 4, 4, 4), attention=True, attention_gate=gate
    ).train()
    x = torch.randn(SHAPES[dims])
    maps = gate_maps(network, x)
    assert list(maps) == [4, 2, 1]
    for factor, found in maps.items():
        assert found.shape == (x.shape[0], 1, *x.shape[2:])
        assert ((found >= 0) & (found <= 1)).all()
        block = found[..., :factor, :factor]
        assert torch.equal(
            block, block[..., :1, :1].expand_as(block)
        )  # one value per voxel of the gate's own grid
    assert found.std() > 0
    assert network.training and not any(module._forward_hooks for module in network.modules())


def test_gate_maps_are_what_the_skips_are_multiplied_by() -> None:
    network = build("vnet", **TINY, attention=True)
    for level in network.decoder:
        nn.init.zeros_(level.attention.map[2].weight)
        nn.init.constant_(level.attention.map[2].bias, 100.0)
    plain = build("vnet", **TINY)
    plain.load_state_dict(network.state_dict(), strict=False)
    x = torch.randn(SHAPES["2.5d"])
    assert all((found == 1).all() for found in gate_maps(network, x).values())
    torch.testing.assert_close(network(x), plain(x))  # gates that let everything through


def test_a_network_without_gates_has_no_maps() -> None:
    with pytest.raises(ValueError, match="VNet has no attention gate"):
        gate_maps(build("vnet", **TINY), torch.randn(SHAPES["2.5d"]))


def test_the_centre_slice_is_the_one_summed_into_the_first_level() -> None:
    network = build("vnet", **TINY, slices=3)
    nn.init.zeros_(
        network.stem[0][0].weight
    )  # the stem's convolution hides the image: only the sum shows it
    x = torch.randn(1, 3, 8, 8)
    changed = x.clone()
    changed[:, [0, 2]] += 1
    assert torch.equal(network(x), network(changed))
    changed[:, 1] += 1
    assert not torch.equal(network(x), network(changed))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": "4d"}, "dims: expected '2d', '2.5d' or '3d', got '4d'"),
        ({"slices": 4}, "slices: expected an odd number"),
        ({"widths": (8, 8)}, "widths: expected at least 3"),
        ({"attention_gate": "max"}, "attention_gate: expected one of concat, additive, got 'max'"),
        ({"hdc_level": 9}, "hdc_level: expected 'bottom' or 0 to 4, got 9"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("vnet", **options)


@pytest.mark.parametrize("name", ["vnet", "unet", "deeplab"])
def test_a_batch_with_other_channels_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expects a batch \(B, 5, H, W\).*got \(1, 3, 16, 16\)"):
        build(name, widths=(2, 2, 2))(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("name", ["resunet3d", "vnet"])
def test_bf16_and_channels_last_agree_with_float32(name: str) -> None:
    options = (
        {"widths": (4, 8, 8, 8, 8), "dropout": 0.0}
        if name == "resunet3d"
        else {"widths": (4, 8, 8)}
    )
    network = build(name, **options, norm=True)
    x = torch.randn((2, 1, 16, 32, 32) if name == "resunet3d" else (2, 5, 32, 32))
    expected = network.eval()(x)
    network.to(memory_format=LAYOUTS[x.ndim])
    with torch.autocast("cpu", torch.bfloat16):
        got = network(x.to(memory_format=LAYOUTS[x.ndim]))
    assert (got.float() - expected).norm() < 0.05 * expected.norm()


def test_a_few_steps_learn_a_square() -> None:
    network = build("vnet", widths=(4, 8, 8), norm=True, **dict.fromkeys(MECHANISMS, True))
    target = torch.zeros(2, 1, 32, 32)
    target[:, :, 8:20, 10:24] = 1
    x = target + 0.3 * torch.randn(2, 5, 32, 32)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        loss = F.binary_cross_entropy_with_logits(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((network(x) > 0) == (target > 0)).float().mean() > 0.95


# Blocks


@pytest.mark.parametrize("size", [(7, 6), (5, 7, 6)])
def test_squeeze_excite_weighs_channels_alike_everywhere(size: tuple[int, ...]) -> None:
    x = torch.rand(3, 32, *size) + 1
    weights = (SqueezeExcite(32)(x) / x).flatten(2)
    assert ((weights > 0) & (weights < 1)).all()
    torch.testing.assert_close(weights, weights[..., :1].expand_as(weights))
    assert weights[..., 0].std() > 0.01  # and channels apart


def test_squeeze_excite_depends_on_the_means_alone() -> None:
    se, x = SqueezeExcite(8), torch.randn(1, 8, 6, 6)
    shuffled = x.flatten(2)[..., torch.randperm(36)].reshape(x.shape)
    torch.testing.assert_close((se(x) / x)[..., 0, 0], (se(shuffled) / shuffled)[..., 0, 0])


@pytest.mark.parametrize(("channels", "hidden"), [(16, 4), (64, 4), (256, 16)])
def test_squeeze_excite_never_squeezes_under_four(channels: int, hidden: int) -> None:
    assert SqueezeExcite(channels).weights[0].out_features == hidden


@pytest.mark.parametrize("gate", [ConcatGate, AdditiveGate])
@pytest.mark.parametrize("size", [(6, 5), (4, 6, 5)])
def test_gates_multiply_the_skip_by_one_map_between_0_and_1(
    gate: type[nn.Module], size: tuple[int, ...]
) -> None:
    module, maps = gate(len(size), 8, 6), []
    module.map.register_forward_hook(lambda _, __, output: maps.append(output))
    skip, decoder = torch.randn(2, 8, *size), torch.randn(2, 6, *size)
    gated = module(skip, decoder)
    assert maps[0].shape == (2, 1, *size)
    assert ((maps[0] >= 0) & (maps[0] <= 1)).all()
    torch.testing.assert_close(gated, skip * maps[0])
    assert not torch.allclose(module(skip, decoder + 1), gated)  # the decoder steers it


@pytest.mark.parametrize("size", [(6, 4), (2, 6, 4)])
def test_the_image_joins_the_features_of_its_scale(size: tuple[int, ...]) -> None:
    module = PyramidJoin(len(size), 5, 8)
    features, image = torch.randn(2, 8, *size), torch.randn(2, 5, *size)
    assert module(features, image).shape == features.shape
    assert not torch.allclose(module(features, image), module(features, image + 1))


def test_hybrid_dilation_covers_all_but_the_last_but_one_voxel_of_its_field() -> None:
    hybrid = hdc_coverage((2, 3, 5))
    assert hybrid.shape == (21, 21)
    assert hybrid[2:-2, 2:-2].min() >= 1  # offsets up to 8
    assert [i - 10 for i in range(21) if not hybrid[10, i]] == [-9, 9]
    assert hybrid.sum() == 9**3  # paths through three 3 × 3 layers


def test_plain_dilation_leaves_holes_from_the_centre_on() -> None:
    plain = hdc_coverage((2, 2, 2))
    assert plain.shape == (13, 13)
    assert plain[6, 5] == plain[6, 7] == 0
    assert (plain > 0).sum() == 7 * 7  # every second row and column
    assert plain.sum() == 9**3
    assert hdc_coverage((1,)).tolist() == [[1] * 3] * 3


@pytest.mark.parametrize(
    ("dilations", "reach"),
    [((2, 3, 5), 8), ((2, 2, 2), 0), ((1, 2, 3), 6), ((1,), 1), ((5, 3, 2), 8), ((4,), 0)],
)
def test_how_far_the_stack_sees_without_a_hole(dilations: tuple[int, ...], reach: int) -> None:
    line = hdc_coverage(dilations)[sum(dilations)]
    seen = {int(offset) for offset in line.nonzero()[0] - sum(dilations)}
    assert seen >= set(range(-reach, reach + 1))
    assert reach == sum(dilations) or reach + 1 not in seen


@pytest.mark.parametrize(("dilations", "shared"), [((2, 2, 2), False), ((2, 3, 5), True)])
def test_plain_dilation_gives_neighbours_nothing_in_common(
    dilations: tuple[int, ...], shared: bool
) -> None:
    seen = hdc_coverage(dilations) > 0
    assert (
        seen[:, 1:] & seen[:, :-1]
    ).any() == shared  # the field of a voxel and of the next in its row


@pytest.mark.parametrize("dilations", [(2, 3, 5), (2, 2, 2), (1,)])
def test_the_layers_see_what_the_coverage_says(dilations: tuple[int, ...]) -> None:
    layers = HybridDilated(2, 1, dilations=dilations)
    for module in layers.modules():
        if isinstance(module, (nn.Conv2d, PReLU)):
            nn.init.ones_(module.weight)  # every path counts 1
    expected = torch.from_numpy(hdc_coverage(dilations)).float()
    centre = len(expected) // 2
    expected[centre, centre] += 1  # the residual sum
    x = torch.zeros(1, 1, *expected.shape, requires_grad=True)
    layers(x)[0, 0, centre, centre].backward()
    torch.testing.assert_close(x.grad[0, 0], expected)


@pytest.mark.parametrize("old", [(3, 4), (2, 5, 3)])
def test_resize_is_linear_interpolation(old: tuple[int, ...]) -> None:
    x, size = torch.randn(2, 3, *old), tuple(n * 4 for n in old)
    mode = "bilinear" if len(old) == 2 else "trilinear"
    torch.testing.assert_close(resize(x, size), F.interpolate(x, size=size, mode=mode))


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (2, 4, 3, 6, 5)])
@pytest.mark.parametrize("last", [False, True])
def test_instance_norm_and_prelu_equal_the_plain_ones_in_both_layouts(
    shape: tuple[int, ...], last: bool
) -> None:
    layout = LAYOUTS[len(shape)] if last else torch.contiguous_format
    norm, prelu = InstanceNorm(4), PReLU(4)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    nn.init.uniform_(prelu.weight)
    x, weights = torch.randn(shape).to(memory_format=layout), torch.randn(shape)

    def values_and_gradients(function, *parameters):
        leaf = x.clone().requires_grad_()
        value = function(leaf)
        return value, torch.autograd.grad((value * weights).sum(), (leaf, *parameters))

    def plain_norm(leaf):
        return F.instance_norm(leaf, weight=norm.weight, bias=norm.bias)

    for ours, theirs, parameters in (
        (norm, plain_norm, (norm.weight, norm.bias)),
        (prelu, lambda leaf: F.prelu(leaf, prelu.weight), (prelu.weight,)),
    ):
        got, expected = (
            values_and_gradients(ours, *parameters),
            values_and_gradients(theirs, *parameters),
        )
        torch.testing.assert_close(got, expected)
        assert got[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("channels", "depth", "kernel", "stride", "dilation"),
    [
        (3, 8, 3, 1, 1),
        (1, 8, 3, 1, 1),
        (3, 8, 3, 1, 2),
        (3, 4, 3, 1, 5),
        (3, 7, 3, 1, 1),
        (3, 2, 3, 1, 1),
        (3, 1, 3, 1, 1),
        (3, 8, 2, 2, 1),
        (3, 2, 2, 2, 1),
        (3, 8, 5, 1, 1),
        (3, 8, 1, 1, 1),
    ],
)
def test_convolution_of_one_small_sample_equals_the_plain_one(
    channels: int, depth: int, kernel: int, stride: int, dilation: int, bias: bool, last: bool
) -> None:
    padding = dilation * (kernel - 1) // 2
    conv = Conv3d(channels, 4, kernel, stride=stride, padding=padding, dilation=dilation, bias=bias)
    x = torch.randn(1, channels, depth, 6, 10)
    if last:
        conv, x = (
            conv.to(memory_format=torch.channels_last_3d),
            x.to(memory_format=torch.channels_last_3d),
        )
    leaf, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    weights = [p.detach().double().requires_grad_() for p in conv.parameters()]
    found, wanted = (
        conv(leaf),
        F.conv3d(exact, *weights, stride=stride, padding=padding, dilation=dilation),
    )
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    ahead = torch.randn(found.shape)
    ours = torch.autograd.grad(found, (leaf, *conv.parameters()), ahead)
    theirs = torch.autograd.grad(wanted, (exact, *weights), ahead.double())
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.double(), their, rtol=1e-4, atol=1e-3)


def test_convolutions_take_the_quick_way_where_torch_does_not() -> None:
    conv, x = Conv3d(8, 8, 3, padding=1), torch.randn(1, 8, 16, 16, 16, requires_grad=True)
    with torch.profiler.profile() as profile:
        conv(x).sum().backward()
        conv(torch.cat([x, x]))  # two samples: torch takes oneDNN itself
    names = [event.key for event in profile.key_averages()]
    assert "aten::mkldnn_convolution" in names
    assert not any("slow_conv3d" in name for name in names)
    with torch.autocast("cpu"):
        assert conv(x).dtype == torch.bfloat16


def test_an_input_without_gradient_gets_none() -> None:
    conv, x = Conv3d(1, 4, 3, padding=1), torch.randn(1, 1, 8, 8, 8)
    conv(x).sum().backward()
    assert x.grad is None and conv.weight.grad is not None


def test_slope_gradients_of_bfloat16_are_summed_in_float32() -> None:
    prelu, x = PReLU(8).bfloat16(), torch.randn(2, 8, 8, 32, 32).bfloat16()
    x, weights = (t.to(memory_format=torch.channels_last_3d) for t in (x, torch.randn_like(x)))
    leaf = x.clone().requires_grad_()
    to_x, to_slopes = torch.autograd.grad((prelu(leaf) * weights).sum(), (leaf, prelu.weight))
    exact = torch.where(x < 0, x.double() * weights.double(), 0).sum(dim=(0, 2, 3, 4))
    torch.testing.assert_close(to_slopes, exact.to(to_slopes.dtype))  # rounded once, at the end
    torch.testing.assert_close(
        to_x, torch.where(x > 0, weights, weights * prelu.weight.view(-1, 1, 1, 1))
    )


# By name, and what it costs


def test_unknown_names_and_options_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="one of resunet3d, vnet, unet, deeplab, got 'vet'"):
        build("vet")
    with pytest.raises(ValueError, match="unet has no option se; it has dims, slices"):
        build("unet", se=True)


def test_multiply_adds_on_paper() -> None:
    def cost(layer: nn.Module, *shape: int) -> int:
        return multiply_adds(nn.Sequential(layer), shape)

    assert cost(nn.Conv2d(2, 3, 3, padding=1), 1, 2, 4, 5) == 4 * 5 * 3 * (2 * 9)
    assert cost(nn.Conv3d(2, 3, 2, stride=2), 1, 2, 4, 4, 4) == 2 * 2 * 2 * 3 * (2 * 8)
    assert cost(nn.ConvTranspose2d(2, 3, 2, stride=2), 1, 2, 4, 5) == 4 * 5 * 2 * (3 * 4)
    assert cost(nn.Linear(6, 5), 2, 6) == 2 * 6 * 5


def test_the_probe_follows_the_levels() -> None:
    network = build("resunet3d", widths=(2, 4, 6, 8, 10))
    rows = shape_probe(network, (1, 1, 16, 32, 32))
    assert rows[0] == ("encode1", (1, 2, 16, 32, 32), 2 * 27 + 2 + 2 + 2 * 2 * 27 + 2 + 2)
    shapes = {name: shape for name, shape, _ in rows}
    assert shapes["encode4"] == (1, 8, 2, 4, 4)
    assert shapes["decode1"] == (1, 10, 2, 4, 4)
    assert shapes["map1"] == (1, 1, 2, 4, 4)
    assert sum(parameters for _, _, parameters in rows) == count_parameters(network)
    assert all(p.device.type == "cpu" and p.requires_grad for p in network.parameters())


def test_the_probe_names_the_levels_of_a_vnet() -> None:
    network = build("vnet", **TINY, **dict.fromkeys(MECHANISMS, True))
    names = [name for name, _, _ in shape_probe(network, (1, 5, 16, 16))]
    assert names == ["stem", "encoder.1", "encoder.2", "decoder.1", "decoder.2", "map"]


# Several networks together


class Fixed(nn.Module):
    """Adds its first channel to a factor times the input's mean over the right half."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        right = x[..., x.shape[-1] // 2 :].mean()
        return (self.factor * right * torch.ones_like(x[:, :1])) + x[:, :1]


def test_networks_together_give_the_mean_probability() -> None:
    x = torch.randn(2, 3, 6, 8)
    one, two = Fixed(1.0), Fixed(-2.0)
    expected = (torch.sigmoid(one(x)) + torch.sigmoid(two(x))) / 2
    torch.testing.assert_close(
        torch.sigmoid(Together([one, two])(x)), expected, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(Together([one])(x), one(x), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="at least one"):
        Together([])


def test_the_four_maps_are_those_of_training() -> None:
    network = ResUNet3D(widths=(2, 2, 4, 4, 4), dropout=0.0)
    x = torch.randn(1, 1, 9, 12, 10)
    for asked, trained in zip(network.eval().maps(x), network.train()(x), strict=True):
        torch.testing.assert_close(asked, trained)
    torch.testing.assert_close(network.eval()(x), network.maps(x)[-1])
    with pytest.raises(ValueError, match="without deep supervision"):
        ResUNet3D(widths=(2, 2, 4, 4, 4), deep_supervision=False).maps(x)
