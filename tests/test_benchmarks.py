"""The benchmarks measure what they say: statistics, rounds, CSV rows, and contestants that do the same work.

No test here compares wall-clock times.
"""

from __future__ import annotations

import csv
import json
import math
from importlib import metadata

import pytest
import torch

from benchmarks import kernels, measure, saliency, trainer
from efflib.models import create_model
from efflib.training import seeded

CPU = torch.device("cpu")


class FakeMachine:
    """A clock that moves only when a contestant works; it notes who worked, in order."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def clock(self):
        return self.now

    def work(self, name, seconds):
        def run():
            self.order.append(name)
            self.now += seconds

        return run


def options(*arguments):
    return measure.parse(measure.parser("toy", "A toy.", 3), [*arguments, "--device", "cpu"])


def toy_row(value=1.0):
    return measure.row(measure.environment(CPU), "ours", "n=1", "s", [value])


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


# measure.py


def test_rounds_alternate_and_the_warm_up_is_left_out():
    machine = FakeMachine()
    ways = {"a": machine.work("a", 2.0), "b": machine.work("b", 3.0), "c": machine.work("c", 5.0)}
    samples = measure.measure(ways, repeats=4, warmup=1, clock=machine.clock)
    assert samples == {"a": [2.0] * 4, "b": [3.0] * 4, "c": [5.0] * 4}
    rounds = ["".join(machine.order[start : start + 3]) for start in range(0, 15, 3)]
    assert rounds == ["cab", "abc", "bca", "cab", "abc"]  # the first is the warm-up


COSTS = (("plain", 8.0), ("ours", 2.0))


def test_drift_hits_all_alike_and_cancels_in_ratios():
    machine = FakeMachine()
    speed = iter(torch.logspace(0, 3, 10, dtype=torch.float64).repeat_interleave(2).tolist())
    slowing = {name: lambda name=name, cost=cost: machine.work(name, cost * next(speed))() for name, cost in COSTS}
    samples = measure.measure(slowing, repeats=10, warmup=0, clock=machine.clock)
    assert measure.per_round(samples, "plain") == {"ours": pytest.approx([4.0] * 10)}


def test_calls_at_a_stretch_are_divided_out():
    machine = FakeMachine()
    samples = measure.measure({"a": machine.work("a", 0.5)}, 2, 0, calls={"a": 7}, clock=machine.clock)
    assert samples == {"a": [0.5, 0.5]}
    assert len(machine.order) == 14


@pytest.mark.parametrize(("ways", "repeats", "warmup"), [({}, 1, 0), ({"a": int}, 0, 0), ({"a": int}, 1, -1)])
def test_nothing_to_measure_is_an_error(ways, repeats, warmup):
    with pytest.raises(ValueError, match="at least one contestant"):
        measure.measure(ways, repeats, warmup)


def test_summary_of_known_numbers():
    assert measure.summary([30, 10, 0, 20, 40, 50, 60, 70, 80, 90, 100]) == (50, 10, 90)
    assert measure.summary([7.0]) == (7.0, 7.0, 7.0)
    assert measure.summary([1.0, 2.0]) == pytest.approx((1.5, 1.1, 1.9))


def test_enough_calls_of_a_slow_work_is_one():
    machine = FakeMachine()
    assert measure.enough_calls(machine.work("a", 0.0), "cpu", seconds=0.0) == 1
    assert machine.order == ["a", "a"]


def test_a_row_says_where_it_was_measured():
    place = measure.environment(CPU, ("captum", "no-such-distribution"))
    found = measure.row(place, "ours", "n=1", "s", [1.23456789, 3.0, 2.0])
    assert set(found) == set(measure.COLUMNS)
    assert (found["median"], found["low"], found["high"], found["repeats"]) == (2.0, 1.38765, 2.8, 3)
    assert (found["device_type"], found["threads"]) == ("cpu", torch.get_num_threads())
    assert found["driver"] is None and found["cuda"] is None
    versions = dict(entry.split(" ") for entry in found["versions"].split("; "))
    assert versions["torch"] == metadata.version("torch") and versions["captum"] == metadata.version("captum")
    assert versions["no-such-distribution"] == "absent"


def test_csv_gets_its_header_once_and_keeps_old_rows(tmp_path):
    path = tmp_path / "new" / "toy.csv"
    measure.append_csv(path, [toy_row(1.0), toy_row(2.0)])
    first = path.read_bytes()
    measure.append_csv(path, [toy_row(3.0)])
    assert path.read_bytes().startswith(first)
    assert path.read_text().count("contestant,setting") == 1
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(row["median"]) for row in read] == [1.0, 2.0, 3.0]
    assert tuple(read[0]) == measure.COLUMNS


def test_csv_refuses_other_columns(tmp_path):
    path = tmp_path / "toy.csv"
    path.write_text("date,speed\n")
    with pytest.raises(ValueError, match="move the file away"):
        measure.append_csv(path, [toy_row()])
    with pytest.raises(ValueError, match=r"differs in .*colour"):
        measure.append_csv(tmp_path / "other.csv", [toy_row() | {"colour": "red"}])
    assert path.read_text() == "date,speed\n" and not (tmp_path / "other.csv").exists()


def test_only_record_writes(results, capsys):
    measure.report("toy", [toy_row()], options())
    measure.report("toy", [toy_row()], options("--quick"))
    assert not results.exists()
    measure.report("toy", [toy_row()], options("--record"))
    assert [path.name for path in results.iterdir()] == ["toy.csv"]
    assert "the times mean nothing" in capsys.readouterr().out


def test_quick_is_never_recorded(results, capsys):
    with pytest.raises(SystemExit):
        options("--quick", "--record")
    assert "leave out one of the two" in capsys.readouterr().err
    forced = options("--quick")
    forced.record = True
    measure.report("toy", [toy_row()], forced)
    assert not results.exists()


def test_quick_changes_defaults_only():
    parser = measure.parser("toy", "A toy.", 5)
    assert measure.parse(parser, ["--quick", "--repeats", "5"], repeats=2).repeats == 5
    assert measure.parse(parser, ["--quick"], repeats=2).repeats == 2


@pytest.mark.parametrize("arguments", [["--repeats", "0"], ["--repeats", "few"], ["--device", "warp"]])
def test_bad_options_are_named(arguments, capsys):
    with pytest.raises(SystemExit):
        measure.parse(measure.parser("toy", "A toy.", 3), arguments)
    assert f"argument {arguments[0]}" in capsys.readouterr().err


# trainer


def small_model():
    with seeded(0):
        return create_model("vgg8", trainer.CLASSES, width=0.125)


LOOPS = {
    "plain": lambda model, data: trainer.plain_loop(model, data, 8, 0, CPU),
    "fp32": lambda model, data: trainer.our_loop(model, data, 8, CPU, "fp32"),
    "contiguous": lambda model, data: trainer.our_loop(model, data, 8, CPU, "fp32", "contiguous"),
    "bf16": lambda model, data: trainer.our_loop(model, data, 8, CPU, "bf16"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_every_loop_trains_on_the_same_number_of_images(name):
    model, data, seen = small_model(), trainer.synthetic(20), []
    epoch = LOOPS[name](model, data)
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    autotuner = torch.backends.cudnn.benchmark
    losses = [epoch(), epoch()]
    assert torch.backends.cudnn.benchmark == autotuner
    assert [len(images) for images in seen] == [8, 8, 4] * 2
    assert {tuple(images.shape[1:]) for images in seen} == {(3, 32, 32)}
    assert all(math.isfinite(loss) for loss in losses)
    assert all(not torch.equal(before, after) for before, after in zip(start, model.parameters()))
    assert not torch.equal(seen[0], seen[3])  # another order in the second epoch


def test_both_loops_feed_images_of_the_same_range():
    data, seen = trainer.synthetic(64), {}
    for name in ("plain", "fp32"):
        model = small_model()
        model.register_forward_pre_hook(
            lambda module, inputs, name=name: (
                seen.setdefault(name, []).append(inputs[0].clone()) if module.training else None
            )
        )
        LOOPS[name](model, data)()
    plain, ours = torch.cat(seen["plain"]), torch.cat(seen["fp32"])
    torch.testing.assert_close(plain.amin((0, 2, 3)), ours.amin((0, 2, 3)))
    torch.testing.assert_close(plain.amax((0, 2, 3)), ours.amax((0, 2, 3)))
    assert (plain.mean() - ours.mean()).abs() < 0.1


@pytest.mark.parametrize("layout", trainer.LAYOUTS)
def test_the_layout_reaches_weights_and_images(layout):
    model, strides = small_model(), []
    memory = trainer.LAYOUTS[layout]
    epoch = trainer.our_loop(model, trainer.synthetic(16), 8, CPU, "fp32", layout)
    model.register_forward_pre_hook(
        lambda module, inputs: (
            strides.append(inputs[0].is_contiguous(memory_format=memory)) if module.training else None
        )
    )
    epoch()
    assert strides == [True, True]
    weights = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    assert all(weight.is_contiguous(memory_format=memory) for weight in weights)


def test_contestants_are_the_plain_loop_and_the_ablations():
    parser = measure.parser("trainer", "x", 1)
    options = parser.parse_args(["--device", "cpu"])
    options.model, options.images, options.batch_size, options.workers = "vgg8", 8, 8, 0
    options.precision = "bf16"
    assert list(trainer.contestants(options)) == [
        "plain loop",
        "efflib fp32 contiguous",
        "efflib fp32 channels_last",
        "efflib bf16 contiguous",
        "efflib bf16 channels_last",
    ]
    options.precision = "fp32"
    assert len(trainer.contestants(options)) == 3


# saliency


@pytest.mark.parametrize("name", ["resnet20", "vgg8"])
def test_our_saliency_is_captums(name):
    model, data = saliency.network(name, CPU), trainer.synthetic(3)
    assert saliency.check_equal(model, data, CPU, size=2) < 1e-10
    assert next(model.parameters()).dtype == torch.float32 and not model.training


def test_another_quantity_is_refused(monkeypatch):
    model, data = saliency.network("resnet20", CPU), trainer.synthetic(2)
    right = saliency.our_maps
    monkeypatch.setattr(saliency, "our_maps", lambda *arguments: right(*arguments) * 1.001)
    with pytest.raises(ValueError, match="timing stopped"):
        saliency.check_equal(model, data, CPU)


def test_all_ways_mask_every_image():
    model, data = saliency.network("resnet20", CPU), trainer.synthetic(5)
    ways = saliency.contestants(model, data, 2, CPU)
    kept = 1024 - int(saliency.RATIO * 1024 + 0.5)
    for name in (saliency.OURS, saliency.CAPTUM, saliency.CAPTUM_BATCHED):
        masks = ways[name]()
        assert masks.shape == (5, 32, 32) and masks.flatten(1).sum(1).tolist() == [kept] * 5
    assert ways[saliency.FLOOR]().shape == (5,)


# kernels


@pytest.mark.parametrize("name", kernels.CASES)
def test_operation_and_definition_get_arguments_they_accept(name):
    case = kernels.CASES[name]
    arguments = case.arguments(3, CPU)
    if case.definition is not case.operation:
        torch.testing.assert_close(case.operation(*arguments), case.definition(*arguments))
    output = case.operation(*arguments)
    assert len(output) == 3
    tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
    expected = sum(value.numel() * value.element_size() for value in [*tensors, output])
    assert kernels.traffic(arguments, output, backward=False) == expected


def test_traffic_of_both_passes():
    a, b, output = torch.zeros(10, requires_grad=True), torch.zeros(10), torch.zeros(4)
    assert kernels.traffic((a, b, 0.5), output, backward=True) == 4 * (20 + 4 + 20 + 4 + 10)


def test_kernels_quick_prints_json_and_writes_nothing(results, capsys):
    kernels.main(["--quick", "--json", "--device", "cpu"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["quick"] is True and not results.exists()
    settings = {row["setting"].split(" images")[0] for row in printed["rows"]}
    assert settings == {
        "augment forward",
        "mask_least_salient forward",
        "gradcam_map forward",
        "gradcam_map forward+backward",
    }
    for row in printed["rows"]:
        assert set(row) == set(measure.COLUMNS) and row["low"] <= row["median"] <= row["high"]
    assert {row["unit"] for row in printed["rows"]} == {"us", "GB/s", "% of copy"}


def test_saliency_quick_prints_a_table(results, capsys):
    saliency.main(["--quick", "--images", "3", "--repeats", "1", "--device", "cpu"])
    text = capsys.readouterr().out
    assert "model=resnet20 images=3" in text and "captum, image by image" in text and "s/1000 images" in text
    assert not results.exists()
