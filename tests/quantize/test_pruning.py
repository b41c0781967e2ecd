"""Magnitude pruning: which weights go, that they stay gone, which channels are cut, and the bytes of the spec."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from efflib.models import create_model
from efflib.quantize import cut_channels, dense_bytes, mask_smallest, post_training, sparse_bytes, unmask

NAMES = ["mnist_cnn", "names_decoder"]


def weights(model):
    return {name: model.get_submodule(name).weight.detach() for name in model.quantizable}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sparsity", [0.5, 0.95])
def test_the_smallest_weights_of_all_layers_go(nets, name, sparsity):
    model = nets.build(name, quantised=False)
    before = torch.cat([weight.flatten() for weight in weights(model).values()])
    count = mask_smallest(model, sparsity)
    assert count == math.floor(sparsity * before.numel() + 0.5)
    after = torch.cat([weight.flatten() for weight in weights(model).values()])
    assert int((after == 0).sum()) == count
    assert float(before[after == 0].abs().max()) <= float(before[after != 0].abs().min())
    assert torch.equal(after[after != 0], before[after != 0])


def test_masked_weights_stay_zero_while_the_others_train(nets):
    model = nets.build("mnist_cnn", quantised=False)
    mask_smallest(model, 0.8)
    gone = {name: weight == 0 for name, weight in weights(model).items()}
    before = {name: weight.clone() for name, weight in weights(model).items()}
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        model(nets.inputs(model)).square().mean().backward()
        optimiser.step()
    unmask(model)
    assert sorted(dict(model.named_parameters())) == sorted(dict(nets.build("mnist_cnn", False).named_parameters()))
    for name, weight in weights(model).items():
        assert torch.equal(weight == 0, gone[name])
        assert not torch.equal(weight[~gone[name]], before[name][~gone[name]])


@pytest.mark.parametrize(("name", "classes", "count"), [("mnist_cnn", 10, 81_696), ("names_decoder", 27, 198_336)])
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_bytes_of_a_sparse_network(name, classes, count, sparsity):
    model = create_model(name, classes)
    kept = count - mask_smallest(model, sparsity)
    unmask(model)
    assert sparse_bytes(model) == count / 8 + 4 * kept  # every layer has a multiple of 8 weights
    post_training(model, 8)
    codes = sum(int(model.get_submodule(name).codes().count_nonzero()) for name in model.quantizable)
    assert sparse_bytes(model) == count / 8 + codes
    assert 0.9 * kept < codes <= kept, "quantisation makes no zero into another number"


@pytest.mark.parametrize("keep", [0.75, 0.5, 0.25])
def test_channels_with_the_largest_norms_stay(nets, keep):
    model = nets.build("mnist_cnn", quantised=False)
    before = copy.deepcopy(model)
    kept = cut_channels(model, keep)
    assert [model.get_submodule(name).weight.shape[0] for name in model.quantizable] == [
        math.floor(keep * count + 0.5) for count in (8, 8, 16, 16)
    ]
    for name, positions in kept.items():
        norms = before.get_submodule(name).weight.detach().abs().flatten(1).sum(dim=1)
        assert positions.tolist() == sorted(norms.topk(len(positions)).indices.tolist())
    conv2 = before.conv2.weight[kept["conv2"]][:, kept["conv1"]]
    assert torch.equal(model.conv2.weight, conv2)
    assert dense_bytes(model) == 4 * sum(weight.numel() for weight in weights(model).values())


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_network_is_the_old_one_with_the_other_channels_silenced(nets, name):
    model = nets.build(name, quantised=False)
    silenced = copy.deepcopy(model)
    kept = cut_channels(model, 0.5)
    with torch.no_grad():
        for layer_name, positions in kept.items():
            layer = silenced.get_submodule(layer_name)
            gone = torch.ones(len(layer.weight), dtype=torch.bool)
            gone[positions] = False
            layer.weight[gone] = 0
            if layer.bias is not None:
                layer.bias[gone] = 0
    torch.testing.assert_close(nets.outputs(model), nets.outputs(silenced), rtol=1e-4, atol=1e-5)


def test_heads_keep_pairs_of_queries_and_keys(nets):
    model = nets.build("names_decoder", quantised=False)
    before = copy.deepcopy(model)
    cut_channels(model, 0.5)
    for old, new in zip(before.blocks, model.blocks, strict=True):
        assert new.head_rows == ((2, 2),) * 4
        norms = old.qkv.weight.detach().abs().sum(dim=1)
        pairs, values = (norms[:16] + norms[16:32]).reshape(4, 4), norms[32:].reshape(4, 4)
        best = [sorted((4 * head + rows.topk(2).indices).tolist()) for head, rows in enumerate(pairs)]
        positions = [place for head in best for place in head]
        assert torch.equal(new.qkv.weight[:8], old.qkv.weight[positions])
        assert torch.equal(new.qkv.weight[8:16], old.qkv.weight[[16 + place for place in positions]])
        best = [sorted((32 + 4 * head + rows.topk(2).indices).tolist()) for head, rows in enumerate(values)]
        assert torch.equal(new.qkv.weight[16:], old.qkv.weight[[place for head in best for place in head]])


def test_bad_settings_are_refused(nets):
    model = nets.build("mnist_cnn", quantised=False)
    for sparsity in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"from 0 to below 1; got {sparsity}"):
            mask_smallest(model, sparsity)
    for keep in (0, 1.5):
        with pytest.raises(ValueError, match=f"above 0 and up to 1; got {keep}"):
            cut_channels(model, keep)
    with pytest.raises(ValueError, match="call mask_smallest first"):
        unmask(model)
    with pytest.raises(ValueError, match=r"Linear has no chain\(\)"):
        cut_channels(torch.nn.Linear(2, 2), 0.5)
    assert cut_channels(model, 0.01)["conv1"].shape == (1,)
