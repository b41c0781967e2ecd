"""MobileNetV2 of the MRI thesis: counts and costs of its spec, named maps, parts, eval within training, errors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from efflib.models import count_macs, count_parameters, create_model, evaluating, features, onward
from efflib.models.imagenet import IMAGENET_INPUT
from efflib.training import seeded

# Section 3 of the spec. Backbones by width: parameters, running means and variances of the batch norms.
BACKBONES = {1.0: (2_223_872, 34_112), 0.75: (1_355_424, 26_640), 0.5: (687_680, 18_544), 0.35: (396_128, 14_080)}
CHANNELS = {
    1.0: (32, 16, 24, 32, 64, 96, 160, 320),
    0.75: (24, 16, 24, 24, 48, 72, 120, 240),
    0.5: (16, 8, 16, 16, 32, 48, 80, 160),
    0.35: (16, 8, 8, 16, 24, 32, 56, 112),
}
SHALLOW = {1.0: 1_676_048, 0.75: 1_042_320, 0.5: 547_312, 0.35: 325_664}  # 11 blocks, with the statistics
# Members: width, depth, head -> parameters, with the statistics (Keras: "total"), MACs at 224 px.
MEMBERS = {
    (1.0, 17, "gap"): (2_585_220, 2_619_332, 299_855_232),
    (0.75, 17, "gap"): (1_716_772, 1_743_412, 208_150_752),
    (0.5, 17, "gap"): (1_049_028, 1_067_572, 96_212_800),
    (0.35, 17, "gap"): (757_476, 771_556, 58_366_768),
    (1.0, 11, "gap"): (2_014_724, 2_037_396, 204_335_808),
    (0.75, 11, "gap"): (1_385_764, 1_403_668, 142_381_776),
    (0.5, 11, "gap"): (895_940, 908_660, 65_387_488),
    (0.35, 11, "gap"): (677_092, 687_012, 43_560_928),
    (1.0, 17, "dsc"): (2_402_564, 2_439_492, 308_087_424),
    (0.75, 17, "dsc"): (1_534_116, 1_563_572, 216_382_944),
    (0.5, 17, "dsc"): (866_372, 887_732, 104_444_992),
    (0.35, 17, "dsc"): (574_820, 591_716, 66_598_960),
    (1.0, 11, "dsc"): (1_832_068, 1_857_556, 212_568_000),
    (0.75, 11, "dsc"): (1_203_108, 1_223_828, 150_613_968),
    (0.5, 11, "dsc"): (713_284, 728_820, 73_619_680),
    (0.35, 11, "dsc"): (494_436, 507_172, 51_793_120),
}
# The teacher by resolution: parameters with the statistics; MACs in millions of it, of w100-d17-gap and w035-d17-gap.
TEACHERS = {
    64: (3_602_372, "25.8", "24.8", "5.1"),
    96: (5_240_772, "58.0", "55.4", "11.0"),
    128: (7_534_532, "103.1", "98.2", "19.3"),
    160: (10_483_652, None, None, None),
    224: (18_347_972, "315.6", "299.9", "58.4"),
}
HEADS = pytest.mark.parametrize("head", ["gap", "dsc", "flatten"])


def build(width=0.35, depth=11, head="gap", classes=4, **options):
    return create_model("mobilenetv2", classes, width=width, depth=depth, head=head, **options)


def statistics(model):
    return sum(buffer.numel() for name, buffer in model.named_buffers() if "running" in name)


def images(n=4, channels=3, size=64, dtype=torch.float64):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.fixture(params=["gap", "dsc", "flatten"])
def network(request):
    """Each head at float64, with statistics of the data: those of a fresh batch norm make its maps vanish."""
    with seeded(0):
        model = build(head=request.param, image_size=64).double()
        model(images())
    return model


# --- counts, costs, shapes ----------------------------------------------------------------------------------


def test_every_member_of_the_space():
    with torch.device("meta"):
        for (width, depth, head), (parameters, with_statistics, macs) in MEMBERS.items():
            model = build(width, depth, head)
            found = count_parameters(model), count_parameters(model) + statistics(model), count_macs(model, 224)
            assert found == (parameters, with_statistics, macs), (width, depth, head)
    assert sum(macs for *_, macs in MEMBERS.values()) == 2_302_360_640


def test_backbones():
    with torch.device("meta"):
        for width, expected in BACKBONES.items():
            deep, shallow = build(width, 17).backbone, build(width, 11).backbone
            assert (count_parameters(deep), statistics(deep)) == expected
            assert count_parameters(shallow) + statistics(shallow) == SHALLOW[width]
            convolutions = [module for module in deep.modules() if isinstance(module, nn.Conv2d)]
            assert len(convolutions) == 52 and all(c.bias is None for c in convolutions)
            assert (len(deep), len(shallow)) == (19, 13)
            for net, ends in ((deep, (1, 3, 6, 10, 13, 16, 17)), (shallow, (1, 2, 4, 6, 8, 10, 11))):
                assert (net[0][0].out_channels, *(net[end].out_channels for end in ends)) == CHANNELS[width]
            assert deep[-1][0].out_channels == 1280


def test_the_teacher_at_every_resolution():
    with torch.device("meta"):
        full = build(1.0, 17, "flatten")
        assert (count_parameters(full), count_macs(full, 224)) == (18_313_860, 315_583_872)
        assert count_parameters(full.head) == 16_089_988 and count_parameters(build(1.0, 17).head) == 361_348
        for size, (parameters, *millions) in TEACHERS.items():
            teacher = build(1.0, 17, "flatten", image_size=size)
            assert count_parameters(teacher) + statistics(teacher) == parameters
            macs = [count_macs(model, size) / 1e6 for model in (teacher, build(1.0, 17), build(0.35, 17))]
            assert millions[0] is None or [f"{m:.1f}" for m in macs] == millions


@pytest.mark.parametrize("depth", [17, 11])
def test_stages_and_maps(depth):
    with torch.device("meta"):
        model, x = build(1.0, depth), torch.empty(2, 3, 224, 224)
        found, maps = features(model, x), model.maps(x)
    assert [tuple(stage.shape[1:]) for stage in found.stages] == [
        (24, 56, 56), (32, 28, 28), (96, 14, 14), (1280, 7, 7)
    ]  # fmt: skip
    assert (tuple(found.pooled.shape), tuple(found.logits.shape)) == ((2, 1280), (2, 4))
    assert {layer: tuple(A.shape) for layer, A in maps.items()} == {"s16": (2, 576, 14, 14), "s32": (2, 1280, 7, 7)}


def test_s16_is_block_13_of_keras():
    """The expansion of the 14th block, counted from 1; its depthwise convolution has the last stride."""
    model = build(1.0, 17)
    assert model.deep == 14 and model.backbone[14].conv[1][0].stride == (2, 2)
    assert all(block.conv[1][0].stride == (1, 1) for block in model.backbone[15:-1])
    assert build(1.0, 11).backbone[build(1.0, 11).deep].conv[0][0].in_channels == 96


@pytest.mark.parametrize(("head", "width"), [("gap", 1280), ("dsc", 128), ("flatten", 5120)])
def test_the_pooled_vector_is_what_the_head_reads(head, width):
    model = build(head=head, image_size=64).eval()
    found = features(model, images(dtype=torch.float32))
    assert found.pooled.shape == (4, width) and torch.equal(model.head(found.pooled), found.logits)


# --- one computation, several entrances ---------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_entrances_agree(network, training):
    """In train mode too, from the same random numbers and statistics: dropout and batch norm are met once."""
    x = images()

    def fresh():
        return copy.deepcopy(network).train(training)

    with seeded(1):
        expected = fresh()(x)
    with seeded(1):
        found = features(fresh(), x)
    assert torch.equal(found.logits, expected)
    maps = fresh().maps(x)
    assert torch.equal(maps["s32"], found.stages[-1]) and all((A >= 0).all() for A in maps.values())
    for layer, A in maps.items():
        if not training or layer == "s32":  # from s16 on, train mode moves the statistics of this copy alone
            with seeded(1):
                assert torch.allclose(fresh().logits_from(layer, A), expected, rtol=1e-12)
    again = fresh()
    before = {name: value.clone() for name, value in again.state_dict().items()}
    assert all(torch.equal(again.map_of(layer, found), A) for layer, A in maps.items())
    assert all(torch.equal(before[name], value) for name, value in again.state_dict().items())
    assert all(module.track_running_stats for module in again.modules() if isinstance(module, nn.BatchNorm2d))


def test_parts_put_together_are_the_network(network):
    x, model = images(), network.eval()
    found = features(model, x)
    for number, stage in enumerate(found.stages):
        x = onward(model, number, x)
        assert torch.equal(x, stage)
    assert torch.equal(onward(model, 4, x), found.logits)


def test_preactivation_is_the_last_map_before_its_relu6(network):
    plain, before = features(network.eval(), images()), features(network.eval(), images(), preactivation=True)
    assert torch.equal(before.stages[3].clamp(0, 6), plain.stages[3]) and (before.stages[3] < 0).any()
    assert all(torch.equal(a, b) for a, b in zip(plain.stages[:3], before.stages[:3]))
    assert torch.equal(plain.logits, before.logits)


@pytest.mark.parametrize("layer", ["s16", "s32"])
def test_as_in_eval_in_the_midst_of_training(network, layer):
    """Decision D12: logits and gradients are those of eval mode, for the same parameters, and nothing is moved."""
    A = network.eval().maps(images())[layer].detach()
    expected = network.logits_from(layer, A).square().sum()
    expected.backward()
    wanted = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    network.train()
    network.head.eval()  # a part that is frozen stays as it is
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with seeded(5):
        drawn = torch.rand(())
    with seeded(5):
        found = network.logits_from(layer, A, as_in_eval=True).square().sum()
        assert torch.equal(torch.rand(()), drawn)  # no dropout: not one random number
    found.backward()
    assert torch.equal(found, expected)
    assert {name for name, p in network.named_parameters() if p.grad is not None} == wanted.keys()
    assert all(torch.equal(network.get_parameter(name).grad, value) for name, value in wanted.items())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training and network.backbone.training and not network.head.training


@pytest.mark.parametrize("layer", ["s16", "s32"])
def test_as_in_eval_no_image_depends_on_another(network, layer):
    A = network.train().maps(images())[layer].detach().requires_grad_()
    logits = network.logits_from(layer, A, as_in_eval=True)
    (gradient,) = torch.autograd.grad(logits[0].sum(), A)
    assert gradient[0].abs().sum() > 0 and gradient[1:].abs().max() == 0


# --- input, initial weights, modules ------------------------------------------------------------------------


@HEADS
def test_a_grey_image_is_replicated(head):
    with seeded(0):
        model = build(head=head, image_size=64).double().eval()
    grey = images(channels=1)
    assert torch.equal(model(grey), model(grey.repeat(1, 3, 1, 1)))
    assert torch.equal(model.maps(grey)["s16"], model.maps(grey.repeat(1, 3, 1, 1))["s16"])
    assert count_parameters(build(in_channels=1)) == count_parameters(build())


@HEADS
def test_no_module_works_in_place(head):
    model = build(head=head)
    assert [name for name, module in model.named_modules() if getattr(module, "inplace", False)] == []
    assert sum(isinstance(module, nn.ReLU6) for module in model.modules()) > 20


def test_torchvision_weights_fit_the_backbone():
    """Its file of ImageNet weights has these names; the computation is the same."""
    torchvision = pytest.importorskip("torchvision.models")
    for width in (1.0, 0.35, 1.4):
        with seeded(0):
            theirs, ours = torchvision.MobileNetV2(width_mult=width, num_classes=1).eval(), build(width, 17).eval()
        ours.backbone.load_state_dict(theirs.features.state_dict())
        x = images(n=1, dtype=torch.float32)
        with torch.no_grad():
            assert torch.equal(ours.maps(x)["s32"], theirs.features(x))


def test_images_can_be_normalised_as_imagenet_weights_require():
    with seeded(0):
        plain = build(dropout=0.0).eval()
    with seeded(0):
        model = build(dropout=0.0, input_norm="imagenet").eval()
    assert model.state_dict().keys() == plain.state_dict().keys()
    grey = torch.rand(2, 1, 64, 64, dtype=torch.float64)
    model, plain = model.double(), plain.double()
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in IMAGENET_INPUT)
    normalised = (grey.expand(-1, 3, -1, -1) - mean) / std
    torch.testing.assert_close(model(grey), plain(normalised), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(onward(model, 0, grey), onward(plain, 0, normalised), rtol=1e-5, atol=1e-6)
    found, expected = features(model, grey), features(plain, normalised)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.maps(grey)["s16"], plain.maps(normalised)["s16"], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"unknown value of input_norm: 'image'.*Did you mean 'imagenet'"):
        build(input_norm="image")


def test_initial_weights():
    with seeded(0):
        model = build(1.0, 17, "dsc")
        dense = build(1.0, 17).head[0]
    pointwise = model.reduce[1][0].weight  # fan-out 128
    assert float(pointwise.detach().std()) == pytest.approx((2 / 128) ** 0.5, rel=0.02)
    assert float(model.backbone[-1][0].weight.detach().std()) == pytest.approx((2 / 1280) ** 0.5, rel=0.02)
    assert float(dense.weight.detach().std()) == pytest.approx((2 / (1280 + 256)) ** 0.5, rel=0.02)  # Glorot
    assert not dense.bias.detach().any()


def test_dropout_acts_in_training_only():
    with seeded(0):
        model = build(dropout=0.5)
    x = images(dtype=torch.float32)
    with evaluating(model):
        pooled = features(model, x).pooled
    assert not torch.equal(model.head.train()(pooled), model.head(pooled))
    with evaluating(model):
        assert torch.equal(model.head(pooled), model.head(pooled))
    steady = build(dropout=0.0).head.train()
    assert torch.equal(steady(pooled), steady(pooled))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "flat"}, r"value of head: 'flat'.*Did you mean 'flatten'.*gap, dsc, flatten"),
        ({"depth": 16}, "depth of mobilenetv2 must be 17 or 11 blocks, got 16"),
        ({"width": 0}, "width must be a positive number"),
        ({"image_size": 100}, "image_size must be a positive multiple of 32, got 100"),
        ({"image_size": 0}, "image_size must be a positive multiple of 32, got 0"),
        ({"image_size": 64.0}, "image_size must be a positive multiple of 32, got 64.0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"in_channels": 2}, "in_channels of mobilenetv2 must be 1 or 3, got 2"),
        ({"in_channels": True}, "in_channels of mobilenetv2 must be 1 or 3, got True"),
        ({"stem": "cifar"}, r"option of mobilenetv2: 'stem'.*image_size"),
    ],
)
def test_options_that_are_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("mobilenetv2", 4, **options)


def test_inputs_that_are_not_allowed():
    model = build(head="flatten", image_size=64)
    with pytest.raises(ValueError, match=r"built for images of 64 px, whose last map is 2x2, but this one is 3x3"):
        model(images(size=96, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\) or \(N, 3, H, W\), got shape \(4, 2, 64, 64\)"):
        model(images(channels=2, dtype=torch.float32))
    for call in (lambda: model.logits_from("s8", None), lambda: model.map_of("s8", None)):
        with pytest.raises(ValueError, match=r"unknown layer of mobilenetv2: 's8'.*Valid: s16, s32"):
            call()
