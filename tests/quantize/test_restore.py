"""When bits are given back, to whom, how many, and what follows from it."""

from __future__ import annotations

import math

import pytest
import torch

from efflib.quantize import (
    DeadChannels,
    Event,
    Restoration,
    Restorer,
    bit_gradients,
    mean_bits,
    quantized_layers,
    remove_dead,
)


def set_bits(model, values):
    """values: {layer: {channel: bits}}."""
    with torch.no_grad():
        for name, channels in values.items():
            for channel, bits in channels.items():
                quantized_layers(model)[name].bits[channel] = bits


def flat(model, name):
    return quantized_layers(model)[name].bits.flatten().tolist()


def even(model):
    """Slopes of 1 for every channel."""
    return {name: torch.ones(len(layer.bits)) for name, layer in quantized_layers(model).items()}


# --- the trigger ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "scores", "violations"),
    [
        ({}, [90, 95, 94.0, 93.9, 94.5, 96, 94.9], [3, 6]),
        ({"trigger": "previous"}, [90, 95, 94.0, 93.9, 92.8, 96, 94.9], [4, 6]),
        ({"higher_is_better": False, "tolerance": 0.05}, [2.0, 1.5, 1.54, 1.56, 1.4, 1.46], [3, 5]),
        ({"tolerance": 10, "trigger": "previous"}, [90, 80, 70, 59.9, 20], [3, 4]),
    ],
)
def test_violations(cnn, options, scores, violations):
    restorer = Restorer(cnn, Restoration(**options))
    found = []
    for step, score in enumerate(scores):
        if restorer.violated(score):
            found.append(step)
        restorer.check(step, score, sensitivity=lambda: even(cnn))
    assert found == violations and restorer.checks == len(scores)


def test_clean_checks_count_in_a_row(cnn):
    restorer = Restorer(cnn, Restoration())
    counts = []
    for score in (90, 91, 80, 91, 92):
        restorer.check(0, score, sensitivity=lambda: even(cnn))
        counts.append(restorer.clean)
    assert counts == [1, 2, 0, 1, 2] and restorer.best == 92


def test_a_violation_does_not_lower_what_is_expected(cnn):
    restorer = Restorer(cnn, Restoration())
    for score in (90, 50, 60):
        restorer.check(0, score, sensitivity=lambda: even(cnn))
    assert restorer.best == 90 and restorer.clean == 0


# --- what is restored -----------------------------------------------------------------------------------------


def test_snapshot_rule_by_hand(cnn):
    """10 living candidates give 1, 16 give 2; dead ones rank by their weights, living ones by (b_snap - b) slope."""
    restorer = Restorer(cnn, Restoration(share=0.125))
    restorer.check(0, 99.0)
    set_bits(cnn, {"conv3": {0: -0.1, 1: -0.2, 2: -0.1}, "conv4": dict.fromkeys(range(16), 3.5), "conv1": {0: 3.0}})
    with torch.no_grad():
        cnn.conv3.weight[0].fill_(0.1)
        cnn.conv3.weight[1].fill_(-0.3)
        cnn.conv3.weight[2].fill_(0.2)
    slopes = even(cnn)
    slopes["conv4"][[4, 9]] = torch.tensor([5.0, 7.0])
    events = restorer.check(100, 97.0, sensitivity=lambda: slopes)
    assert [(event.layer, event.channels) for event in events] == [("conv1", [0]), ("conv3", [1]), ("conv4", [4, 9])]
    assert flat(cnn, "conv1") == [4.0] * 8
    assert flat(cnn, "conv3")[:3] == pytest.approx([-0.1, 4.0, -0.1])
    assert flat(cnn, "conv4") == [4.0 if k in (4, 9) else 3.5 for k in range(16)]
    assert events[2] == Event(100, "conv4", [4, 9], [3.5, 3.5], [4.0, 4.0], 97.0)
    assert events[2].given_back == 1.0 and restorer.events == events


def test_the_distance_to_the_snapshot_counts_too(cnn):
    restorer = Restorer(cnn, Restoration())
    restorer.check(0, 99.0)
    set_bits(cnn, {"conv1": {0: 3.0, 1: 2.0, 2: 3.5}})
    slopes = even(cnn)
    slopes["conv1"][:3] = torch.tensor([3.0, 1.0, 5.0])  # 3, 2 and 2.5
    assert restorer.check(1, 90.0, sensitivity=lambda: slopes)[0].channels == [0]


def test_a_channel_that_was_dead_at_the_snapshot_gets_two_bits(cnn):
    set_bits(cnn, {"conv1": {3: -0.01}})
    restorer = Restorer(cnn, Restoration())
    restorer.check(0, 99.0)
    restorer.check(1, 90.0, sensitivity=lambda: even(cnn))
    assert flat(cnn, "conv1")[3] == 2.0


def test_the_snapshot_follows_clean_checks_only(cnn):
    restorer = Restorer(cnn, Restoration(share=1.0))
    for step, (bits, score) in enumerate([(3.5, 99.0), (3.0, 99.0), (1.7, 95.0), (1.6, 95.0)]):
        set_bits(cnn, {"conv2": {0: bits}})
        restorer.check(step, score, sensitivity=lambda: even(cnn))
    assert flat(cnn, "conv2")[0] == 3.0 and restorer.snapshot["conv2"][0] == 3.0


def test_channels_without_codes_count_as_dead(cnn):
    counter = DeadChannels(cnn, patience=2)
    restorer = Restorer(cnn, Restoration(), counter)
    restorer.check(0, 99.0)
    with torch.no_grad():
        cnn.conv2.weight[6].mul_(1e-3)
    set_bits(cnn, {"conv2": {6: 1.5}})
    counter.step(), counter.step()
    events = restorer.check(1, 90.0, sensitivity=lambda: even(cnn))
    assert events[0].channels == [6] and events[0].after == [4.0]
    assert not counter.dead()["conv2"].any()


def test_two_bits_by_chance_as_the_code_does(nets):
    rule = Restoration(mode="two_bits", pick="random", rounding="down", limit=None, exempt=False)
    found = set()
    for seed in range(12):
        model = nets.build("mnist_cnn")
        restorer = Restorer(model, rule, seed=seed)
        restorer.check(0, 99.0)
        set_bits(
            model, {"conv3": dict.fromkeys(range(12), -0.1), "conv4": dict.fromkeys(range(9), -0.1), "conv1": {0: 1.0}}
        )
        events = restorer.check(1, 90.0)  # no ranking, so no slopes are needed
        assert [(event.layer, event.after) for event in events] == [("conv3", [2.0])]  # int(1.2) = 1, int(0.9) = 0
        assert flat(model, "conv1")[0] == 1.0  # living channels get nothing
        assert not restorer.exempt
        found.add(events[0].channels[0])
    assert len(found) > 3


def test_original_gives_the_bits_of_the_start(cnn):
    restorer = Restorer(cnn, Restoration(mode="original", share=1.0))
    set_bits(cnn, {"conv1": {0: 3.0, 1: 3.0}})
    restorer.check(0, 99.0)
    set_bits(cnn, {"conv1": {0: 2.5, 2: -0.1}})
    restorer.check(1, 90.0, sensitivity=lambda: even(cnn))
    assert flat(cnn, "conv1")[:4] == [4.0, 3.0, 4.0, 4.0]  # channel 1 is where the snapshot has it: unaffected


def test_only_some_layers(decoder):
    restorer = Restorer(decoder, Restoration(only=("qkv",), share=1.0))
    restorer.check(0, 99.0)
    set_bits(decoder, {"blocks.1.qkv": {3: 1.0}, "blocks.1.ff1": {3: 1.0}})
    events = restorer.check(1, 90.0, sensitivity=lambda: even(decoder))
    assert [event.layer for event in events] == ["blocks.1.qkv"]


def test_at_most_three_times_per_channel(cnn):
    restorer = Restorer(cnn, Restoration())
    restorer.check(0, 99.0)
    for step in range(1, 6):
        set_bits(cnn, {"conv1": {2: 1.0}})
        events = restorer.check(step, 90.0, sensitivity=lambda: even(cnn))
        assert bool(events) == (step <= 3)
    assert flat(cnn, "conv1")[2] == 1.0
    summary = restorer.summary()
    assert summary == {"checks": 6, "violations_restored": 3, "channels": 3, "mean_bits_given_back": 3.0}


def test_no_restoration_is_a_result_too(cnn):
    restorer = Restorer(cnn, Restoration())
    restorer.check(0, 99.0)
    assert restorer.check(1, 90.0, sensitivity=lambda: even(cnn)) == []  # nothing has fewer bits than it had
    assert restorer.summary() == {"checks": 2, "violations_restored": 0, "channels": 0, "mean_bits_given_back": 0.0}


def test_counts_round_up_or_down():
    assert [Restoration().count(n) for n in (0, 1, 10, 11, 30)] == [0, 1, 1, 2, 3]
    assert [Restoration(rounding="down").count(n) for n in (0, 9, 10, 19, 30)] == [0, 0, 1, 1, 3]


# --- what follows ---------------------------------------------------------------------------------------------


def test_moments_of_restored_bits_are_zero_and_only_theirs(nets, cnn):
    optimiser = torch.optim.Adam(cnn.parameters(), lr=0.05)
    restorer = Restorer(cnn, Restoration())
    restorer.check(0, 99.0)
    for _ in range(5):
        optimiser.zero_grad()
        mean_bits(cnn).backward()
        optimiser.step()
    before = optimiser.state[cnn.conv1.bits]["exp_avg"].clone()
    event = restorer.check(1, 90.0, optimiser, lambda: even(cnn))[0]
    restored = torch.isin(torch.arange(8), torch.tensor(event.channels))
    assert event.layer == "conv1" and restored.sum() == 1
    for moment in ("exp_avg", "exp_avg_sq"):
        values = optimiser.state[cnn.conv1.bits][moment].flatten()
        assert not values[restored].any() and values[~restored].all()
    assert torch.equal(optimiser.state[cnn.conv1.bits]["exp_avg"][~restored], before[~restored])
    assert optimiser.state[cnn.conv1.bits]["step"] == 5


def test_restored_channels_are_free_of_the_penalty_until_the_next_check(cnn):
    optimiser = torch.optim.Adam([layer.bits for layer in quantized_layers(cnn).values()], lr=0.1)
    restorer = Restorer(cnn, Restoration())
    restorer.check(0, 99.0)
    set_bits(cnn, {"conv1": {2: 1.0}})
    restorer.check(1, 90.0, optimiser, lambda: even(cnn))
    mean_bits(cnn, exempt=restorer.exempt).backward()
    optimiser.step()
    assert flat(cnn, "conv1") == pytest.approx([4.0 if k == 2 else 3.9 for k in range(8)])
    restorer.check(2, 99.0)
    assert restorer.exempt == {}


def test_the_log_tells_the_score_at_the_next_check(cnn):
    restorer = Restorer(cnn, Restoration())
    restorer.check(0, 99.0)
    for step, score in ((1, 90.0), (2, 94.0), (3, 98.5)):
        set_bits(cnn, {"conv1": {step: 1.0}})
        restorer.check(step, score, sensitivity=lambda: even(cnn))
    assert [(event.score, event.next_score) for event in restorer.events] == [(90.0, 94.0), (94.0, 98.5)]


def test_slopes_are_gradients_of_the_loss_and_touch_nothing(nets, cnn):
    set_bits(cnn, {"conv2": {1: 2.0, 2: 2.0}})
    found = bit_gradients(cnn, cnn(nets.inputs(cnn)).square().mean())
    assert all(parameter.grad is None for parameter in cnn.parameters())
    cnn(nets.inputs(cnn)).square().mean().backward()
    assert torch.allclose(found["conv2"], cnn.conv2.bits.grad.flatten().abs())
    assert found["conv2"][[1, 2]].all() and not found["conv4"].any()  # inside the clip there is no slope
    assert not bit_gradients(cnn, cnn.conv1.weight.sum())["conv2"].any()


def test_ranking_by_real_slopes_restores_a_clipped_channel(nets, cnn):
    restorer = Restorer(cnn, Restoration(only=("conv2",)))
    restorer.check(0, 99.0)
    set_bits(cnn, {"conv2": dict.fromkeys(range(8), 3.9)})
    set_bits(cnn, {"conv2": {5: 1.8}})
    x = nets.inputs(cnn)
    event = restorer.check(1, 90.0, sensitivity=lambda: bit_gradients(cnn, cnn(x).square().mean()))[0]
    assert event.channels == [5]


def test_removal_and_restoration_together(nets, cnn):
    optimiser = torch.optim.Adam(cnn.parameters())
    mean_bits(cnn).backward()
    optimiser.step()
    restorer = Restorer(cnn, Restoration())
    restorer.check(0, 99.0)
    nets.kill(cnn, {"conv1": [0, 1, 5]})
    restorer.shrink(remove_dead(cnn, optimiser=optimiser))
    set_bits(cnn, {"conv1": {2: 1.0}})
    event = restorer.check(1, 90.0, optimiser, lambda: even(cnn))[0]
    assert event.channels == [4]  # the third that was left
    assert len(restorer.times["conv1"]) == len(restorer.snapshot["conv1"]) == 5
    assert optimiser.state[cnn.conv1.bits]["exp_avg"].flatten().tolist()[2] == 0
    assert optimiser.state[cnn.conv1.bits]["exp_avg"].count_nonzero() == 4


def test_a_run_goes_on_from_its_state(nets):
    def run(model, restorer, steps):
        for step in steps:
            set_bits(model, {"conv3": dict.fromkeys(range(step, 16), -0.1)})
            restorer.check(step, 99.0 if step % 3 == 0 else 90.0)
        return restorer

    rule = Restoration(pick="random")
    whole = nets.build("mnist_cnn")
    expected = run(whole, Restorer(whole, rule, seed=5), range(8))
    model = nets.build("mnist_cnn")
    first = run(model, Restorer(model, rule, seed=5), range(4))
    second = Restorer(model, rule, seed=77)
    second.load_state_dict(first.state_dict())
    assert run(model, second, range(4, 8)).events == expected.events
    assert expected.events and second.summary() == expected.summary()
    assert torch.equal(model.conv3.bits, whole.conv3.bits)
    small = nets.kill(nets.build("mnist_cnn"), {"conv1": [0]})
    remove_dead(small)
    with pytest.raises(ValueError, match="match_structure first"):
        Restorer(small, rule).load_state_dict(first.state_dict())


def test_bad_rules_and_scores(cnn):
    for options, message in [
        ({"trigger": "worst"}, "unknown trigger: 'worst'.*best, previous"),
        ({"mode": "four_bits"}, "unknown mode"),
        ({"pick": "first"}, "unknown pick"),
        ({"rounding": "half"}, "unknown rounding"),
        ({"share": 0}, r"share .* \(0, 1\], got 0"),
        ({"tolerance": -1}, "tolerance 0 or more"),
        ({"every": 0}, "every must be 1 or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            Restoration(**options)
    restorer = Restorer(cnn, Restoration())
    with pytest.raises(ValueError, match="score at step 4 is NaN"):
        restorer.check(4, math.nan)
    restorer.check(5, 99.0)
    with pytest.raises(ValueError, match="needs sensitivity"):
        restorer.check(6, 9.0)
