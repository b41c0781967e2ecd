"""CBS blurs what convolutions give, less and less, and leaves no trace."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from efflib.curricula import create
from efflib.curricula.cbs import CBS, blur, blurred_layers, gaussian_kernel
from efflib.models import create_model, list_models
from efflib.training import TrainingRecipe, cross_entropy, evaluate


def defined(sigma):
    """The spec's formula, weight by weight."""
    weights = np.array(
        [[math.exp(-((p - 1) ** 2 + (q - 1) ** 2) / (2 * sigma**2)) for q in range(3)] for p in range(3)]
    )
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("sigma", "centre", "edge", "corner"), [(1.0, 0.204180, 0.123841, 0.075114), (0.5, 0.619347, 0.083819, 0.011344)]
)
def test_kernels_have_the_values_of_the_spec(sigma, centre, edge, corner):
    kernel = gaussian_kernel(sigma)
    expected = [[corner, edge, corner], [edge, centre, edge], [corner, edge, corner]]
    assert kernel.numpy() == pytest.approx(np.array(expected), abs=6e-7)
    assert kernel.numpy() == pytest.approx(defined(sigma), rel=1e-14)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-15)


def test_a_tiny_sigma_is_the_identity_and_nothing_is_divided_by_zero():
    identity = torch.zeros(3, 3, dtype=torch.float64)
    identity[1, 1] = 1
    for sigma in (0.0164, 1e-3, 1e-12, 1e-150):
        assert torch.equal(gaussian_kernel(sigma), identity)


def test_sigma_falls_every_five_epochs_and_not_at_the_start():
    cbs = CBS()
    expected = {0: 1, 4.999: 1, 5: 0.9, 9.5: 0.9, 10: 0.81, 60: 0.9**12, 199.99: 0.9**39}
    assert {when: cbs.sigma_at(when) for when in expected} == pytest.approx(expected)
    assert cbs.sigma_at(199) == pytest.approx(0.0164, abs=5e-5)
    assert cbs.sigma_at(60) == pytest.approx(0.28, abs=0.003)
    assert float(gaussian_kernel(cbs.sigma_at(60))[1, 1]) == pytest.approx(0.992, abs=0.0015)
    # Spans of a shorter run: thirds of an epoch, where 0.1 + 0.2 is not 0.3.
    fast = CBS(every=0.1)
    assert [fast.sigma_at(step / 10) for step in range(40)] == pytest.approx([0.9**step for step in range(40)])


def test_blur_is_a_correlation_of_each_channel_with_zeros_around_it():
    generator = torch.Generator().manual_seed(0)
    maps, kernel = torch.randn(2, 5, 6, 7, generator=generator, dtype=torch.float64), gaussian_kernel(0.7)
    got = blur(maps, kernel)
    for n in range(2):
        for c in range(5):
            expected = ndimage.correlate(maps[n, c].numpy(), kernel.numpy(), mode="constant")
            assert got[n, c].numpy() == pytest.approx(expected, abs=1e-12)
    low = blur(maps.float(), kernel)
    assert low.dtype == torch.float32 and (low - got).abs().max() < 1e-6


def test_every_3x3_convolution_is_blurred_and_no_1x1():
    assert len(blurred_layers(create_model("resnet18", 10))) == 17  # the stem and two in each of eight blocks
    assert len(blurred_layers(create_model("wrn_52_2", 10))) == 49
    assert len(blurred_layers(create_model("resnet18", 10, stem="imagenet"))) == 17  # its stem is 7x7
    for name in {*list_models()} - {"names_decoder"}:  # it reads text
        layers = blurred_layers(create_model(name, 10, width=0.25))
        assert layers and all(layer.kernel_size != (1, 1) for layer in layers), name


def seen_by(module, model, images):
    """What reached a module in one pass."""
    inputs = []
    handle = module.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0].detach()))
    with torch.no_grad():
        model(images)
    handle.remove()
    return inputs[0]


@pytest.mark.parametrize(("name", "inside", "after"), [("resnet14", "conv1", "bn1"), ("wrn_52_2", "conv1", "dropout")])
def test_the_blur_sits_right_behind_the_convolution(network, name, inside, after):
    model = network(name, width=0.1).eval()
    block = model.stage1[0]
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    cbs = CBS()
    with cbs.attached(model):
        fed = seen_by(block.get_submodule(inside), model, images)
        got = seen_by(block.get_submodule(after), model, images)
    with torch.no_grad():
        expected = blur(block.get_submodule(inside)(fed), gaussian_kernel(1.0))
    assert (got - expected).abs().max() < 1e-6


def high_share(maps):
    """Share of the energy in the upper half of the frequencies of either axis."""
    energy = torch.fft.fft2(maps.double()).abs().square()
    h = maps.shape[-1]
    frequency = torch.minimum(torch.arange(h), h - torch.arange(h))
    high = (frequency[:, None] > h // 4) | (frequency > h // 4)
    return float(energy[..., high].sum() / energy.sum())


def test_high_frequencies_of_the_maps_come_back_as_sigma_falls(network):
    model, cbs = network().eval(), CBS()
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = high_share(seen_by(model.bn1, model, images))
    with cbs.attached(model):
        shares = []
        for epoch in (0, 20, 40, 60, 199):
            cbs.step(epoch)
            shares.append(high_share(seen_by(model.bn1, model, images)))
        logits = model(images)
    assert shares == sorted(shares) and shares[0] < 0.25 * plain
    assert shares[-1] == plain  # the identity, exactly
    assert torch.equal(logits, model(images))


def test_no_trace_in_state_parameters_or_optimiser(train, network, watched_steps):
    plain, model = network(), network()
    inside = []

    def loss(model, batch):
        inside.append((list(model.state_dict()), len(list(model.parameters())), len(list(model.modules()))))
        return cross_entropy(model, batch)

    with watched_steps() as steps:
        _, weights, _ = train(CBS(), model, loss=loss)
    usual = (list(plain.state_dict()), len(list(plain.parameters())), len(list(plain.modules())))
    assert set(map(str, inside)) == {str(usual)}
    trained = [parameter for group in steps[0][0].param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in trained} == {id(parameter) for parameter in model.parameters()}
    assert not any(module._forward_hooks for module in model.modules())
    plain.to(memory_format=torch.channels_last).load_state_dict(weights)
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(plain.eval()(images), model(images))


def test_the_kernel_stays_while_the_network_is_evaluated_between_epochs(train, network, data):
    class Noting(CBS):
        def _blurred(self, layer, inputs, output):
            changed = super()._blurred(layer, inputs, output)
            noted.append((layer.training, changed is not output))
            return changed

    noted: list[tuple[bool, bool]] = []
    model = network()
    history, _, _ = train(Noting(), model)
    assert set(noted) == {(True, True), (False, True)}
    cbs = CBS()
    with cbs.attached(model):
        cbs.step(4.9)
        assert evaluate(model, data[1], TrainingRecipe(epochs=1), "cpu", "fp32") == history.last
        logits = model(torch.ones(1, 1, 8, 8))
    assert not torch.equal(logits, model(torch.ones(1, 1, 8, 8)))


def test_it_changes_training_and_an_identity_does_not(train):
    _, plain, _ = train()
    _, same, _ = train(CBS(sigma=0.01))
    _, blurred, _ = train(CBS())
    assert all(torch.equal(plain[name], same[name]) for name in plain)
    assert not torch.equal(plain["conv1.weight"], blurred["conv1.weight"])


def test_hooks_are_gone_when_training_fails(train, network):
    model = network()

    def loss(model, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CBS(), model, loss=loss)
    assert not any(module._forward_hooks for module in model.modules())


def test_wrong_options_and_networks(train):
    for wrong in ({"sigma": 0}, {"sigma": float("nan")}, {"every": -1}, {"every": True}, {"sigma": "1"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a positive number"):
            create("cbs", **wrong)
    with pytest.raises(ValueError, match=r"decay must lie between 0 and 1, got 1\.1: sigma has to fall"):
        create("cbs", decay=1.1)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with pytest.raises(ValueError, match="CBS blurs what convolutions larger than 1x1 give, and Sequential has none"):
        train(CBS(), linear)
