"""Relevance: the spec's toys, rules as written out in matrices, captum as the oracle, conservation, and bad input."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections import OrderedDict
from functools import partial

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from efflib.explain import Composite, conservation, grad_cam, propagate, relevance, saliency
from efflib.kernels import relevance_map
from efflib.models import create_model
from efflib.training import seeded

F64 = torch.float64
SIZES = {"mobilenetv2": (3, 64, 64), "mnist_cnn": (1, 28, 28)}
MOBILE = {"width": 0.35, "depth": 11, "image_size": 64}


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


def images(n=2, channels=3, size=32, dtype=F64):
    return torch.rand(n, channels, size, size, dtype=dtype, generator=generator())


def network(name, biases=True, classes=4, **options):
    """A network in eval mode whose batch norms know its maps; without biases and shifts if asked."""
    with seeded(0, name):
        model = create_model(name, classes, **options).double().train()
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        for module in norms:
            module.momentum = 1.0
        for module in linear:
            nn.init.normal_(module.weight, 0, (2 / module.in_features) ** 0.5)  # 0.01 would make tiny logits
        model(torch.rand(8, *SIZES.get(name, (3, 32, 32)), dtype=F64))
        for module in norms:
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.7, 1.5)
                nn.init.uniform_(module.bias, -0.3 * biases, 0.3 * biases)
            module.running_mean *= biases
        for module in (*linear, *(each for each in model.modules() if isinstance(each, nn.Conv2d))):
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.3 * biases, 0.3 * biases)
    return model.eval()


def plain_network(bias=0.0, seed=0, activation=nn.ReLU):
    """Convolution, ReLU, max-pool, convolution, ReLU, linear, ReLU, linear; biases within +-bias."""
    with seeded(seed, "plain"):
        model = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, 6, 3, padding=1), relu1=activation(), pool=nn.MaxPool2d(2),
                conv2=nn.Conv2d(6, 8, 3, stride=2), relu2=activation(), flat=nn.Flatten(),
                dense=nn.Linear(32, 10), relu3=activation(), head=nn.Linear(10, 4),
            )
        ).double()  # fmt: skip
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.uniform_(module.bias, -bias, bias)
    return model.eval()


# --- the rules, by hand --------------------


def toy(row, a, rule, R, **options):
    """Relevance of a linear map of one output whose relevance is R."""
    a = torch.tensor([a], dtype=F64, requires_grad=True)
    z = propagate(lambda x: F.linear(x, torch.tensor([row], dtype=F64)), a, rule, **options)
    (gradient,) = torch.autograd.grad(z.sum() * (R / z.item()), a)
    return (a * gradient).detach().flatten().tolist()


@pytest.mark.parametrize(
    ("row", "a", "rule", "options", "R", "expected"),
    [
        ((1.0, -1.0), (2.0, 1.0), "zero", {}, 1, (2, -1)),
        ((1.0, -1.0), (2.0, 1.0), "epsilon", {"epsilon": 0.25}, 1, (1.6, -0.8)),
        ((1.0, -1.0), (2.0, 1.0), "gamma", {"gamma": 0.25}, 1, (5 / 3, -2 / 3)),
        ((1.0, -1.0), (2.0, 1.0), "zplus", {}, 1, (1, 0)),
        ((1.0, -1.0), (2.0, 1.0), "alpha2beta1", {}, 1, (2, -1)),
        ((1.0, 1.0), (2.0, 1.0), "zero", {}, 3, (2, 1)),
        ((1.0, 1.0), (2.0, 1.0), "gamma", {}, 3, (2, 1)),
        ((1.0, 1.0), (2.0, 1.0), "zplus", {}, 3, (2, 1)),
        ((1.0, -1.0), (2.0, -1.0), "zplus", {}, 1, (2 / 3, 1 / 3)),
        # The mirrored gamma rule where the output is negative: (1, -3) counts as (1, -3.75), p = -1.75.
        ((1.0, -3.0), (2.0, 1.0), "gamma", {"gamma": 0.25}, -1, (2 / 1.75, -3.75 / 1.75)),
    ],
)
def test_toys_of_the_spec(row, a, rule, options, R, expected):
    assert toy(row, a, rule, R, **options) == pytest.approx(expected, abs=1e-6)


def contributions(layer, a, rule, gamma, epsilon, low, high):
    """(outputs, inputs) shares of relevance of a linear map, each row divided by its sum, from its matrix."""
    zero = torch.zeros(1, *a.shape, dtype=F64)
    bias = layer(zero).flatten()
    W = (layer(torch.eye(a.numel(), dtype=F64).view(-1, *a.shape)).flatten(1) - bias).T
    c = W * a.flatten()
    z = c.sum(1) + bias
    if rule == "box":
        c = c - low * W.clamp(min=0) - high * W.clamp(max=0)
        return c / c.sum(1, keepdim=True)
    if rule in ("zero", "epsilon"):
        return c / (z + (epsilon if rule == "epsilon" else 0) * torch.where(z >= 0, 1.0, -1.0))[:, None]
    positive, negative = c.clamp(min=0), c.clamp(max=0)
    up = positive / (positive.sum(1) + bias.clamp(min=0))[:, None]
    if rule == "zplus":
        return up
    if rule == "alpha2beta1":
        return 2 * up - negative / (negative.sum(1) + bias.clamp(max=0))[:, None]
    favoured = torch.where(z[:, None] > 0, positive, negative)
    favoured_bias = torch.where(z > 0, bias.clamp(min=0), bias.clamp(max=0))
    return (c + gamma * favoured) / (z + gamma * (favoured.sum(1) + favoured_bias))[:, None]


@pytest.mark.parametrize("rule", ["zero", "epsilon", "gamma", "zplus", "alpha2beta1", "box"])
def test_rules_agree_with_their_matrices(rule):
    """Signed inputs, biases, stride, groups: conv -> (signed) -> grouped conv -> flatten -> linear."""
    with seeded(1, "matrices"):
        convs = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, groups=2)
        model = nn.Sequential(*convs, nn.Flatten(), nn.Linear(24, 3)).double().eval()
    x = images(1, 2, 6)
    options = {"gamma": 0.4, "epsilon": 0.05}
    first = "zplus" if rule == "box" else rule
    chosen = Composite(first, first, "box") if rule == "box" else rule
    # The definition, layer by layer, from the logit back.
    values = [x[0]]
    for layer in model:
        values.append(layer(values[-1][None])[0])
    assert values[1].min() < 0 < values[1].max()
    best = values[-1].argmax()
    R = F.one_hot(best, 3) * values[-1]
    for number in (3, 1, 0):
        part = "box" if rule == "box" and number == 0 else first
        share = contributions(model[number], values[number], part, **options, low=-0.5, high=1.5)
        R = share.T @ R.flatten()
    got = relevance(model, x, rule=chosen, relu=False, pixel_range=(-0.5, 1.5), **options)
    expected = R.view(2, 6, 6).sum(0)
    assert (got[0] - expected).abs().max() < 2e-6 * expected.abs().max()


def test_box_rule_per_channel_and_black_pixels():
    """Pixels at the lower bound have relevance from negative weights, which gradient x input could not give."""
    conv = nn.Conv2d(2, 1, 1).double()
    nn.init.zeros_(conv.bias)
    conv.weight.data = torch.tensor([[[[3.0]], [[-1.0]]]], dtype=F64)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(4, 1, bias=False)).double()
    nn.init.ones_(model[2].weight)
    x = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[-2.0, -2.0], [2.0, 2.0]]]], dtype=F64)
    range_ = ((0.0, -2.0), (1.0, 2.0))
    box = Composite("zero", "zero", "box")
    # Contributions (a - l) w+ + (a - h) w-: 3 of 3 + 4 and 4 of 3 + 4 for values of 5, 3 + 0 for values of 1.
    got = relevance(model, x, rule=box, pixel_range=range_)
    assert got.flatten().tolist() == pytest.approx([5, 5, 1, 1])
    grey = relevance(nn.Sequential(Replicated(), model), x[:, :1], rule=box, pixel_range=(0, 1))
    assert grey.flatten().tolist() == pytest.approx([2, 2, 2, 2])  # 3 a - a: 2 of 3 + 0
    nn.init.ones_(conv.bias)
    black = relevance(model, torch.zeros_like(x), rule=box, pixel_range=(0, 1))
    assert black.flatten().tolist() == pytest.approx([1, 1, 1, 1])


class Normalised(nn.Module):
    """Normalises pixels before a network reads them, as mobilenetv2(input_norm="imagenet") does."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor([0.5, 0.4], dtype=F64)[:, None, None])
        self.register_buffer("std", torch.tensor([0.2, -0.3], dtype=F64)[:, None, None])  # turns the second around

    def forward(self, x):
        return self.model((x - self.mean) / self.std)


def test_box_rule_of_a_network_that_normalises_its_input():
    """The bounds are those of what the first convolution reads: (0 - mean) / std and (1 - mean) / std, sorted."""
    with seeded(3, "normalised"):
        inner = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3, bias=False)).double()
    nn.init.zeros_(inner[0].bias)
    model, x = Normalised(inner).eval(), images(1, 2, 6)
    low = torch.tensor([-0.5 / 0.2, -0.6 / 0.3], dtype=F64)
    high = torch.tensor([0.5 / 0.2, 0.4 / 0.3], dtype=F64)
    read = (x[0] - model.mean) / model.std
    A = inner[:2](read[None])[0]
    logits = inner[2:](A[None])[0]
    R = F.one_hot(logits.argmax(), 3) * logits
    per_pixel = [bound.repeat_interleave(36) for bound in (low, high)]
    for layer, value, rule in ((inner[3], A.flatten(), "zero"), (inner[0], read, "box")):
        R = contributions(layer, value, rule, 0, 0, *per_pixel).T @ R.flatten()
    box = Composite("zero", "zero", "box")
    got = relevance(model, x, rule=box, relu=False)[0]
    expected = R.view(2, 6, 6).sum(0)
    assert (got - expected).abs().max() < 1e-6 * expected.abs().max()  # maps are float32
    assert (conservation(model, x, rule=box) - 1).abs().max() < 1e-12
    # As if the images had come normalised, with their range.
    range_ = low.tolist(), high.tolist()
    assert torch.equal(relevance(model, x, rule=box), relevance(inner, read[None], rule=box, pixel_range=range_))


@pytest.mark.parametrize("channels", [1, 3])
def test_box_rule_of_a_network_for_imagenet_weights(channels):
    reading = network("mobilenetv2", biases=False, head="gap", input_norm="imagenet", **MOBILE)
    plain = create_model("mobilenetv2", 4, head="gap", **MOBILE).double().eval()
    plain.load_state_dict(reading.state_dict())
    x = images(2, channels, 64)
    low, high = ((each - reading.mean) / reading.std for each in (0, 1))
    assert low.min() < -2.1 and high.max() > 2.6
    range_ = low.flatten().tolist(), high.flatten().tolist()
    normalised = (x - reading.mean) / reading.std
    expected = relevance(plain, normalised, pixel_range=range_)
    assert expected.max() > 0
    assert torch.equal(relevance(reading, x), expected)
    assert (conservation(reading, x) - 1).abs().max() < 1e-4


class Mixed(nn.Module):
    """Does something to the pixels before the first convolution."""

    def __init__(self, kind):
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 4, 3), kind

    def forward(self, x):
        if self.kind == "centred":
            x = x - x.mean((2, 3), keepdim=True)
        elif self.kind == "opponent colours":
            x = torch.cat([x[:, :1] - x[:, 1:2], x[:, 1:]], dim=1)
        elif self.kind == "in place":
            x -= 0.5
            x /= 0.25
        elif self.kind == "padded":
            x = F.pad((x - 0.5) / 0.25, (2, 2, 2, 2))
        elif self.kind == "negatives":
            x = torch.cat([x, -x], dim=1)[:, 1:4]
        return self.conv(input=x).mean((2, 3))


@pytest.mark.parametrize("kind", ["centred", "opponent colours"])
def test_pixels_that_are_mixed_before_the_first_convolution_have_no_box(kind):
    model = Mixed(kind).double()
    with pytest.raises(ValueError, match=r"first convolution reads values from -.* to .*, outside .*e.g. 'gamma'"):
        relevance(model, images())
    assert relevance(model, images(), rule="gamma").max() > 0


@pytest.mark.parametrize("kind", ["in place", "padded", "negatives"])
def test_pixels_that_keep_their_box(kind):
    with seeded(5, "mixed"):
        model = Mixed(kind).double()
    nn.init.zeros_(model.conv.bias)
    x = images()
    assert (conservation(model, x) - 1).abs().max() < 1e-9
    assert torch.equal(x, images())


class Replicated(nn.Module):
    """Replicates the channel of grey images, as mobilenetv2 does."""

    def forward(self, x):
        return x.expand(-1, 2, -1, -1)


def test_batch_norm_is_folded():
    """As if the fused network had been explained; the batch norm alone would be another layer."""
    with seeded(2, "fold"):
        conv, norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.2, 2)
        rest = [nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    model = nn.Sequential(conv, norm, *rest).double().eval()
    fused = nn.Sequential(fuse_conv_bn_eval(conv, norm), *rest).double().eval()
    x = images()
    for rule in ("zero", "epsilon", "gamma", "zplus", "alpha2beta1", "composite"):
        ours, expected = (relevance(each, x, rule=rule, relu=False, gamma=0.5) for each in (model, fused))
        assert (ours - expected).abs().max() < 1e-5 * expected.abs().max(), rule


# --- captum --------------------


def by_captum(model, x, target, rule):
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.rule = rule()
        elif isinstance(module, nn.MaxPool2d | nn.Flatten):
            module.rule = EpsilonRule(1e-9)
    return captum.attr.LRP(model).attribute(x.clone().requires_grad_(), target).sum(1).detach()


@pytest.mark.parametrize(
    ("rule", "oracle", "options", "bias"),
    [
        ("epsilon", partial(EpsilonRule, 1e-3), {"epsilon": 1e-3}, 0.2),
        ("gamma", partial(GammaRule, 0.25), {"gamma": 0.25}, 0.0),
        ("zplus", Alpha1_Beta0_Rule, {}, 0.0),
    ],
)
def test_plain_network_agrees_with_captum(rule, oracle, options, bias):
    model, x = plain_network(bias), images(4, size=12)
    # captum does not mirror the gamma rule: explain logits that are positive.
    target = model(x).argmax(1)
    assert model(x).amax(1).min() > 0
    ours, expected = relevance(model, x, rule=rule, relu=False, **options), by_captum(model, x, target, oracle)
    assert expected.abs().max() > 1e-3
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


def test_captums_zplus_is_for_inputs_that_are_not_negative():
    model, x = plain_network(), images(4, size=12) - 0.5
    ours = relevance(model, x, rule="zplus", relu=False)
    other = by_captum(model, x, model(x).argmax(1), Alpha1_Beta0_Rule)
    assert (ours - other).abs().max() > 0.1 * ours.abs().max()


def test_import_needs_no_captum():
    code = "import sys, efflib.explain; sys.exit('captum' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- identities --------------------


def gradient_x_input(model, x):
    return relevance(model, x, rule="gxa", relu=False)


def test_lrp_0_is_gradient_times_input_for_relu_but_not_for_saturated_relu6():
    x = images(4, size=12) * 20
    relu, relu6 = plain_network(), plain_network(activation=nn.ReLU6)
    same = relevance(relu, x, rule="zero", relu=False)
    assert (same - gradient_x_input(relu, x)).abs().max() < 1e-6 * same.abs().max()
    other = relevance(relu6, x, rule="zero", relu=False)
    assert (other - gradient_x_input(relu6, x)).abs().max() > 0.1 * other.abs().max()
    # Saturated units pass relevance on under LRP-0; their gradient is zero.
    assert (conservation(relu6, x, rule="zero") - 1).abs().max() < 1e-6
    assert (conservation(relu6, x, rule="gxa") - 1).abs().max() > 0.1


def map_network(weights, flat):
    """A 1 x 2 map with two channels, and a linear head on its average or on all four values."""
    head = nn.Linear(4 if flat else 2, 1, bias=False)
    head.weight.data = torch.tensor([weights])
    pool = nn.Identity() if flat else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(OrderedDict(map=nn.Identity(), pool=pool, flatten=nn.Flatten(), head=head)).double()


def test_map_toy_of_the_spec():
    A = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]], dtype=F64)
    maps = {
        "gap": map_network([1.0, -1.0], flat=False),
        "flatten": map_network([1.0, 0.0, 0.0, -1.0], flat=True),
    }
    for name, model in maps.items():
        cam = grad_cam(model, A, layer="map")
        gxa = relevance(model, A, layer="map", rule="gxa", relu=False)
        assert model(A).item() == 1
        assert cam.tolist() == [[[0.0, 1.5]]]
        assert gxa.tolist() == ([[[-0.5, 1.5]]] if name == "gap" else [[[1.0, 0.0]]])
        assert torch.equal(relevance(model, A, layer="map", rule="gxa"), gxa.clamp(min=0))
    # LRP-0 at the last map of GAP and a linear layer is gradient times activation again.
    lrp = relevance(maps["gap"], A, layer="map", rule="zero", relu=False)
    assert lrp.flatten().tolist() == [-0.5, 1.5]


@pytest.mark.parametrize("width", [0.35, 0.5])
@pytest.mark.parametrize("depth", [11, 17])
def test_grad_cam_is_gradient_times_activation_before_gap(width, depth):
    model = network("mobilenetv2", width=width, depth=depth, head="gap")
    x = images(2, size=64)
    cam, gxa, lrp = grad_cam(model, x, layer="s32"), *(relevance(model, x, "s32", rule=r) for r in ("gxa", "zero"))
    assert cam.max() > 0
    assert (cam - gxa).abs().max() < 1e-6 * cam.max()
    assert (lrp - gxa).abs().max() < 1e-6 * cam.max()  # GAP, ReLU and linear layers only


def test_grad_cam_is_something_else_before_flatten_and_before_another_convolution():
    x = images(2, size=64)
    for head in ("flatten", "dsc"):
        model = network("mobilenetv2", head=head, **MOBILE)
        cam, gxa = grad_cam(model, x, layer="s32"), relevance(model, x, "s32", rule="gxa")
        assert (cam - gxa).abs().max() > 0.05 * gxa.max(), head
    before_pool = grad_cam(model, x), relevance(model, x, "pooling input", rule="gxa")
    assert (before_pool[0] - before_pool[1]).abs().max() < 1e-6 * before_pool[0].max()


def test_grad_times_activation_is_that_of_saliency():
    model, x = network("resnet14", width=0.5), images()
    ours = relevance(model, x, "bn1", rule="gxa", relu=False)  # as large as the image: nothing is resized
    assert torch.allclose(ours.abs(), saliency(model, x, "bn1", method="grad_x_act", reduce="abs_sum").float())


# --- conservation --------------------

NETWORKS = {
    "resnet20": ({"width": 0.5}, ("input", "conv1", "stage1.2", "stage3.0", "pooling input")),
    "vgg8": ({"width": 0.25}, ("input", "block1.1", "pooling input")),
    "mobilenetv2": ({"head": "gap", **MOBILE}, ("input", "backbone.3", "s16", "s32", "head.0")),
    "mobilenetv2_half": ({}, ("input", "groups.3.0")),
    "shufflenetv1": ({}, ("input", "stage2.0")),
    "shufflenetv2": ({}, ("input", "conv1")),
    "wrn_16_2": ({"width": 0.5}, ("input", "stage2.1")),
    "mnist_cnn": ({"in_channels": 1, "width": 0.5}, ("input", "conv3")),
}


@pytest.mark.parametrize("rule", ["zero", "gamma", "zplus", "composite", "composite_zplus"])
@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_is_conserved_without_biases(name, rule):
    options, layers = NETWORKS[name]
    model = network(name, biases=False, **options)
    x = images(2, *SIZES.get(name, (3, 32, 32))[:2])
    for layer in layers:
        ratio = conservation(model, x, layer, rule=rule)
        assert ratio.shape == (2,)
        assert (ratio - 1).abs().max() < 1e-4, layer


def test_biases_take_relevance_which_the_ratio_shows():
    model, x = network("resnet20", width=0.5), images()
    ratio = conservation(model, x, rule="gamma")
    assert torch.isfinite(ratio).all() and (ratio - 1).abs().max() > 1e-3
    whole = relevance(model, x, rule="gamma", relu=False).flatten(1).sum(1)
    assert torch.allclose((whole / model(x).amax(1)).float(), ratio.float(), rtol=1e-4)


@pytest.mark.parametrize(
    ("weights", "rule", "expected"),
    [
        ((1.0, -0.75), "epsilon", 1.25 / 1.5),  # z / (z + epsilon), epsilon = 0.25
        ((-1.0, 0.75), "epsilon", 1.25 / 1.5),
        ((1.0, -0.75), "alpha2beta1", 1.0),
        ((1.0, 0.75), "alpha2beta1", 2.0),  # nothing is negative
        ((-1.0, -0.75), "alpha2beta1", -1.0),  # nothing is positive
        ((1.0, 0.75), "gamma", 1.0),
        ((1.0, 0.75), "zplus", 1.0),
    ],
)
def test_epsilon_and_alpha2beta1_need_not_conserve_without_biases(weights, rule, expected):
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False)).double()
    model[1].weight.data = torch.tensor([weights], dtype=F64)
    x = torch.tensor([[[[2.0, 1.0]]]], dtype=F64)  # with weights (1, -0.75): z = 1.25
    ratio = conservation(model, x, rule=rule, epsilon=0.25, pixel_range=(0, 2))
    assert ratio.tolist() == pytest.approx([expected], abs=1e-12)


def test_values_stay_those_of_the_network():
    for name, size in (("mobilenetv2", 64), ("resnet20", 32), ("wrn_16_2", 32), ("shufflenetv2", 32), ("vgg8", 64)):
        model, x = network(name, **(MOBILE if name == "mobilenetv2" else {"width": 0.5})), images(2, size=size)
        for rule in ("gamma", "alpha2beta1", "composite"):
            got = propagate(model, x.requires_grad_(), rule)
            assert (got - model(x)).abs().max() < 1e-12, (name, rule)


# --- maps and layers --------------------


def test_maps_are_single_precision_of_the_images_size_and_not_negative():
    model = network("mobilenetv2", head="gap", **MOBILE).float()
    x = images(3, 1, 64, torch.float32)
    for layer in ("input", "s16", "s32", "backbone.4", model.backbone[2]):
        for rule in ("gxa", "composite"):
            got = relevance(model, x, layer, rule=rule)
            assert got.shape == (3, 64, 64) and got.dtype == torch.float32
            assert got.min() >= 0 and got.amax(dim=(1, 2)).min() > 0, (layer, rule)
    assert relevance(model, x, "s16", rule="gxa", relu=False).min() < 0


def test_target_and_named_maps():
    model, x = network("mobilenetv2", head="gap", **MOBILE), images(3, size=64)
    predicted = model(x).argmax(1)
    assert torch.equal(relevance(model, x, "s16", target=predicted), relevance(model, x, "s16"))
    other = relevance(model, x, "s16", target=(predicted + 1) % 4)
    assert (other - relevance(model, x, "s16")).abs().max() > 0
    by_module = relevance(model, x, model.backbone[model.deep].conv[0])
    assert torch.allclose(by_module, relevance(model, x, "s16"), rtol=1e-5, atol=1e-9)
    last = grad_cam(model, x, layer="s32")
    assert torch.allclose(last, saliency(model, x, layer="s32", method="gradcam"), rtol=1e-6)
    assert torch.allclose(last, grad_cam(model, x, layer=model.backbone[-1]), rtol=1e-6)


def test_batches_do_not_mix():
    model, x = network("resnet14", width=0.5), images(3)
    parts = torch.cat([relevance(model, x[:1]), relevance(model, x[1:])])
    assert (relevance(model, x) - parts).abs().max() < 1e-6 * parts.max()


def test_model_is_left_as_it_was():
    model = network("mobilenetv2", head="gap", **MOBILE).train()
    model.head.eval().requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    relevance(model, images(2, size=64))
    relevance(model, images(2, size=64), "s16", rule="gxa")
    with pytest.raises(ValueError, match="rule"):
        relevance(model, images(2, size=64), rule="beta")
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad != name.startswith("head") for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Residual(nn.Module):
    """Reads a tensor again after it was activated, in place or not."""

    def __init__(self, inplace):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU6(inplace)
        self.head = nn.Linear(4, 3)
        self.inplace = inplace

    def forward(self, x):
        x = self.norm(self.conv1(x))
        if self.inplace:
            self.relu(x)
            y = self.conv2(x)
            y += x
        else:
            x = self.relu(x)
            y = self.conv2(x) + x
        return self.head(self.relu(y).mean((2, 3)))


def test_in_place_activations_are_handled():
    with seeded(4, "in place"):
        plain = Residual(False).double().eval()
        overwriting = Residual(True).double().eval()
    overwriting.load_state_dict(plain.state_dict())
    x = images()
    for layer, rule in (("input", "composite"), ("conv2", "gamma"), ("norm", "gxa"), ("norm", "zplus")):
        expected = relevance(plain, x, layer, rule=rule, relu=False)
        assert torch.equal(relevance(overwriting, x, layer, rule=rule, relu=False), expected), (layer, rule)
    assert torch.equal(x, images())


# --- inside a loss --------------------


def test_propagate_gives_maps_that_a_loss_can_differentiate():
    model = network("mobilenetv2", head="gap", **MOBILE).train()
    x = images(3, size=64)
    model.maps(x)  # running statistics move here, not below
    model.eval()
    expected = relevance(model, x, "s16", rule="gamma", relu=False)
    A = model.maps(x)["s16"]
    model.train()
    logits = propagate(partial(model.logits_from, "s16", as_in_eval=True), A, "gamma")
    (gradient,) = torch.autograd.grad(logits.amax(1).sum(), A, create_graph=True)
    maps = relevance_map(A, gradient, relu=False)
    resized = F.interpolate(maps[:, None], size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    assert (resized - expected).abs().max() < 1e-5 * expected.abs().max()
    maps.square().sum().backward()
    touched = [model.backbone[0][0].weight, model.backbone[-1][0].weight, model.head[0].weight]
    assert all(float(weight.grad.abs().max()) > 0 for weight in touched)


def test_propagate_refuses_statistics_of_the_batch():
    model, A = network("mobilenetv2", head="gap", **MOBILE).train(), torch.rand(2, 192, 4, 4, dtype=F64)
    with pytest.raises(ValueError, match=r"running statistics \(called in BatchNorm2d.forward\).*as_in_eval=True"):
        propagate(partial(model.logits_from, "s16"), A.requires_grad_())
    with pytest.raises(ValueError, match="requires_grad_"):
        propagate(partial(model.logits_from, "s16"), A.detach())


# --- bad input --------------------


class Gate(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.conv, self.other, self.kind = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), kind

    def forward(self, x):
        y = self.conv(x)
        if self.kind == "sigmoid":
            y = y.sigmoid()
        elif self.kind == "product":
            y = y * x
        elif self.kind == "write":
            y = y.clone()
            y[:, 0] = 0
        elif self.kind == "two stems":
            y = y + self.other(x)
        return y.mean((2, 3))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sigmoid", r"no rule for sigmoid \(called in Gate.forward\): explain a layer behind it.*adaptive_avg_pool2d"),
        ("product", "no rule for mul of two varying factors"),
        ("write", "no rule for setitem"),
    ],
)
def test_operations_without_a_rule_are_named(kind, message):
    with pytest.raises(NotImplementedError, match=message):
        relevance(Gate(kind).double(), images())
    assert relevance(Gate(kind).double(), images(), rule="gxa").shape == (2, 32, 32)


def test_pixels_read_twice():
    model = Gate("two stems").double()
    with pytest.raises(ValueError, match=r"more than one operation.*'gamma'"):
        relevance(model, images())
    assert relevance(model, images(), rule="gamma").shape == (2, 32, 32)


def test_bad_input():
    model, x = network("mobilenetv2", head="gap", **MOBILE), images(2, size=64)
    with pytest.raises(ValueError, match=r"unknown rule: 'gama'. Did you mean 'gamma'.*gxa, zero, epsilon"):
        relevance(model, x, rule="gama")
    with pytest.raises(ValueError, match=r"unknown rule of a layer: 'box'.*zplus"):
        Composite("epsilon", "box")
    with pytest.raises(ValueError, match=r"no layer 's8' in MobileNetV2.*'s16', 's32'.*backbone.0.0"):
        relevance(model, x, "s8")
    with pytest.raises(ValueError, match=r"shape \(2, 4\), a map needs \(N, C, h, w\)"):
        relevance(model, x, "head")
    with pytest.raises(ValueError, match="predicted, got 'label'"):
        relevance(model, x, target="label")
    with pytest.raises(ValueError, match="one class per image"):
        relevance(model, x, target=torch.tensor([1]))
    with pytest.raises(ValueError, match=r"pixels reach from -.* to .*, outside pixel_range \(0.0, 1.0\)"):
        relevance(model, 2 * x - 1)
    assert relevance(model, 2 * x - 1, pixel_range=(-1, 1)).shape == (2, 64, 64)
    with pytest.raises(ValueError, match=r"2 lowest and 1 highest values.*\(2, 3, 64, 64\) need one .* or 3"):
        relevance(model, x, pixel_range=((0, 0), 1))
    for option in ("gamma", "epsilon"):
        with pytest.raises(ValueError, match=f"{option} must be a finite number of at least 0, got -1"):
            relevance(model, x, **{option: -1})
