"""The safety paper's CNN: counts and shapes of section 3.1 of its spec, options, batch norm at test time."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from efflib.data import NORMALISATION, load_dataset
from efflib.explain import grad_cam
from efflib.kernels.augment import normalise
from efflib.models import (
    batch_statistics,
    convolutions,
    count_macs,
    count_parameters,
    create_model,
    features,
    onward,
    recalibrate_batch_norm,
)

# Layer -> weights, multiply-accumulates per image, bits of the codes round(w / 2^-8) of fresh weights.
TABLE = {
    "conv1": (800, 460_800, 7),
    "conv2": (25_600, 10_240_000, 5),
    "conv3": (18_432, 1_179_648, 5),
    "conv4": (36_864, 1_327_104, 5),
    "head": (5_760, 5_760, None),
}
STAGES = [(32, 24, 24), (32, 20, 20), (64, 8, 8), (64, 6, 6)]


def network(**options) -> nn.Module:
    torch.manual_seed(0)
    return create_model("mnist_cnn", 10, **options)


def images(count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def outputs(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each module gave in one pass."""
    seen: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
        for name, module in model.named_children()
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return seen


def test_counts_of_the_spec():
    model = network()
    weights = {name: model.get_submodule(name).weight.numel() for name in TABLE}
    assert weights == {name: row[0] for name, row in TABLE.items()}
    assert count_parameters(model) == 87_466
    assert sum(weights[name] for name in model.quantizable) == 81_696
    assert sum(model.get_submodule(name).out_channels for name in model.quantizable) == 192
    maps = outputs(model, images(1))
    macs = {name: maps[name][0].numel() * model.get_submodule(name).weight[0].numel() for name in TABLE}
    assert macs == {name: row[1] for name, row in TABLE.items()}
    assert count_macs(model, 28, 1) == 13_213_312


def test_codes_of_fresh_weights_need_few_bits():
    """The spec's column "code bits at init", and the 51,260 bytes that they take."""
    model, bits = network(), 0
    for name in model.quantizable:
        weight = model.get_submodule(name).weight.detach()
        codes = torch.round(256 * weight)
        width = next(k for k in range(1, 33) if codes.min() >= -(2 ** (k - 1)) and codes.max() <= 2 ** (k - 1) - 1)
        assert width == TABLE[name][2]
        bits += width * weight.numel()
    assert bits // 8 == 51_260


def test_initialisation():
    model = network()
    for name in TABLE:
        layer = model.get_submodule(name)
        bound = 1 / math.sqrt(layer.weight[0].numel())
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.06)
        assert (layer.bias is None) == name.startswith("conv")
    assert 0 < model.head.bias.abs().max() <= 1 / 24
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 2 and not any(norm.affine for norm in norms)


def test_modules_run_in_the_order_of_the_spec():
    model = network()
    assert list(outputs(model, images())) == ["conv1", "conv2", "bn2", "conv3", "conv4", "bn4", "head"]
    assert [name for name, _ in convolutions(model)] == list(model.quantizable) == ["conv1", "conv2", "conv3", "conv4"]
    assert model.norms == {"conv2": "bn2", "conv4": "bn4"}


def test_the_definition():
    model, x = network().double(), images(2).double()

    def norm(x):
        return (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    h = F.relu(F.conv2d(F.relu(F.conv2d(x, model.conv1.weight)), model.conv2.weight))
    h = F.max_pool2d(norm(h), 2)
    h = F.relu(F.conv2d(F.relu(F.conv2d(h, model.conv3.weight)), model.conv4.weight))
    h = F.max_pool2d(norm(h), 2).reshape(2, 576)
    torch.testing.assert_close(model(x), h @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_features_and_onward_agree_with_forward(depth):
    model, x = network(depth=depth).eval(), images()
    model.bn2.running_mean.normal_()
    logits = model(x)
    after, before = features(model, x), features(model, x, preactivation=True)
    assert torch.equal(after.logits, logits) and torch.equal(before.logits, logits)
    wanted = [*STAGES, (64, 6, 6)][:depth]
    assert [tuple(stage.shape[1:]) for stage in after.stages] == wanted
    for low, high in zip(before.stages, after.stages, strict=True):
        assert (low < 0).any() and torch.equal(low.relu(), high)
    assert torch.equal(model.head(after.pooled), logits)
    part = x
    for stage, seen in enumerate(after.stages):
        part = onward(model, stage, part)
        assert torch.equal(part, seen)
    assert torch.equal(onward(model, depth, part), logits)


def test_the_classifier_reads_channel_by_channel():
    """Columns 9c to 9c + 8 belong to channel c of conv4: they go when it goes."""
    model, x = network().eval(), images()
    with torch.no_grad():
        model.conv4.weight.abs_()[5] = 0  # no other channel is cut to 0 by its ReLU
    pooled = features(model, x).pooled
    assert pooled.shape == (4, 576) and not pooled[:, 45:54].any()
    assert all(pooled[:, 9 * c : 9 * c + 9].any() for c in range(64) if c != 5)


def test_the_chain():
    assert network().chain() == [
        ("conv1", None, 1), ("conv2", "conv1", 1), ("conv3", "conv2", 1), ("conv4", "conv3", 1), ("head", "conv4", 9)
    ]  # fmt: skip
    assert network(depth=3).chain()[-1] == ("head", "conv3", 16)
    assert network(depth=5, width=0.5).chain()[-2:] == [("conv5", "conv4", 1), ("head", "conv5", 9)]


@pytest.mark.parametrize(
    ("options", "parameters", "pooled"),
    [
        ({"depth": 3}, 800 + 25_600 + 18_432 + 10_250, 1_024),
        ({"depth": 5}, 81_696 + 36_864 + 5_770, 576),
        ({"width": 0.5}, 400 + 6_400 + 4_608 + 9_216 + 2_890, 288),
        ({"width": 0.25}, 200 + 1_600 + 1_152 + 2_304 + 1_450, 144),
        ({"in_channels": 3}, 87_466 + 1_600, 576),
    ],
)
def test_options(options, parameters, pooled):
    model = network(**options)
    assert count_parameters(model) == parameters and model.head.in_features == pooled
    x = torch.zeros(2, options.get("in_channels", 1), 28, 28)
    assert model(x).shape == (2, 10)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 2


def test_the_fifth_convolution_keeps_its_size():
    model = network(depth=5)
    maps = outputs(model, images())
    assert maps["conv5"].shape == maps["conv4"].shape == (4, 64, 6, 6)
    assert list(maps)[-4:] == ["conv4", "conv5", "bn5", "head"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network(depth=2), "depth must be 3 or 4 or 5 convolutions, got 2"),
        (lambda: network(depth=True), "depth must be 3 or 4 or 5 convolutions, got True"),
        (lambda: network(width=0), "width must be a positive number"),
        (lambda: network(in_channels=0), "in_channels must be a whole number"),
        (lambda: network()(torch.zeros(2, 1, 32, 32)), r"images \(N, 1, 28, 28\).*Got \(2, 1, 32, 32\).*digits28"),
        (lambda: network()(torch.zeros(2, 3, 28, 28)), r"reads images \(N, 1, 28, 28\).*in_channels"),
        (lambda: network()(torch.zeros(1, 28, 28)), r"Got \(1, 28, 28\)"),
    ],
)
def test_errors_say_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_grad_cam_reads_conv4_before_its_relu():
    model, x = network().double().eval(), images(3).double()
    maps = grad_cam(model, x, layer="conv4")
    assert maps.shape == (3, 28, 28) and maps.max() > 0
    raw: list[torch.Tensor] = []
    handle = model.conv4.register_forward_hook(lambda module, inputs, output: raw.append(output))
    logits = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), raw[0])
    assert (raw[0] < 0).any() and not gradient[raw[0] < 0].any()
    small = F.relu((gradient.mean((2, 3), keepdim=True) * raw[0]).sum(1))
    wanted = F.interpolate(small[:, None], size=(28, 28), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps, wanted.float(), rtol=1e-5, atol=1e-8)


# --- batch norm at test time --------------------


def test_recalibration_is_the_average_over_the_batches():
    model = network().double()
    batches = [images(8, seed).double() + seed for seed in range(3)]
    for batch in batches:
        model(batch)  # running averages of training, to be forgotten
    model.train().conv3.eval()
    with torch.no_grad():
        maps = [F.relu(model.conv2(F.relu(model.conv1(batch)))) for batch in batches]
    recalibrate_batch_norm(model, iter(batches))
    torch.testing.assert_close(model.bn2.running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0))
    torch.testing.assert_close(model.bn2.running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0))
    assert model.bn2.momentum == model.bn4.momentum == 0.1
    assert model.training and model.bn2.training and not model.conv3.training
    assert all(parameter.grad is None for parameter in model.parameters())
    again = model.bn4.running_mean.clone()
    recalibrate_batch_norm(model, batches)
    assert torch.equal(model.bn4.running_mean, again)


def test_a_dead_channel_stays_zero_once_recalibrated():
    """Spec 2.8: with old running statistics it gives -mean / deviation, which removing it would lose."""
    model = network().train()
    model(images())
    with torch.no_grad():
        model.conv2.weight[7] = 0
    model.eval()
    assert outputs(model, images())["bn2"][:, 7].any()
    recalibrate_batch_norm(model, [images()])
    assert not outputs(model, images())["bn2"][:, 7].any()


def test_recalibration_needs_batches_and_batch_norm():
    model = network()
    model(images())
    before = model.bn2.running_mean.clone()
    with pytest.raises(ValueError, match="needs at least one batch"):
        recalibrate_batch_norm(model, [])
    assert torch.equal(model.bn2.running_mean, before)
    for call in (lambda m: recalibrate_batch_norm(m, [images()]), lambda m: batch_statistics(m).__enter__()):
        with pytest.raises(ValueError, match=r"Flatten has no batch norm|batch norms .*; Flatten has none"):
            call(nn.Flatten())


def test_momentum_comes_back_after_an_error():
    model = network()
    with pytest.raises(ValueError, match="reads images"):
        recalibrate_batch_norm(model, [images(), torch.zeros(1, 1, 8, 8)])
    assert model.bn2.momentum == model.bn4.momentum == 0.1 and model.bn2.training


def test_batch_statistics_are_those_of_training_and_leave_no_trace():
    model = network().eval()
    model.bn2.running_mean.fill_(3.0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with batch_statistics(model), torch.no_grad():
        assert not model.conv1.training and model.bn2.training
        logits, alone = model(images(6)), model(images(6)[:3])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.bn2.training and model.bn2.track_running_stats
    assert not torch.allclose(logits[:3], alone)  # the other images of the batch matter
    assert not torch.allclose(logits, model(images(6)))
    torch.testing.assert_close(logits, model.train()(images(6)))


def test_it_learns_digits():
    data, held = load_dataset("digits28", "train"), load_dataset("digits28", "test")
    mean, std = NORMALISATION["digits28"]
    x, test = (normalise(torch.from_numpy(part.images), mean, std) for part in (data, held))
    y = torch.from_numpy(data.labels)
    model, generator = network(width=0.25), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(25):
        batch = torch.randint(len(x), (64,), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimiser.step()
    recalibrate_batch_norm(model, x[:500].split(250))
    with torch.no_grad():
        right = (model.eval()(test).argmax(1) == torch.from_numpy(held.labels)).float().mean()
    assert right > 0.7
