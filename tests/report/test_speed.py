"""The benchmark page: drawn from CSV rows alone, newest first, losses and gaps included."""

from __future__ import annotations

import pytest
import torch

from benchmarks import measure
from efflib.report.speed import BENCHMARKS, latest, read, speed_markdown

PLACE = measure.environment(torch.device("cpu")) | {"device": "toy cpu", "date": "2026-01-02T00:00:00+00:00"}
KERNEL = "toy_loss forward images=64 bytes=1000 flops=0"


def rows(setting, *values, **place):
    """(contestant, unit, median) -> rows of one measurement."""
    return [measure.row(PLACE | place, name, setting, unit, [value]) for name, unit, value in values]


@pytest.fixture
def folder(tmp_path):
    def write(name, made):
        measure.append_csv(tmp_path / f"{name}.csv", made)
        return tmp_path

    return write


def test_an_empty_folder_says_that_nothing_was_recorded(tmp_path):
    text = speed_markdown(tmp_path)
    assert text.count("Nothing has been recorded") == len(BENCHMARKS)
    assert "No kernel has been compiled" in text and "<table" not in text


def test_contestants_stand_in_one_table_and_a_loss_is_shown(folder):
    place = folder(
        "trainer",
        rows("model=a", ("plain loop", "images/s", 200.0), ("efflib", "images/s", 150.0),
             ("efflib", "times plain loop", 0.75)),
    )  # fmt: skip
    text = speed_markdown(place)
    assert "<caption>toy cpu: model a</caption>" in text
    assert "<td>efflib</td><td>150 (150 to 150)</td><td>0.75 (0.75 to 0.75)</td>" in text
    assert "No GPU row has been recorded: `python -m benchmarks.trainer --record`" in text


def test_a_floor_stands_beside_the_loops_that_it_bounds(folder):
    work = "flops=5e+08 bytes=8.4e+06 per image"
    made = rows("model=a teacher=b", ("efflib bf16", "images/s", 150.0))
    made += rows(f"model=a teacher=b {work}", ("floor bf16", "images/s", 300.0), ("efflib bf16", "% of floor", 50.0))
    text = speed_markdown(folder("trainer", made))
    assert text.count("<table") == 1 and "<caption>toy cpu: model a, teacher b</caption>" in text
    assert "<td>efflib bf16</td><td>150 (150 to 150)</td><td>50 (50 to 50)</td>" in text
    assert "<td>floor bf16</td><td>300 (300 to 300)</td><td></td>" in text
    assert "floor bf16: 500 MFLOP and 8.4 MB per image" in text


def test_a_gpu_row_ends_the_complaint(folder):
    made = rows("model=a", ("efflib", "images/s", 1.0), device="a GPU", device_type="cuda")
    assert "No GPU row" not in speed_markdown(folder("trainer", made))


def test_the_newest_measurement_of_a_setting_counts(folder):
    old = rows("model=a", ("efflib", "images/s", 1.0))
    new = rows("model=a", ("efflib", "images/s", 2.0), date="2026-02-01T00:00:00+00:00")
    other = rows("model=b", ("efflib", "images/s", 3.0))
    place = folder("trainer", new + old + other)
    assert [row["median"] for row in latest(read(place / "trainer.csv"))] == ["2.0", "3.0"]


def test_an_operation_is_held_against_its_floor_and_the_best_of_the_others(folder):
    made = rows(
        KERNEL, ("floor", "us", 5.0), ("efflib", "us", 10.0), ("efflib", "% of floor", 50.0),
        ("definition", "us", 40.0), ("torch.compile", "us", 8.0), ("copy", "us", 9.0),
    )  # fmt: skip
    text = speed_markdown(folder("kernels", made))
    cells = ["toy_loss", "forward", "64", "1000", "0", "5.00", "10.00", "50.00", "40.00", "8.00", "", "0.8"]
    assert "".join(f"<td>{cell}</td>" for cell in cells) in text  # 0.8: torch.compile was faster


def test_an_operation_without_rivals_has_no_ratio(folder):
    made = rows(KERNEL, ("floor", "us", 5.0), ("efflib", "us", 10.0), ("efflib", "% of floor", 50.0))
    assert "<td>50.00</td><td></td><td></td><td></td><td></td></tr>" in speed_markdown(folder("kernels", made))


def test_resources_of_compiled_kernels(folder):
    made = rows("toy_loss warps=4", ("forward", "registers", 40), ("forward", "bytes of stack", 0))
    text = speed_markdown(folder("compiled", made))
    assert "<caption>Triton kernels: toy cpu</caption>" in text
    assert "<tr><td>toy_loss</td><td>forward</td><td>40</td><td>0</td>" in text
