"""Networks: sizes, costs, shapes of the specs; feature maps; order of the convolutions; options; errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from efflib.models import (
    Features,
    convolutions,
    count_macs,
    count_parameters,
    create_model,
    features,
    list_models,
)
from efflib.models.registry import BUILDERS, channels, register

VGG_STAGES = [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)]
THIN_STAGES = [(16, 32, 32), (32, 16, 16), (64, 8, 8)]

# name, options, parameters at 10 and 100 classes, MACs in millions at 32x32 and 10 classes, stages, last
# convolution, number of convolutions.
# Source: section 3 of the BIMask spec, section 2.1 of the PKGD spec.
SPEC = [
    ("vgg8", {}, 3_918_858, 3_965_028, 96.15, VGG_STAGES, "block4.0", 5),
    ("vgg11", {}, 9_231_114, 9_277_284, 209.39, VGG_STAGES, "block4.3", 8),
    ("vgg13", {}, 9_416_010, 9_462_180, 284.89, VGG_STAGES, "block4.3", 10),
    ("resnet14", {}, 175_258, 181_108, 26.66, THIN_STAGES, "stage3.1.conv2", 13),
    ("resnet20", {}, 272_474, 278_324, 40.81, THIN_STAGES, "stage3.2.conv2", 19),
    ("resnet56", {}, 855_770, 861_620, 125.75, THIN_STAGES, "stage3.8.conv2", 55),
    (
        "resnet18",
        {},
        11_173_962,
        11_220_132,
        555.42,
        [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)],
        "stage4.1.conv2",
        17,
    ),
    (
        "resnet18",
        {"stem": "cifar_pool"},
        11_173_962,
        11_220_132,
        140.19,
        [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)],
        "stage4.1.conv2",
        17,
    ),
    (
        "wrn_52_2",
        {},
        3_023_306,
        3_034_916,
        469.16,
        [(32, 32, 32), (64, 16, 16), (128, 8, 8)],
        "stage3.7.conv2",
        49,
    ),
]
# The networks of the distillation tables: parameters at 10, 100 and 200 classes, MACs in millions at 32x32 and 100
# classes, stages, width of the pooled vector. Source: section 3 of the PKGD spec (VGG16: of the EncodeNet spec).
BENCHMARK = [
    ("resnet32", 466_906, 472_756, 479_256, 69.13, THIN_STAGES, 64),
    ("resnet110", 1_730_714, 1_736_564, 1_743_064, 253.16, THIN_STAGES, 64),
    ("resnet8x4", 1_210_410, 1_233_540, 1_259_240, 177.07, [(64, 32, 32), (128, 16, 16), (256, 8, 8)], 256),
    ("resnet32x4", 7_410_730, 7_433_860, 7_459_560, 1083.04, [(64, 32, 32), (128, 16, 16), (256, 8, 8)], 256),
    ("wrn_16_2", 691_674, 703_284, 716_184, 101.12, [(32, 32, 32), (64, 16, 16), (128, 8, 8)], 128),
    ("wrn_40_1", 563_930, 569_780, 576_280, 83.29, THIN_STAGES, 64),
    ("wrn_40_2", 2_243_546, 2_255_156, 2_268_056, 327.61, [(32, 32, 32), (64, 16, 16), (128, 8, 8)], 128),
    ("vgg16", 14_728_266, 14_774_436, 14_825_736, 398.18, VGG_STAGES, 512),
    (
        "resnet34",
        21_282_122,
        21_328_292,
        21_379_592,
        1159.45,
        [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)],
        512,
    ),
    (
        "resnet50",
        23_520_842,
        23_705_252,
        23_910_152,
        1298.01,
        [(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)],
        2048,
    ),
    ("mobilenetv2_half", 697_546, 812_836, 940_936, 6.52, [(12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)], 1280),
    (
        "mobilenetv1",
        3_217_226,
        3_309_476,
        3_411_976,
        46.45,
        [(128, 16, 16), (256, 8, 8), (512, 4, 4), (1024, 2, 2)],
        1024,
    ),
    ("shufflenetv1", 862_768, 949_258, 1_045_358, 38.69, [(240, 16, 16), (480, 8, 8), (960, 4, 4)], 960),
    ("shufflenetv2", 1_263_278, 1_355_528, 1_458_028, 44.50, [(116, 16, 16), (232, 8, 8), (464, 4, 4)], 1024),
]
ALL = pytest.mark.parametrize(
    ("name", "options", "ten", "hundred", "macs", "stages", "last", "convs"),
    SPEC,
    ids=["-".join([row[0], *row[1].values()]) for row in SPEC],
)
# Every family and stem, narrow, for tests in which the size does not matter.
NETWORKS = [
    ("vgg8", {}),
    ("vgg13", {}),
    ("resnet14", {}),
    ("resnet18", {}),
    ("resnet18", {"stem": "cifar_pool"}),
    ("resnet18", {"stem": "imagenet"}),
    ("wrn_52_2", {}),
]
SMALL = pytest.mark.parametrize(
    ("name", "options"), NETWORKS, ids=["-".join([name, *o.values()]) for name, o in NETWORKS]
)


def images(count: int = 2, size: int = 32, channels: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, channels, size, size, dtype=dtype, generator=torch.Generator().manual_seed(0))


def small(name: str, options: dict, classes: int = 7, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    model = create_model(name, classes, width=0.25, **options).to(dtype)
    for module in model.modules():  # statistics and gains of a trained net, so that a forgotten batch norm shows
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


def every_parameter_name(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


@ALL
def test_parameters_are_those_of_the_spec(name, options, ten, hundred, macs, stages, last, convs):
    with torch.device("meta"):
        assert count_parameters(create_model(name, 10, **options)) == ten
        assert count_parameters(create_model(name, 100, **options)) == hundred


@ALL
def test_macs_are_those_of_the_spec(name, options, ten, hundred, macs, stages, last, convs):
    with torch.device("meta"):
        model = create_model(name, 10, **options)
    assert f"{count_macs(model) / 1e6:.2f}" == f"{macs:.2f}"


@pytest.mark.parametrize(
    ("name", "macs"),
    [("vgg8", 96.19), ("vgg13", 284.94), ("resnet20", 40.82), ("resnet56", 125.75), ("resnet18", 555.47)],
)
def test_macs_at_100_classes(name, macs):
    """Section 3 of the PKGD spec counts with 100 classes."""
    with torch.device("meta"):
        assert f"{count_macs(create_model(name, 100)) / 1e6:.2f}" == f"{macs:.2f}"


@ALL
def test_stages_and_last_convolution(name, options, ten, hundred, macs, stages, last, convs):
    with torch.device("meta"):
        model = create_model(name, 10, **options)
        seen = features(model, torch.empty(2, 3, 32, 32))
        named = convolutions(model)
        outputs = []
        named[-1][1].register_forward_hook(lambda module, inputs, output: outputs.append(output.shape))
        model(torch.empty(2, 3, 32, 32))
    assert isinstance(seen, Features)
    assert [tuple(stage.shape) for stage in seen.stages] == [(2, *stage) for stage in stages]
    assert tuple(seen.pooled.shape) == (2, stages[-1][0])
    assert tuple(seen.logits.shape) == (2, 10)
    assert (named[-1][0], len(named)) == (last, convs)
    assert tuple(outputs[0]) == (2, *stages[-1])


def test_all_names_are_in_the_spec_table():
    attention = {f"resnet50_{kind}" for kind in ("se", "cbam", "bam", "gam", "gam_gc")}  # see test_attention.py
    others = {"mnist_cnn", "names_decoder", "mobilenetv2"}  # each has a test file
    assert set(list_models()) == {row[0] for row in (*SPEC, *BENCHMARK)} | attention | others


@SMALL
def test_convolutions_come_in_forward_order(name, options):
    model = create_model(name, 10, width=0.25, **options)
    ran: list[nn.Module] = []
    for _, module in convolutions(model):
        module.register_forward_hook(lambda module, inputs, output: ran.append(module))
    model(images(2))
    assert ran == [module for _, module in convolutions(model)]
    modules = dict(model.named_modules())
    assert all(modules[convolution] is module for convolution, module in convolutions(model))


@SMALL
def test_convolutions_leave_out_shortcuts_only(name, options):
    model = create_model(name, 10, width=0.25, **options)
    taken = {module for _, module in convolutions(model)}
    left = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m not in taken]
    assert all(module.kernel_size == (1, 1) for module in left)
    assert all(module.kernel_size != (1, 1) for module in taken)
    assert bool(left) == (not name.startswith("vgg"))


@SMALL
@pytest.mark.parametrize("training", [False, True])
def test_features_agree_with_forward(name, options, training):
    model = small(name, {**options, **({"dropout": 0.0} if name.startswith("wrn") else {})}).train(training)
    x = images(4)
    logits = model(x)
    for preactivation in (False, True):
        seen = features(model, x, preactivation)
        assert torch.equal(seen.logits, logits)
        assert torch.equal(model.head(seen.pooled), logits)


@SMALL
def test_preactivation_stages_are_what_the_last_relu_reads(name, options):
    model = small(name, options)
    after, before = features(model, images()), features(model, images(), preactivation=True)
    assert [s.shape for s in before.stages] == [s.shape for s in after.stages]
    assert all((stage < 0).any() for stage in before.stages)
    assert torch.equal(after.pooled, before.pooled)
    if not name.startswith("wrn"):
        for low, high in zip(before.stages, after.stages):
            assert torch.equal(low.relu(), high)
        assert torch.equal(after.stages[-1].mean((2, 3)), after.pooled)


def test_wide_resnet_taps_are_raw_and_normalised_by_the_next_batch_norm():
    model = small("wrn_52_2", {})
    raw, normed = features(model, images()).stages, features(model, images(), preactivation=True).stages
    assert all((stage < 0).any() for stage in raw)
    next_norms = [model.stage2[0].bn1, model.stage3[0].bn1, model.bn]
    for stage, norm, tap in zip(raw, next_norms, normed):
        assert torch.equal(norm(stage), tap)
    torch.testing.assert_close(normed[-1].relu().mean((2, 3)), features(model, images()).pooled)


def test_preactivation_moves_running_statistics_once():
    """In train mode a batch norm that ran twice would count two batches."""
    model = create_model("wrn_52_2", 4, width=0.25)
    features(model, images(2), preactivation=True)
    counts = {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counts == {1}


@ALL
def test_gradient_before_pooling_is_constant_in_space(name, options, ten, hundred, macs, stages, last, convs):
    """Spec pitfall A3: the map that feeds the pooling tells nothing about where."""
    torch.manual_seed(0)
    model = create_model(name, 10, **options).double().eval()
    fed: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        fed.append(inputs[0])

    model.pool.register_forward_pre_hook(keep)
    logits = model(images(1, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(logits.max(), fed[0])
    spread = gradient.flatten(2).amax(2) - gradient.flatten(2).amin(2)
    assert tuple(gradient.shape) == (1, *stages[-1])
    assert gradient.abs().max() > 0
    assert spread.max() < 1e-9


@SMALL
def test_gradient_at_the_last_convolution_varies_in_space(name, options):
    model = small(name, options, dtype=torch.float64)
    x = images(1, size=64, dtype=torch.float64)  # the imagenet stem leaves one pixel of 32
    kept: list[torch.Tensor] = []
    convolutions(model)[-1][1].register_forward_hook(lambda module, inputs, output: kept.append(output))
    (gradient,) = torch.autograd.grad(model(x).max(), kept[0])
    assert gradient.abs().mean(1).flatten().std() > 0


def test_wide_resnet_is_the_one_of_the_spec():
    with torch.device("meta"):
        model = create_model("wrn_52_2", 10)
    stages = (model.stage1, model.stage2, model.stage3)
    assert [count_parameters(stage) for stage in stages] == [144_896, 576_512, 2_299_904]
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert sum(module.kernel_size == (3, 3) for module in convs) == 49
    assert all(module.bias is not None for module in convs)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.3}
    assert model.bn.momentum == 0.9
    assert all(not isinstance(m, nn.BatchNorm2d) for stage in stages for m in stage[0].shortcut.modules())
    first = model.stage2[0]
    assert (first.conv1.stride, first.conv2.stride) == ((1, 1), (2, 2))


def test_wide_resnet_shortcut_reads_the_raw_input():
    model = small("wrn_52_2", {})
    block, read = model.stage2[0], []
    block.shortcut.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    raw = features(model, images()).stages[0]
    assert torch.equal(read[0], raw)


def test_wide_resnet_block_alone_equals_block_in_the_network():
    block = small("wrn_52_2", {}).stage1[0]
    x = images(channels=8)
    assert torch.equal(block(x), block(x, block.bn1(x)))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = create_model("wrn_52_2", 5, width=0.25, dropout=0.5).train()
    x = images(4)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("size", [22, 28, 32])
@SMALL
def test_other_image_sizes(name, options, size):
    seen = features(small(name, options), images(size=size))
    assert tuple(seen.logits.shape) == (2, 7)
    assert torch.isfinite(seen.logits).all()


@pytest.mark.parametrize(
    ("size", "sides"), [(16, [8, 4, 2, 2]), (32, [16, 8, 4, 4]), (48, [24, 12, 6, 6]), (64, [32, 16, 8, 4])]
)
def test_vgg_pools_a_fourth_time_for_64_pixels_only(size, sides):
    seen = features(small("vgg8", {}), images(size=size))
    assert [stage.shape[-1] for stage in seen.stages] == sides


@SMALL
def test_width_and_in_channels(name, options):
    with torch.device("meta"):
        whole, narrow = create_model(name, 10, **options), create_model(name, 10, width=0.5, **options)
        same = create_model(name, 10, width=1, **options)
        grey = create_model(name, 10, in_channels=1, **options)
        assert grey(torch.empty(2, 1, 32, 32)).shape == (2, 10)
    assert count_parameters(narrow) < 0.4 * count_parameters(whole)
    assert count_parameters(same) == count_parameters(whole)
    assert count_macs(narrow) < 0.5 * count_macs(whole)
    assert count_macs(grey, channels=1) < count_macs(whole)
    assert every_parameter_name(narrow) == every_parameter_name(whole)


def test_channels_round_half_up_to_multiples_of_8():
    assert [channels(64, w) for w in (1, 1.0, 0.5, 0.25, 0.01, 0.3, 1.5, 0.1875)] == [
        64,
        64,
        32,
        16,
        8,
        16,
        96,
        16,
    ]
    assert channels(12, 1) == 12  # a width of 1 changes nothing, whatever the count


def test_resnet18_stems():
    with torch.device("meta"):
        stems = {stem: create_model("resnet18", 10, stem=stem) for stem in ("cifar", "cifar_pool", "imagenet")}
    convs = {stem: (model.conv1.kernel_size, model.conv1.stride) for stem, model in stems.items()}
    assert convs == {
        "cifar": ((3, 3), (1, 1)),
        "cifar_pool": ((3, 3), (1, 1)),
        "imagenet": ((7, 7), (2, 2)),
    }
    pools = [stems[stem].stem_pool for stem in ("cifar_pool", "imagenet")]
    assert [(pool.kernel_size, pool.stride, pool.padding) for pool in pools] == [(3, 2, 1)] * 2


def test_vgg_initialisation():
    torch.manual_seed(0)
    model = create_model("vgg8", 100)
    for conv in (model.block2[0], model.block4[0]):
        wanted = math.sqrt(2 / (9 * conv.out_channels))
        assert conv.weight.std().item() == pytest.approx(wanted, rel=0.02)
        assert not conv.bias.any()
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not model.head.bias.any()


def test_resnet_initialisations():
    torch.manual_seed(0)
    thin, wide = create_model("resnet20", 10), create_model("resnet18", 100)
    first = thin.stage3[0]
    assert first.conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.03)  # fan-out
    assert first.shortcut[0].weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.06)
    first = wide.stage4[0]
    assert first.conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.02)  # fan-in
    assert wide.head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not wide.head.bias.any()


def test_wide_resnet_keeps_pytorchs_initialisation():
    torch.manual_seed(0)
    conv = create_model("wrn_52_2", 10).stage3[1].conv1
    bound = 1 / math.sqrt(9 * 128)
    assert 0.99 * bound < conv.weight.abs().max() <= bound
    assert conv.bias.any()


@SMALL
def test_same_seed_same_weights(name, options):
    first, second = small(name, options).state_dict(), small(name, options).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_count_macs_by_hand():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5))
    assert count_macs(model, image_size=8, channels=4) == 6 * 4 * 4 * (2 * 9) + 96 * 5


def test_count_macs_leaves_the_model_as_it_was():
    model = create_model("resnet14", 10, width=0.5).train()
    model.stage2.eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count_macs(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_count_macs_cleans_up_after_an_error():
    model = create_model("resnet14", 10).train()
    with pytest.raises(RuntimeError):
        count_macs(model, channels=5)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_count_macs_agrees_between_meta_and_cpu():
    with torch.device("meta"):
        abstract = create_model("resnet14", 10)
    assert count_macs(abstract) == count_macs(create_model("resnet14", 10))


def test_count_parameters_counts_frozen_ones_and_no_buffers():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).requires_grad_(False)
    assert count_parameters(model) == 4 * 27 + 8


def test_list_models():
    assert list_models() == sorted(list_models())
    assert list_models("vgg*") == ["vgg11", "vgg13", "vgg16", "vgg8"]
    assert list_models("resnet??") == [
        "resnet14",
        "resnet18",
        "resnet20",
        "resnet32",
        "resnet34",
        "resnet50",
        "resnet56",
    ]
    assert list_models("VGG*") == []


def test_a_name_registers_once():
    with pytest.raises(ValueError, match="registered twice"):
        register(BUILDERS["vgg8"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: create_model("resnet21", 10),
            r"unknown model: 'resnet21'.* Did you mean .*'resnet20'.* Valid: .*wrn_52_2",
        ),
        (lambda: create_model("zzz", 10), r"unknown model: 'zzz'\. Valid: .*resnet14"),
        (
            lambda: create_model("vgg8", 10, widht=0.5),
            r"option of vgg8: 'widht'.*Did you mean 'width'.*in_channels",
        ),
        (
            lambda: create_model("vgg8", 10, stem="cifar"),
            r"option of vgg8: 'stem'.*Valid: width, in_channels",
        ),
        (
            lambda: create_model("resnet18", 10, stem="cifar_pol"),
            r"value of stem.*Did you mean 'cifar_pool'.*imagenet",
        ),
        (
            lambda: create_model("resnet18", 10, stem=None),
            r"value of stem: None.*Valid: cifar, cifar_pool, imagenet",
        ),
        (lambda: create_model("vgg8", 0), "num_classes must be a whole number of at least 1, got 0"),
        (lambda: create_model("vgg8", 10.0), "num_classes must be a whole number"),
        (lambda: create_model("vgg8", True), "num_classes must be a whole number"),
        (lambda: create_model("vgg8", 10, width=0), "width must be a positive number"),
        (lambda: create_model("vgg8", 10, width=-1.0), "width must be a positive number"),
        (lambda: create_model("vgg8", 10, width=math.nan), "width must be a positive number"),
        (lambda: create_model("vgg8", 10, width=math.inf), "width must be a positive number"),
        (lambda: create_model("vgg8", 10, width="0.5"), "width must be a positive number"),
        (lambda: create_model("vgg8", 10, width=True), "width must be a positive number"),
        (lambda: create_model("resnet14", 10, in_channels=0), "in_channels must be a whole number"),
        (lambda: create_model("resnet18", 10, in_channels=1.5), "in_channels must be a whole number"),
        (lambda: create_model("wrn_52_2", 10, dropout=1.0), r"dropout must be in \[0, 1\)"),
        (lambda: create_model("wrn_52_2", 10, dropout=-0.1), r"dropout must be in \[0, 1\)"),
        (lambda: create_model("wrn_52_2", 10, dropout="a lot"), r"dropout must be in \[0, 1\)"),
        (lambda: features(create_model("resnet14", 10), torch.zeros(3, 32, 32)), r"got shape \(3, 32, 32\)"),
    ],
)
def test_errors_say_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_features_of_a_foreign_model():
    with pytest.raises(TypeError, match="Linear has no features"):
        features(nn.Linear(3, 4), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "ten", "hundred", "two", "macs", "stages", "pooled"),
    BENCHMARK,
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_networks_of_the_distillation_tables(name, ten, hundred, two, macs, stages, pooled):
    with torch.device("meta"):
        assert [count_parameters(create_model(name, classes)) for classes in (10, 100, 200)] == [ten, hundred, two]
        model = create_model(name, 100)
        assert f"{count_macs(model) / 1e6:.2f}" == f"{macs:.2f}"
        seen = features(model, torch.empty(2, 3, 32, 32))
    assert [tuple(stage.shape) for stage in seen.stages] == [(2, *stage) for stage in stages]
    assert tuple(seen.pooled.shape) == (2, pooled) and tuple(seen.logits.shape) == (2, 100)


@pytest.mark.parametrize("name", [row[0] for row in BENCHMARK])
def test_benchmark_networks_run_forward_and_their_features_agree(name):
    model, x = small(name, {}), images(3)
    plain, before = features(model, x), features(model, x, preactivation=True)
    assert torch.equal(plain.logits, model(x)) and torch.equal(before.logits, plain.logits)
    assert all(a.shape == b.shape for a, b in zip(plain.stages, before.stages, strict=True))
    assert not torch.equal(model(x)[0], model(x.flip(0))[0])
    if name != "mobilenetv2_half" and not name.startswith("wrn"):  # linear taps; WRN's are normed, not rectified
        assert all((a >= 0).all() for a in plain.stages)
    order: list[str] = []
    for layer, module in convolutions(model):
        module.register_forward_hook(lambda m, i, o, layer=layer: order.append(layer))
    model(x)
    if name != "shufflenetv2":  # its two branches are defined left and right of each other
        assert order == [layer for layer, _ in convolutions(model)]


def test_mobilenetv1_at_64_pixels():
    """PKGD spec, section 3: 185.6 M with a stem of stride 1, 46.5 M with stride 2."""
    with torch.device("meta"):
        macs = [count_macs(create_model("mobilenetv1", 200, stem_stride=s), 64) / 1e6 for s in (1, 2)]
    assert [round(m, 1) for m in macs] == [185.6, 46.5]
    with pytest.raises(ValueError, match="stem_stride must be 1 or 2, got 3"):
        create_model("mobilenetv1", 10, stem_stride=3)


def test_shuffle_interleaves_groups():
    from efflib.models.shufflenet import shuffle

    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffle(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]
