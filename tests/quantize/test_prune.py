"""Dead channels are counted, and taken out without changing what the network computes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from efflib.models import batch_statistics, recalibrate_batch_norm
from efflib.quantize import (
    DeadChannels,
    Removal,
    match_structure,
    mean_bits,
    quantize_model,
    quantized_layers,
    remove_dead,
    soft_bytes,
)
from efflib.quantize.structure import shrink


def same(a, b):
    """Whether outputs agree within the project's tolerance, and are not all alike."""
    return torch.allclose(a, b, rtol=0, atol=1e-5) and a.std() > 0.05


# --- removal --------------------------------------------------------------------------------------------------


def test_cnn_loses_channels_and_keeps_its_logits(nets, dead_cnn):
    before = nets.outputs(dead_cnn)
    removal = remove_dead(dead_cnn)
    assert removal.removed == nets.cnn_dead and removal.count == 9
    assert same(nets.outputs(dead_cnn), before)
    shapes = {name: tuple(layer.weight.shape) for name, layer in quantized_layers(dead_cnn).items()}
    assert shapes == {"conv1": (6, 1, 5, 5), "conv2": (7, 6, 5, 5), "conv3": (13, 7, 3, 3), "conv4": (13, 13, 3, 3)}
    for name, layer in quantized_layers(dead_cnn).items():
        assert (layer.out_channels, layer.in_channels) == shapes[name][:2]
        assert layer.bits.shape == layer.exponent.shape == (shapes[name][0], 1, 1, 1)
    assert dead_cnn.bn2.num_features == len(dead_cnn.bn2.running_mean) == 7
    assert dead_cnn.head.in_features == dead_cnn.head.weight.shape[1] == 13 * 9
    assert dead_cnn.conv3.kept_outputs.tolist() == [0, *range(3, 15)]
    assert dead_cnn.conv4.kept_inputs.tolist() == [0, *range(3, 15)]


def test_cnn_with_batch_statistics(nets, dead_cnn):
    x = nets.inputs(dead_cnn)
    with torch.no_grad(), batch_statistics(dead_cnn):
        before = dead_cnn(x)
    remove_dead(dead_cnn, check_norms=False)
    with torch.no_grad(), batch_statistics(dead_cnn):
        assert same(dead_cnn(x), before)


@pytest.mark.parametrize("depth", [3, 5])
def test_cnn_of_other_depths(nets, depth):
    model = nets.build("mnist_cnn", depth=depth)
    dead = {"conv2": [0], f"conv{depth}": [3, 9]}
    nets.kill(model, dead)
    before = nets.outputs(model)
    assert remove_dead(model).removed == dead
    assert model.head.in_features == 14 * (16 if depth == 3 else 9)
    assert same(nets.outputs(model), before)


def test_full_width_cnn_and_decoder(nets):
    cnn = nets.kill(nets.build("mnist_cnn", width=1.0, seed=3), {"conv1": [31], "conv4": list(range(0, 64, 3))})
    decoder = nets.kill(nets.build("names_decoder", width=1.0, seed=3), {"blocks.1.qkv": list(range(0, 192, 5))})
    for model in (cnn, decoder):
        before = nets.outputs(model)
        assert remove_dead(model).count > 20
        assert same(nets.outputs(model), before)


def test_decoder_loses_rows_and_keeps_its_logits(nets, dead_decoder):
    before = nets.outputs(dead_decoder)
    removed = remove_dead(dead_decoder).removed
    # q 1 takes k 17 along, k 18 q 2; head 3 has no values left and loses q and k; v 33 is value 1 of head 0.
    assert removed["blocks.0.qkv"] == [1, 2, 12, 13, 14, 15, 17, 18, 28, 29, 30, 31, 33, 44, 45, 46, 47]
    # All queries dead: uniform attention over the values, which stay but for value 8.
    assert removed["blocks.1.qkv"] == [*range(32), 40]
    assert removed["blocks.2.ff1"] == [0, 9, 63]
    # Rows that write into the residual stream or the logits stay in the network.
    assert set(removed) == {"blocks.0.qkv", "blocks.1.qkv", "blocks.2.ff1"}
    assert dead_decoder.blocks[2].proj.weight.shape == (16, 16)
    assert dead_decoder.blocks[0].head_rows == ((2, 3), (4, 4), (4, 4), (0, 0))
    assert dead_decoder.blocks[1].head_rows == ((0, 4), (0, 4), (0, 3), (0, 4))
    assert dead_decoder.blocks[0].proj.kept_inputs.tolist() == [0, *range(2, 12)]
    assert dead_decoder.blocks[2].ff2.weight.shape == (16, 61) and len(dead_decoder.blocks[2].ff1.bias) == 61
    assert same(nets.outputs(dead_decoder), before)


def test_constant_of_a_dead_feed_forward_row_is_folded(nets, decoder):
    block = decoder.blocks[2]
    block.ff1.bias.data[4], block.ff1.bias.data[5] = 5.0, -5.0
    nets.kill(decoder, {"blocks.2.ff1": [4, 5]})
    before, bias = nets.outputs(decoder), block.ff2.bias.detach().clone()
    column = block.ff2.quantized_weight()[:, 4].detach()
    remove_dead(decoder)
    assert torch.allclose(block.ff2.bias, bias + 5 * column, atol=1e-6)
    assert same(nets.outputs(decoder), before)


def test_removing_nothing(nets, cnn):
    parameters = list(cnn.parameters())
    assert remove_dead(cnn) == Removal({}, {})
    assert all(a is b for a, b in zip(parameters, cnn.parameters(), strict=True))


def test_what_dies_with_its_inputs_goes_too(nets, cnn):
    with torch.no_grad():
        cnn.conv2.weight[2, :3], cnn.conv2.weight[2, 4:] = 0, 0  # reads channel 3 of conv1 alone
    nets.kill(cnn, {"conv1": [3]})
    before = nets.outputs(cnn)
    assert remove_dead(copy.deepcopy(cnn), {"conv1": torch.arange(8) == 3}).removed == {"conv1": [3]}
    assert remove_dead(cnn).removed == {"conv1": [3], "conv2": [2]}
    recalibrated = nets.outputs(cnn)
    assert same(recalibrated, before)


def test_removal_can_go_on(nets, dead_cnn, dead_decoder):
    for model, more in ((dead_cnn, {"conv3": [0, 4], "conv1": [1]}), (dead_decoder, {"blocks.0.qkv": [0, 20]})):
        remove_dead(model)
        nets.kill(model, more)
        before = nets.outputs(model)
        removed = remove_dead(model).removed
        assert same(nets.outputs(model), before)
        assert all(removed.values())
    assert removed == {"blocks.0.qkv": [0, 16, 32]}  # as numbered at first: row 20 of what was left is value 0
    assert dead_decoder.blocks[0].head_rows == ((1, 2), (4, 4), (4, 4), (0, 0))


@pytest.mark.parametrize(
    ("name", "layers"), [("mnist_cnn", ["conv2", "conv4"]), ("names_decoder", ["blocks.1.qkv", "blocks.0.ff1"])]
)
def test_a_layer_of_which_everything_died_keeps_one_channel(nets, name, layers):
    model = nets.build(name)
    nets.kill(model, {layer: slice(None) for layer in layers})
    before = nets.outputs(model)
    remove_dead(model)
    for layer in layers:
        assert quantized_layers(model)[layer].weight.shape[0] == 1
    after = nets.outputs(model)
    assert torch.allclose(after, before, rtol=0, atol=1e-5)
    remove_dead(model)
    assert torch.equal(nets.outputs(model), after)
    F.cross_entropy(
        model(nets.inputs(model)).flatten(0, -2), torch.zeros(before[..., 0].numel(), dtype=torch.int64)
    ).backward()


def test_living_channels_are_not_removed(nets, cnn):
    before = copy.deepcopy(cnn.state_dict())
    with pytest.raises(ValueError, match=r"channels \[2\] of conv3.*other than 0"):
        remove_dead(cnn, {"conv3": torch.arange(16) == 2})
    assert all(torch.equal(value, cnn.state_dict()[name]) for name, value in before.items())


def test_batch_norm_that_remembers_the_channel(nets, cnn):
    recalibrate_batch_norm(cnn, [nets.inputs(cnn)])
    with torch.no_grad():
        cnn.conv2.bits[3] = 0
    before = nets.outputs(cnn)
    with pytest.raises(ValueError, match=r"bn2 still remembers dead channels of conv2.*recalibrate_batch_norm"):
        remove_dead(cnn)
    assert torch.equal(nets.outputs(cnn), before)
    remove_dead(cnn, check_norms=False)
    assert not same(nets.outputs(cnn), before)  # so the check is needed
    assert cnn.conv2.out_channels == 7


def test_batch_norm_with_a_shift_and_convolutions_with_a_bias_are_refused(nets, cnn):
    nets.kill(cnn, {"conv2": [3]})
    shifted = copy.deepcopy(cnn)
    shifted.bn2 = nn.BatchNorm2d(8)
    with pytest.raises(ValueError, match="bn2 has a shift"):
        remove_dead(shifted)
    cnn.conv2.bias = nn.Parameter(torch.full((8,), 0.5))
    with pytest.raises(ValueError, match="conv2 has a bias"):
        remove_dead(cnn)


def test_parting_queries_from_keys_is_refused(decoder):
    with pytest.raises(ValueError, match=r"blocks\.0\.qkv: a query row stays or goes together with its key row"):
        shrink(decoder, {"blocks.0.qkv": torch.arange(1, 48)})
    with pytest.raises(ValueError, match="head feeds no other layer"):
        shrink(decoder, {"head": torch.arange(3)})


# --- optimiser, checkpoints -----------------------------------------------------------------------------------


def step(model, optimiser, x):
    optimiser.zero_grad()
    logits = model(x)
    loss = logits.square().mean() + 0.01 * mean_bits(model)
    loss.backward()
    optimiser.step()


@pytest.mark.parametrize("name", ["mnist_cnn", "names_decoder"])
def test_training_goes_on_as_if_the_channels_were_still_there(nets, name):
    dead = {"mnist_cnn": nets.cnn_dead, "names_decoder": {"blocks.0.qkv": [1, 17, 33], "blocks.2.ff1": [5]}}[name]
    model = nets.build(name)
    for block in getattr(model, "blocks", []):
        block.ff1.bias.data.fill_(-1.0)  # relu gives 0: a folded constant would be trained on from elsewhere
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=True)
    x = nets.inputs(model, 8)
    for _ in range(3):
        step(model, optimiser, x)
    nets.kill(model, dead)
    model.train()
    twin = copy.deepcopy(model)
    twin_optimiser = torch.optim.Adam(twin.parameters(), lr=1e-3, amsgrad=True)
    twin_optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    removed = remove_dead(model, optimiser=optimiser, check_norms=False).removed
    assert removed == dead
    for parameter, state in optimiser.state.items():
        assert all(value.shape in ((), parameter.shape) for value in state.values())
    assert len(optimiser.state) == len(list(model.parameters()))
    assert all(id(p) in set(map(id, model.parameters())) for group in optimiser.param_groups for p in group["params"])
    for _ in range(3):
        step(model, optimiser, x)
        step(twin, twin_optimiser, x)
    nets.kill(twin, dead)
    remove_dead(
        twin,
        {
            layer: torch.isin(torch.arange(len(twin.get_parameter(f"{layer}.bits"))), torch.tensor(rows))
            for layer, rows in dead.items()
        },
        check_norms=False,
    )
    for (key, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=2e-4), key


def test_a_state_dict_finds_its_structure_again(nets, dead_cnn, dead_decoder):
    for name, model in (("mnist_cnn", dead_cnn), ("names_decoder", dead_decoder)):
        remove_dead(model)
        expected = nets.outputs(model)
        fresh = nets.build(name, seed=9)
        match_structure(fresh, model.state_dict()).load_state_dict(model.state_dict())
        assert torch.equal(nets.outputs(fresh), expected)
        assert soft_bytes(fresh) == soft_bytes(model)
        assert mean_bits(fresh, "all_params").item() == mean_bits(model, "all_params").item()
    whole = nets.build("mnist_cnn", seed=9)
    parameters = list(whole.parameters())
    match_structure(whole, nets.build("mnist_cnn").state_dict())
    assert all(a is b for a, b in zip(parameters, whole.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"no conv1\.kept_outputs"):
        match_structure(whole, nets.build("mnist_cnn", quantised=False).state_dict())


def test_a_network_that_is_quantised_in_part(nets):
    model = nets.build("names_decoder", quantised=False)
    quantize_model(model, 4.0, layers=[name for name in model.quantizable if name.endswith(("qkv", "proj"))])
    nets.kill(model, {"blocks.3.qkv": [0, 40]})
    before = nets.outputs(model)
    assert remove_dead(model).removed == {"blocks.3.qkv": [0, 16, 40]}
    assert same(nets.outputs(model), before)


def test_a_quantised_feed_forward_layer_before_a_float_one(nets):
    model = nets.build("names_decoder", quantised=False)
    quantize_model(model, 4.0, layers=["blocks.1.ff1"])
    nets.kill(model, {"blocks.1.ff1": [2, 3, 50]})
    before = nets.outputs(model)
    assert remove_dead(model).count == 3
    assert same(nets.outputs(model), before)


# --- counting -------------------------------------------------------------------------------------------------


def test_channels_die_at_once_without_bits_and_in_time_without_codes(cnn):
    counter = DeadChannels(cnn, patience=3)
    with torch.no_grad():
        cnn.conv1.bits[1] = 0.0
        cnn.conv2.weight[4].mul_(1e-3)
    assert counter.dead()["conv1"].tolist() == [False, True, *[False] * 6]
    for number in range(3):
        assert not counter.dead()["conv2"].any(), number
        counter.step()
    assert torch.nonzero(counter.dead()["conv2"])[:, 0].tolist() == [4]
    with torch.no_grad():
        cnn.conv2.weight[4].mul_(1e3)  # comes back, as codes do
    counter.step()
    assert not counter.dead()["conv2"].any()
    assert DeadChannels(cnn).patience == 100


def test_counts_reset_shrink_and_travel(nets, cnn):
    counter = DeadChannels(cnn, patience=2)
    nets.kill(cnn, {"conv3": [1, 2, 15]})
    with torch.no_grad():
        cnn.conv3.weight[5].mul_(1e-3)
    counter.step(), counter.step()
    counter.reset("conv3", torch.tensor([5]))
    assert not counter.dead()["conv3"][5]
    counter.step()
    counter.shrink(remove_dead(cnn, counter.dead()))
    assert counter.silent["conv3"].tolist() == [0, 0, 0, 1, *[0] * 9]  # without 1, 2 and 15, what was 5 is 3
    counter.step()
    assert torch.nonzero(counter.dead()["conv3"])[:, 0].tolist() == [3]
    other = DeadChannels(cnn, patience=2)
    other.load_state_dict(counter.state_dict())
    assert torch.equal(other.dead()["conv3"], counter.dead()["conv3"])
    with pytest.raises(ValueError, match="match_structure first"):
        DeadChannels(nets.build("mnist_cnn")).load_state_dict(counter.state_dict())
