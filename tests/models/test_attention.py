"""Attention modules: counts of EncodeNet's table 5, definitions in float64, places in ResNet50, gradients, errors."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from torch import Tensor, nn

from efflib.models import convolutions, count_macs, count_parameters, create_model, features, list_models, onward
from efflib.models.attention import BAMBlock, CBAMBlock, GAMBlock, SEBlock

# Parameters at 100 classes, the millions that table 5 prints, forward GMACs at 32x32: section 3 of the EncodeNet spec.
SPEC = {
    "resnet50": (23_705_252, "23.71", "1.298"),
    "resnet50_se": (26_220_196, "26.22", "1.301"),
    "resnet50_cbam": (26_237_844, "26.24", "1.303"),
    "resnet50_bam": (24_063_319, "24.06", "1.325"),
    "resnet50_gam": (149_470_388, "149.47", "8.009"),
    "resnet50_gam_gc": (57_046_196, "57.05", "3.076"),
}
NAMES = [name for name in SPEC if name != "resnet50"]
IN_BRANCH = {"resnet50_se": SEBlock, "resnet50_cbam": CBAMBlock, "resnet50_gam": GAMBlock, "resnet50_gam_gc": GAMBlock}
STAGES = [(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)]
MODULES = {
    "se": lambda: SEBlock(24, 4),
    "cbam": lambda: CBAMBlock(24, 4),
    "bam-product": lambda: BAMBlock(24, 4),
    "bam-sum": lambda: BAMBlock(24, 4, combine="sum"),
    "gam": lambda: GAMBlock(24, 4),
    "gam-gc": lambda: GAMBlock(24, 2, groups=4),
}


def trained(model: nn.Module) -> nn.Module:
    """Statistics, scales and biases as training leaves them, so that one that is forgotten or swapped shows."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    return model


def block(kind: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(1)
    return trained(MODULES[kind]()).to(dtype)


def small(name: str, **options: object) -> nn.Module:
    torch.manual_seed(1)
    return trained(create_model(name, 7, **{"width": 0.125, **options})).eval()


def maps(count: int = 3, channels: int = 24, height: int = 9, width: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, height, width, dtype=torch.float64, generator=generator)


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


# --- size, cost, shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPEC)
def test_counts_and_macs_are_those_of_the_spec(name):
    parameters, printed, macs = SPEC[name]
    with torch.device("meta"):
        model = create_model(name, 100)
        assert count_parameters(model) == parameters
        assert f"{count_parameters(model) / 1e6:.2f}" == printed
        assert f"{count_macs(model) / 1e9:.3f}" == macs
        assert count_parameters(create_model(name, 10)) == parameters - 90 * 2049


def test_every_resnet50_of_the_library_is_in_the_table():
    assert set(list_models("resnet50*")) == set(SPEC)


def test_choices_that_the_counts_leave_are_the_only_ones_that_were_made():
    """Biases and batch norms, module by module; section 3 of the spec names what does not fit."""
    C, h = 256, 16
    assert count_parameters(SEBlock(C)) == 2 * C * h
    assert count_parameters(CBAMBlock(C)) == 2 * C * h + C + h + 2 * 49 + 2
    channel, spatial = 2 * C * h + h + C + 2 * h, (C * h + h) + 2 * (9 * h * h + h) + 3 * 2 * h + (h + 1)
    assert count_parameters(BAMBlock(C)) == channel + spatial
    assert count_parameters(GAMBlock(C)) == 2 * C * h + C + h + 2 * 49 * C * h + 2 * h
    assert count_parameters(GAMBlock(C, groups=4)) == 2 * C * h + C + h + 2 * 49 * C * h // 4 + 2 * h
    with_biases = SPEC["resnet50_se"][0] + sum(n * (c + c // 16) for n, (c, *_) in zip((3, 4, 6, 3), STAGES))
    assert with_biases == 26_236_244  # the spec's count of SE with biases: the table's is the other one


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("stem", "shrink"), [("cifar", 1), ("cifar_pool", 2), ("imagenet", 4)])
def test_stages(name, stem, shrink):
    with torch.device("meta"):
        seen = features(create_model(name, 100, stem=stem), torch.empty(2, 3, 32, 32))
    assert [tuple(stage.shape) for stage in seen.stages] == [(2, c, h // shrink, w // shrink) for c, h, w in STAGES]
    assert tuple(seen.pooled.shape) == (2, 2048) and tuple(seen.logits.shape) == (2, 100)


# --- each module against its definition -----------------------------------------------------------------------


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def linear(x: Tensor, layer: nn.Module) -> Tensor:
    """Over axis 1, whatever follows it."""
    out = torch.einsum("oc,nc...->no...", layer.weight, x)
    return out if layer.bias is None else out + layer.bias.view(-1, *[1] * (x.ndim - 2))


def correlate(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1, groups: int = 1) -> Tensor:
    """Convolution with zeros around, "same" size: one shifted copy per kernel entry, one group after another."""
    N, C, H, W = x.shape
    outputs, share, k, _ = weight.shape
    out = torch.zeros(N, outputs, H, W, dtype=x.dtype)
    reach = dilation * (k // 2)
    padded = torch.zeros(N, C, H + 2 * reach, W + 2 * reach, dtype=x.dtype)
    padded[:, :, reach : reach + H, reach : reach + W] = x
    for g in range(groups):
        read, made = slice(g * share, (g + 1) * share), slice(g * outputs // groups, (g + 1) * outputs // groups)
        for i in range(k):
            for j in range(k):
                moved = padded[:, read, i * dilation : i * dilation + H, j * dilation : j * dilation + W]
                out[:, made] += torch.einsum("oc,nchw->nohw", weight[made, :, i, j], moved)
    return out if bias is None else out + bias.view(-1, 1, 1)


def normalise(x: Tensor, norm: nn.Module, training: bool) -> Tensor:
    shape, axes = (1, -1, *[1] * (x.ndim - 2)), [0, *range(2, x.ndim)]
    mean = x.mean(axes) if training else norm.running_mean
    variance = ((x - mean.view(shape)) ** 2).mean(axes) if training else norm.running_var
    scaled = (x - mean.view(shape)) / torch.sqrt(variance.view(shape) + 1e-5)
    return scaled * norm.weight.view(shape) + norm.bias.view(shape)


def averages(x: Tensor) -> Tensor:
    return x.flatten(2).sum(2) / x[0, 0].numel()


def gated_by_channel(x: Tensor, gate: Tensor) -> Tensor:
    return torch.einsum("nchw,nc->nchw", x, gate)


def se(block: SEBlock, x: Tensor, training: bool) -> Tensor:
    down, _, up = block.mlp
    return gated_by_channel(x, sigmoid(linear(linear(averages(x), down).clamp(min=0), up)))


def cbam(block: CBAMBlock, x: Tensor, training: bool) -> Tensor:
    down, _, up = block.mlp
    average, peak = averages(x), x.flatten(2).sort(2).values[:, :, -1]
    y = gated_by_channel(x, sigmoid(sum(linear(linear(v, down).clamp(min=0), up) for v in (average, peak))))
    two = torch.stack([y.sort(1).values[:, -1], y.sum(1) / y.shape[1]], dim=1)
    gate = sigmoid(normalise(correlate(two, block.conv.weight, None), block.bn, training))
    return torch.einsum("nchw,nhw->nchw", y, gate[:, 0])


def bam(block: BAMBlock, x: Tensor, training: bool) -> Tensor:
    down, norm, _, up = block.channel
    channel = linear(normalise(linear(averages(x), down), norm, training).clamp(min=0), up)
    first, bn1, _, second, bn2, _, third, bn3, _, last = block.spatial
    y = x
    for conv, bn, dilation in ((first, bn1, 1), (second, bn2, 4), (third, bn3, 4)):
        y = normalise(correlate(y, conv.weight, conv.bias, dilation), bn, training).clamp(min=0)
    spatial = correlate(y, last.weight, last.bias)[:, 0]
    if block.combine == "product":
        return x + x * sigmoid(torch.einsum("nc,nhw->nchw", channel, spatial))
    return x + x * sigmoid(channel[:, :, None, None] + spatial[:, None])


def gam(block: GAMBlock, x: Tensor, training: bool) -> Tensor:
    down, _, up = block.mlp
    y = x * sigmoid(linear(linear(x, down).clamp(min=0), up))
    first, norm, _, second = block.spatial
    g, C = block.groups, x.shape[1]
    middle = normalise(correlate(y, first.weight, None, 1, g), norm, training).clamp(min=0)
    gate = sigmoid(correlate(middle, second.weight, None, 1, g))
    # Channel c of the gate's group p goes to place c g + p: neighbours come from different groups.
    shuffled = torch.empty_like(gate)
    for p in range(g):
        for c in range(C // g):
            shuffled[:, c * g + p] = gate[:, p * (C // g) + c]
    return y * shuffled


DEFINED = {"se": se, "cbam": cbam, "bam-product": bam, "bam-sum": bam, "gam": gam, "gam-gc": gam}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", MODULES)
def test_module_equals_its_definition(kind, training):
    module, x = block(kind).train(training), maps()
    expected = DEFINED[kind](module, x, training)
    torch.testing.assert_close(module(x), expected, rtol=1e-11, atol=1e-12)
    assert not torch.allclose(expected, x, atol=0.1)


@pytest.mark.parametrize("kind", MODULES)
def test_gradient_equals_that_of_the_definition(kind):
    module, x = block(kind).train(), maps(height=5, width=4)
    upstream = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(5))
    leaves = [x.requires_grad_(), *module.parameters()]
    got = torch.autograd.grad((module(x) * upstream).sum(), leaves)
    expected = torch.autograd.grad((DEFINED[kind](module, x, True) * upstream).sum(), leaves)
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", MODULES)
def test_module_does_not_depend_on_the_memory_layout_or_change_its_input(kind):
    module, x = block(kind).eval(), maps()
    kept = x.clone()
    plain, last = module(x), module(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, last, rtol=1e-11, atol=1e-12)
    assert torch.equal(x, kept)
    low = block(kind, torch.float32).eval()(x.float())
    assert low.dtype == torch.float32 and (low - plain).abs().max() < 1e-5


def test_product_and_sum_differ_with_the_same_weights():
    product, total = block("bam-product").eval(), block("bam-sum").eval()
    assert all(torch.equal(a, b) for a, b in zip(product.parameters(), total.parameters(), strict=True))
    assert (product(maps()) - total(maps())).abs().max() > 0.1


def test_the_shuffle_mixes_groups_of_the_gate():
    """With the second convolution's group p made constant, channels p, p + 4, p + 8, ... of the gate are."""
    module = block("gam-gc").eval()
    with torch.no_grad():
        module.spatial[3].weight[6:12] = 0  # group 1
        gate = module.spatial_gate(maps())
    constant = [channel for channel in range(24) if bool((gate[:, channel] == 0.5).all())]
    assert constant == [1, 5, 9, 13, 17, 21]
    plain = block("gam").eval()
    with torch.no_grad():
        plain.spatial[3].weight[6:12] = 0
        gate = plain.spatial_gate(maps())
    assert [channel for channel in range(24) if bool((gate[:, channel] == 0.5).all())] == [6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("kind", MODULES)
def test_gates_lie_between_0_and_1(kind):
    module, x = block(kind).eval(), maps()
    N, C, H, W = x.shape
    parts = {"gate": {"se": (N, C, 1, 1)}.get(kind, (N, C, H, W))}
    if kind == "cbam":
        parts = {"channel_gate": (N, C, 1, 1), "spatial_gate": (N, 1, H, W)}
    if kind.startswith("gam"):
        parts = {"channel_gate": (N, C, H, W), "spatial_gate": (N, C, H, W)}
    for name, shape in parts.items():
        gate = getattr(module, name)(x)
        assert tuple(gate.shape) == shape
        assert gate.min() > 0 and gate.max() < 1 and gate.std() > 1e-3
    share = module(x) / x
    bounds = (1, 2) if kind.startswith("bam") else (0, 1)
    assert share.min() > bounds[0] and share.max() < bounds[1]


def test_cbams_spatial_gate_starts_at_a_half_and_learns_from_the_second_step_on():
    torch.manual_seed(0)
    module, x = CBAMBlock(24, 4), maps().float()
    assert (module.bn.momentum, module.bn.weight.item(), module.bn.bias.item()) == (0.01, 0, 0)
    assert (module.spatial_gate(x) == 0.5).all()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for expected in (False, True):
        optimiser.zero_grad()
        module(x).square().mean().backward()
        assert bool(module.conv.weight.grad.any()) == expected
        optimiser.step()


def test_fresh_modules_keep_their_own_initialisation_inside_the_network():
    torch.manual_seed(0)
    se, bam, gam = (create_model(f"resnet50_{kind}", 10, width=0.5) for kind in ("se", "bam", "gam_gc"))
    down, up = se.stage4[0].attention.mlp[0], se.stage4[0].attention.mlp[2]
    for layer in (down, up):  # uniform, within 1 / sqrt(inputs), as PyTorch's linear layers
        bound = 1 / math.sqrt(layer.in_features)
        assert 0.98 * bound < layer.weight.abs().max() <= bound
    convs = [bam.stage3.attention.spatial[0], bam.stage3.attention.spatial[3], gam.stage2[1].attention.spatial[0]]
    for conv in convs:
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / conv.weight[0].numel()), rel=0.05)
    for model in (bam, gam):
        modules = [
            m for name, m in model.named_modules() if "attention" in name and isinstance(m, nn.Conv2d | nn.Linear)
        ]
        assert not any(module.bias.any() for module in modules if module.bias is not None)
    assert se.head.weight.std().item() == pytest.approx(0.01, rel=0.05)


# --- their places in the network ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IN_BRANCH)
def test_a_module_ends_each_residual_branch(name):
    model = small(name)
    found = [path for path, module in model.named_modules() if isinstance(module, IN_BRANCH[name])]
    expected = [f"stage{s}.{b}.attention" for s, count in enumerate((3, 4, 6, 3), 1) for b in range(count)]
    assert found == expected
    bottleneck, x = model.stage2[0], torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(2))
    branch: list[Tensor] = []
    bottleneck.bn3.register_forward_hook(lambda module, inputs, output: branch.append(output))
    got = bottleneck(x)
    assert torch.equal(got, bottleneck.attention(branch[0]) + bottleneck.shortcut(x))
    assert not torch.allclose(got, branch[0] + bottleneck.shortcut(x), atol=1e-2)


def test_bam_follows_the_first_three_stages_and_its_output_goes_on():
    model = small("resnet50_bam")
    found = [path for path, module in model.named_modules() if isinstance(module, BAMBlock)]
    assert found == ["stage1.attention", "stage2.attention", "stage3.attention"]
    read, given, entered = [], [], []
    for number in (1, 2, 3):
        attention, following = model.get_submodule(f"stage{number}.attention"), getattr(model, f"stage{number + 1}")[0]
        attention.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
        attention.register_forward_hook(lambda module, inputs, output: given.append(output))
        following.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    seen = features(model, images())
    for stage, before, after, further in zip(seen.stages[:3], read, given, entered, strict=True):
        assert before.min() == 0 and (before > 0).any()  # what the stage's last ReLU gave
        assert torch.equal(stage, after) and torch.equal(further, after)
        assert not torch.allclose(before, after, atol=1e-2)
    before = features(model, images(), preactivation=True).stages
    assert [torch.equal(a, b) for a, b in zip(before, seen.stages)] == [True, True, True, False]
    assert torch.equal(before[3].relu(), seen.stages[3])


def test_combine_reaches_the_modules():
    models = [small("resnet50_bam", combine=combine) for combine in ("product", "sum")]
    assert [{m.combine for m in model.modules() if isinstance(m, BAMBlock)} for model in models] == [
        {"product"},
        {"sum"},
    ]
    assert [m.combine for m in small("resnet50_bam").modules() if isinstance(m, BAMBlock)] == ["product"] * 3
    assert not torch.allclose(models[0](images()), models[1](images()))


def test_groups_reach_the_modules():
    for name, groups in (("resnet50_gam", 1), ("resnet50_gam_gc", 4)):
        with torch.device("meta"):
            modules = [module for module in create_model(name, 10).modules() if isinstance(module, GAMBlock)]
        assert {module.groups for module in modules} == {groups}
        assert {layer.groups for module in modules for layer in (module.spatial[0], module.spatial[3])} == {groups}


@pytest.mark.parametrize("name", NAMES)
def test_convolutions_are_those_of_resnet50(name):
    """The last one is where explanations look: a gate's 7x7 convolution must not take its place."""
    with torch.device("meta"):
        plain, attended = create_model("resnet50", 10), create_model(name, 10)
    assert [path for path, _ in convolutions(attended)] == [path for path, _ in convolutions(plain)]


@pytest.mark.parametrize("name", NAMES)
def test_narrow_networks_run_and_their_parts_are_the_whole(name):
    model, x = small(name), images()
    seen = features(model, x)
    assert torch.isfinite(seen.logits).all() and torch.equal(seen.logits, model(x))
    assert not torch.allclose(seen.logits[0], seen.logits[1])
    for number, stage in enumerate(seen.stages):
        x = onward(model, number, x)
        assert torch.equal(x, stage)
    assert torch.equal(onward(model, 4, x), seen.logits)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name):
    """In eval mode, for a batch's own normalisation swallows the biases of the convolutions before it; with the
    statistics of these images, for far larger values would saturate the gates."""
    model, x = small(name, reduction=2), images(4, size=16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    model.eval()(x).square().sum().backward()
    without = [path for path, parameter in model.named_parameters() if not parameter.grad.any()]
    assert without == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_changes_the_network_and_a_seed_repeats_it(name):
    def trained_once() -> dict[str, Tensor]:
        torch.manual_seed(4)
        model = create_model(name, 7, width=0.125)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        nn.functional.cross_entropy(model(images(4, size=16)), torch.arange(4)).backward()
        optimiser.step()
        return model.state_dict()

    first, second = trained_once(), trained_once()
    torch.manual_seed(4)
    fresh = create_model(name, 7, width=0.125).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    moved = [key for key in fresh if "attention" in key and not torch.equal(fresh[key], first[key])]
    assert any(key.endswith("weight") for key in moved)


@pytest.mark.parametrize(
    ("name", "entries", "digest"),
    [
        ("resnet18", 122, "092b2e861be189ec"),
        ("resnet34", 218, "01bee606150594af"),
        ("resnet50", 320, "05c8cfb1c730527c"),
    ],
)
def test_plain_networks_are_drawn_as_before(name, entries, digest):
    """Names and fresh weights from before there was attention: recorded runs and their weights depend on them."""
    torch.manual_seed(0)
    state = create_model(name, 10, width=0.125).state_dict()
    assert len(state) == entries and not any("attention" in key for key in state)
    content = b"".join(key.encode() + value.numpy().tobytes() for key, value in state.items())
    assert hashlib.sha256(content).hexdigest().startswith(digest)


# --- options and errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_reduction_sets_the_size(name):
    with torch.device("meta"):
        counts = [count_parameters(create_model(name, 10, reduction=reduction)) for reduction in (8, 16, 32)]
    assert counts[0] > counts[1] > counts[2]


def test_inner_widths_are_rounded_down_and_for_groups_up_to_a_multiple():
    assert SEBlock(20, 16).mlp[0].out_features == 1
    assert CBAMBlock(40, 16).mlp[0].out_features == 2
    assert GAMBlock(32, 16).spatial[0].out_channels == 2
    grouped = GAMBlock(32, 16, groups=4)
    assert (grouped.mlp[0].out_features, grouped.spatial[0].out_channels) == (2, 4)
    assert GAMBlock(96, 16, groups=4).spatial[0].out_channels == 8


def test_bam_needs_two_images_in_training_only():
    model = small("resnet50_bam")
    assert torch.isfinite(model(images(1))).all()
    model.train()
    with pytest.raises(ValueError, match=r"at least 2 images per batch, got 1: .*drop the last batch.*eval\(\)"):
        model(images(1))
    for module in model.modules():  # the usual way to fine-tune with few images: frozen statistics
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    assert model.training and torch.isfinite(model(images(1))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model("resnet50_bam", 10, combine="plus"), r"value of combine: 'plus'.*Valid: product, sum"),
        (lambda: create_model("resnet50_bam", 10, combine=None), r"value of combine: None.*Valid: product, sum"),
        (
            lambda: create_model("resnet50_se", 10, combine="sum"),
            r"option of resnet50_se: 'combine'.*Valid: .*reduction",
        ),
        (lambda: create_model("resnet50_gam", 10, reducton=8), r"option of resnet50_gam: .*Did you mean 'reduction'"),
        (
            lambda: create_model("resnet50", 10, reduction=8),
            r"option of resnet50: 'reduction'.*Valid: width, in_ch.*stem",
        ),
        (
            lambda: create_model("resnet50_gamgc", 10),
            r"unknown model: 'resnet50_gamgc'.*Did you mean 'resnet50_gam_gc'",
        ),
        (lambda: create_model("resnet50_cbam", 10, stem="cifr"), r"value of stem: 'cifr'.*Did you mean 'cifar'"),
        (lambda: GAMBlock(30, groups=4), "groups must divide the 30 channels, got 4"),
        (lambda: GAMBlock(32, groups=0), "groups must divide the 32 channels, got 0"),
    ],
)
def test_errors_say_what_is_allowed(call, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", [0, -1, 33, 1.5, "16", True, None])
def test_wrong_reduction(name, reduction):
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=r"reduction must be a whole number from 1 to 32, .* got "),
    ):
        create_model(name, 10, width=0.125, reduction=reduction)
