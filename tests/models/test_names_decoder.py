"""The safety paper's decoder: counts of section 3.2 of its spec, the definition, what it may see, errors."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from efflib.data import embedded_names
from efflib.data.names import windows
from efflib.models import count_parameters, create_model, features
from efflib.models.names_decoder import causal_attention, macs_per_token
from efflib.papers.safety.tasks import draw_windows


def network(classes: int = 27, **options) -> nn.Module:
    torch.manual_seed(0)
    return create_model("names_decoder", classes, **options)


def tokens(batch: int = 3, length: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randint(27, (batch, length), generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module) -> nn.Module:
    """Biases and norms of a trained network, so that a forgotten one shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.normal_(0.5, 0.5, generator=torch.Generator().manual_seed(len(name)))
    return model


def test_counts_of_the_spec():
    model = network()
    assert count_parameters(model) == 204_827
    weights = {name: model.get_submodule(name).weight for name in model.quantizable}
    assert sum(weight.numel() for weight in weights.values()) == 198_336
    assert sum(len(weight) for weight in weights.values()) == 2_331
    parts = {part: sum(w.numel() for n, w in weights.items() if n.endswith(part)) for part in ("qkv", "proj", "head")}
    assert parts == {"qkv": 49_152, "proj": 16_384, "head": 1_728}
    assert sum(w.numel() for n, w in weights.items() if n[-3:] in ("ff1", "ff2")) == 131_072
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 9 and sum(map(count_parameters, norms)) == 1_024 + 128
    assert (model.tokens.weight.numel(), model.positions.weight.numel()) == (1_728, 2_048)
    biases = sum(p.numel() for n, p in model.blocks.named_parameters() if n.endswith("bias") and "norm" not in n)
    assert biases == 256 + 1_280 and model.head.bias.numel() == 27


def test_layers_by_name_and_what_feeds_them():
    model = network()
    names = [f"blocks.{block}.{part}" for block in range(4) for part in ("qkv", "proj", "ff1", "ff2")]
    assert list(model.quantizable) == [*names, "head"]
    links = {name: (feeder, per) for name, feeder, per in model.chain()}
    assert list(links) == list(model.quantizable)
    assert links["blocks.2.proj"] == ("blocks.2.qkv", 1) and links["blocks.2.ff2"] == ("blocks.2.ff1", 1)
    assert {name for name, (feeder, _) in links.items() if feeder is None} == {
        "head", *(f"blocks.{block}.{part}" for block in range(4) for part in ("qkv", "ff1"))
    }  # fmt: skip
    shapes = [tuple(model.get_submodule(name).weight.shape) for name in names[:4]]
    assert shapes == [(192, 64), (64, 64), (256, 64), (64, 256)]
    assert model.blocks[0].qkv.bias is None


def test_the_last_rows_of_qkv_feed_proj():
    """The chain's convention: value row r is input r of proj."""
    model = network()
    block, inputs = model.blocks[1], []
    with torch.no_grad():
        block.qkv.weight[128 + 21] = 0
    block.proj.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    model(tokens())
    assert [column for column in range(64) if not inputs[0][..., column].any()] == [21]


def test_macs_of_the_spec():
    model = network()
    assert macs_per_token(model) == 214_720 and 32 * macs_per_token(model) == 6_871_040
    assert macs_per_token(model, 1) == 198_336 + 4 * 2 * 64
    block = model.blocks[0]
    block.head_rows = ((16, 16), (16, 16), (16, 16), (8, 24))  # the path without PyTorch's own attention
    block.qkv, block.proj = nn.Linear(64, 2 * 56 + 72, bias=False), nn.Linear(72, 64)
    with FlopCounterMode(display=False) as counter:
        block(torch.zeros(2, 32, 64))
    pairs = 32 * (3 * 32 + 32)
    assert counter.get_total_flops() == 2 * 64 * (184 * 64 + 72 * 64 + 2 * 256 * 64 + pairs)


def test_the_definition():
    """Head by head, position by position, in float64."""
    model, x = randomised(network().double()), tokens(2, 7)
    with torch.no_grad():
        h = model.tokens.weight[x] + model.positions.weight[:7]
        for block in model.blocks:
            normed = F.layer_norm(h, (64,), block.norm1.weight, block.norm1.bias)
            heads = []
            for head in range(4):
                q, k, v = (block.qkv.weight[64 * part + 16 * head :][:16] for part in range(3))
                scores = (normed @ q.T) @ (normed @ k.T).transpose(1, 2) / 8  # 64**-0.5, not 16**-0.5
                out = torch.zeros(2, 7, 16, dtype=torch.float64)
                for t in range(7):
                    share = scores[:, t, : t + 1].softmax(-1)
                    out[:, t] = (share[:, None] @ (normed @ v.T)[:, : t + 1])[:, 0]
                heads.append(out)
            h = h + torch.cat(heads, -1) @ block.proj.weight.T + block.proj.bias
            normed = F.layer_norm(h, (64,), block.norm2.weight, block.norm2.bias)
            hidden = F.relu(normed @ block.ff1.weight.T + block.ff1.bias)
            h = h + hidden @ block.ff2.weight.T + block.ff2.bias
        wanted = F.layer_norm(h, (64,), model.norm.weight, model.norm.bias) @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(model(x), wanted)


@pytest.mark.parametrize("ragged", [False, True])
def test_a_later_token_changes_no_earlier_logit(ragged):
    model, x = network().eval(), tokens()
    if ragged:
        drop_rows(model.blocks[0], [5], [40])
    before = model(x)
    assert before.shape == (3, 32, 27)
    for place in (0, 13, 31):
        changed = x.clone()
        changed[:, place] = (changed[:, place] + 1) % 27
        after = model(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert (after[:, place:] - before[:, place:]).abs().amax(-1).min() > 0
    torch.testing.assert_close(model(x[:, :9]), before[:, :9])


def drop_rows(block: nn.Module, pairs: list[int], values: list[int]) -> None:
    """Take rows out of a block: query-key pairs and values, by their number among 64."""
    keep = [row for row in range(64) if row not in pairs]
    kept_values = [row for row in range(64) if row not in values]
    rows = [*keep, *(64 + row for row in keep), *(128 + row for row in kept_values)]
    qkv, proj = block.qkv.weight.detach(), block.proj.weight.detach()
    block.head_rows = tuple(
        (sum(row // 16 == head for row in keep), sum(row // 16 == head for row in kept_values)) for head in range(4)
    )
    block.qkv.weight, block.proj.weight = nn.Parameter(qkv[rows]), nn.Parameter(proj[:, kept_values])


@pytest.mark.parametrize(
    ("pairs", "values"),
    [
        ([3, 4, 40], [0, 17, 63]),
        (list(range(16, 32)), []),  # a head without queries: the mean of the values so far
        ([], list(range(32, 48))),  # a head without values
        (list(range(64)), list(range(64))),  # no attention at all
        ([0, 16, 32, 48], [1, 17, 33, 49]),  # equal heads again
    ],
)
def test_removed_rows_count_as_zeros(pairs, values):
    model, x = network().double().eval(), tokens()
    block = model.blocks[2]
    with torch.no_grad():
        block.qkv.weight[pairs] = 0
        block.qkv.weight[[64 + row for row in pairs]] = 0
        block.qkv.weight[[128 + row for row in values]] = 0
    zeroed = model(x)
    drop_rows(block, pairs, values)
    torch.testing.assert_close(model(x), zeroed)
    model(x).sum().backward()
    assert block.score_factor == 64**-0.5


def test_attention_without_scores_averages_what_came_before():
    v = torch.randn(2, 5, 3, dtype=torch.float64)
    none = torch.zeros(2, 5, 0, dtype=torch.float64)
    means = v.cumsum(1) / torch.arange(1, 6)[:, None]
    torch.testing.assert_close(causal_attention(none, none, v, 0.125), means)


def test_initialisation():
    model = network()
    for name in model.quantizable:
        layer = model.get_submodule(name)
        bound = 1 / math.sqrt(layer.in_features)
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.bias is None or not layer.bias.any()
    for embedding in (model.tokens, model.positions):
        assert embedding.weight.std().item() == pytest.approx(1, abs=0.06) and abs(embedding.weight.mean()) < 0.08
    loss = F.cross_entropy(model(tokens(64)).flatten(0, 1), tokens(64, seed=1).flatten())
    assert loss.item() == pytest.approx(math.log(27), abs=0.25)


def test_options():
    half = network(width=0.5, context=8)
    assert half.blocks[0].qkv.weight.shape == (96, 32) and half.blocks[0].score_factor == 32**-0.5
    assert half(tokens(length=8)).shape == (3, 8, 27)
    assert network(5)(tokens() % 5).shape == (3, 32, 5)
    assert network(context=40)(tokens(length=40)).shape == (3, 40, 27)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network()(tokens(length=33)), "sees at most 32 tokens, got 33: .*context=33"),
        (lambda: network()(tokens() + 1), "tokens must be from 0 to 26, got 1 to 27"),
        (lambda: network()(tokens() - 1), "tokens must be from 0 to 26, got -1 to 25"),
        (lambda: network()(tokens().float()), r"int64 \(B, T\).* got torch.float32 \(3, 32\)"),
        (lambda: network()(tokens()[0]), r"int64 \(B, T\).* got torch.int64 \(32,\)"),
        (lambda: network()(tokens(length=0)), r"with at least one: got torch.int64 \(3, 0\)"),
        (lambda: network()(torch.zeros(1, 3, 32, 32)), r"got torch.float32 \(1, 3, 32, 32\)"),
        (lambda: network(context=0), "context must be a whole number of at least 1 token, got 0"),
        (lambda: network(context=8.0), "context must be a whole number"),
        (lambda: network(width=-1), "width must be a positive number"),
        (lambda: network(in_channels=1), "option of names_decoder: 'in_channels'.*Valid: width, context"),
    ],
)
def test_errors_say_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_it_has_no_feature_maps():
    with pytest.raises(TypeError, match="NamesDecoder has no features"):
        features(network(), torch.zeros(1, 1, 8, 8))


def test_it_learns_names():
    train, _, validation = embedded_names().split()
    inputs, targets = (torch.from_numpy(part) for part in windows(validation.tokens))
    model = network()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator, stream = torch.Generator().manual_seed(0), torch.from_numpy(train.tokens)
    for _ in range(80):
        x, y = draw_windows(stream, generator, 16, inputs.shape[1])
        optimiser.zero_grad()
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        optimiser.step()
    with torch.no_grad():
        loss = F.cross_entropy(model.eval()(inputs).flatten(0, 1), targets.flatten())
    assert loss < 2.75  # chance is 3.30, letter frequencies alone give 2.92
