"""The benchmarks measure what they say: statistics, rounds, CSV rows, and contestants that do the same work.

No test here compares wall-clock times.
"""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import efflib.kernels
from benchmarks import kernels, measure, packed, saliency, trainer
from efflib.models import create_model
from efflib.training import Batch, seeded

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
    options.model, options.teacher, options.images, options.batch_size, options.workers = "vgg8", None, 8, 8, 0
    options.precision, options.compile = "bf16", True
    assert list(trainer.contestants(options)) == [
        "plain loop",
        "efflib fp32 contiguous",
        "efflib fp32 channels_last",
        "efflib bf16 contiguous",
        "efflib bf16 channels_last",
        "efflib bf16 channels_last compiled",
    ]
    options.precision, options.compile = "fp32", False
    assert len(trainer.contestants(options)) == 3


def test_both_loops_distil_by_the_same_loss():
    student, teacher, data = small_model(), small_model(), trainer.synthetic(8)
    with torch.no_grad():
        teacher.eval()(torch.randn(8, 3, 32, 32))
        for parameter in teacher.parameters():
            parameter.mul_(1.5)
    images, labels = torch.randn(8, 3, 32, 32), torch.from_numpy(data.labels)
    ours = trainer._objective(student, teacher, CPU, torch.channels_last)
    terms = ours(student.eval(), Batch(images, labels, torch.arange(8), 0.0))
    plain = trainer.plain_loss(student(images), labels, images, teacher.eval())
    torch.testing.assert_close(sum(terms.values()), plain)
    assert plain > trainer.CE_WEIGHT * torch.nn.functional.cross_entropy(student(images), labels)


def test_work_of_a_layer_by_hand():
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False))
    macs, read, written = 9 * 3 * 8 * 1024, 3 * 1024, 8 * 1024
    assert trainer.work_of(layer, trained=False) == (2 * macs, read + written)
    assert trainer.work_of(layer, trained=True) == (6 * macs, 3 * read + 2 * written)


def test_trainer_quick_prints_floors_and_ratios(results, capsys):
    trainer.main(["--quick", "--json", "--device", "cpu", "--images", "16", "--batch-size", "8", "--repeats", "1",
                  "--workers", "1", "--model", "resnet8x4", "--teacher", "resnet8x4",
                  "--precision", "fp32"])  # fmt: skip
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["unit"] for row in rows} == {"images/s", "times plain loop", "% of floor"} and not results.exists()
    assert all("teacher=resnet8x4" in row["setting"] for row in rows)


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
    output = kernels.operation(name)(*arguments)
    if name != "augment":  # draws its own crops
        torch.testing.assert_close(output, kernels.definition(name)(*arguments))
    expected = sum(value.numel() * value.element_size() for value in kernels.tensors([list(arguments), output]))
    assert kernels.traffic(arguments, output, backward=False) == expected
    assert case.backward == any(value.requires_grad for value in kernels.tensors(differentiated(name, arguments)))


def differentiated(name, arguments):
    """Outputs for inputs that ask for gradients; an operation on pixels has none, a mask is made without."""
    if name in ("augment", "mask_least_salient"):
        return ()
    return kernels.operation(name)(*(kernels.differentiable(value) for value in arguments))


def test_every_operation_of_the_library_is_timed():
    assert sorted(kernels.CASES) == sorted(efflib.kernels.__all__)


def test_the_floor_is_the_longer_of_bytes_and_products():
    samples = {kernels.COPY: [2.0, 3.0], kernels.MATMUL: [10.0, 10.0]}
    assert kernels._floors(samples, copies=2, products=0.5) == [5.0, 6.0]
    assert kernels._floors({kernels.COPY: [2.0]}, copies=2, products=9) == [4.0]


def test_traffic_of_both_passes():
    a, b, output = torch.zeros(10, requires_grad=True), torch.zeros(10), torch.zeros(4)
    assert kernels.traffic((a, b, 0.5), output, backward=True) == 4 * (20 + 4 + 20 + 4 + 10)


def test_kernels_quick_prints_json_and_writes_nothing(results, capsys):
    kernels.main(["--quick", "--json", "--device", "cpu"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["quick"] is True and not results.exists()
    settings = {row["setting"].split(" images")[0] for row in printed["rows"]}
    both = {f"{name} forward+backward" for name, case in kernels.CASES.items() if case.backward}
    assert settings == both | {f"{name} forward" for name in kernels.CASES}
    for row in printed["rows"]:
        assert set(row) == set(measure.COLUMNS) and row["low"] <= row["median"] <= row["high"]
    assert {row["unit"] for row in printed["rows"]} == {"us", "GB/s", "% of floor", "GFLOP/s"}


def test_saliency_quick_prints_a_table(results, capsys):
    saliency.main(["--quick", "--images", "3", "--repeats", "1", "--device", "cpu"])
    text = capsys.readouterr().out
    assert "model=resnet20 images=3" in text and "captum, image by image" in text and "s/1000 images" in text
    assert not results.exists()


# packed, compiled


def test_packed_trains_every_seed_in_a_process_of_its_own():
    options = packed.measure.parser("packed", "x", 1).parse_args(["--device", "cpu"])
    options.seeds, options.model, options.teacher, options.precision = 2, "resnet8x4", None, "fp32"
    options.images, options.batch_size = 8, 8
    with packed.workers(options) as pipes:
        ways = packed.contestants(pipes)
        losses = ways[packed.TOGETHER]() + ways[packed.IN_TURN]()
    assert len(losses) == 4 and all(math.isfinite(loss) for loss in losses)
    assert losses[0] == losses[1] != losses[2] == losses[3]  # same weights and order, an epoch each, then another


def test_every_kernel_compiles_for_a_hopper_gpu_without_spilling():
    """In a process of its own: in this one the kernels are interpreted."""
    pytest.importorskip("triton")
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.compiled", "--json"]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True)
    rows = json.loads(done.stdout)["rows"]
    assert {row["setting"].split()[0] for row in rows} == set(kernels.CASES)
    assert [row["contestant"] for row in rows if row["unit"] == "bytes of stack" and row["median"] > 0] == []
    assert all(0 < row["median"] <= 255 for row in rows if row["unit"] == "registers")
