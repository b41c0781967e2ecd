"""Rate and augmentation: what can be chosen, what the table of teachers shows, and when a rate counts as enough."""

from __future__ import annotations

from typing import Any

import pytest
from made_records import recorded
from shown import rows_of

from efflib.papers.diswot import arms, rates
from efflib.papers.diswot.tables import tables
from efflib.trials import Store


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFLIB_RESULTS", str(tmp_path))
    return Store(tmp_path)


def teacher(scale: str, seed: int, lr: float | None, held: list[float]) -> Any:
    trial = arms.alone(scale, arms.SIZES[scale].teacher, seed, arms.How(lr=lr))
    return recorded(trial, {"curves": {"validation": held, "test": [each - 1 for each in held]}, "followed": {}})


def test_teachers_at_each_rate_and_whether_all_of_them_are_good_enough(store):
    for seed, (slow, fast) in enumerate([(80.0, 97.0), (82.0, 96.0)]):
        store.save(teacher("tiny", seed, 1e-4, [50.0, slow]))
        store.save(teacher("tiny", seed, None, [60.0, fast]))
    slow, fast = rows_of(rates.rates_table())
    assert (slow["scale"], slow["rate"], fast["rate"]) == ("tiny", "0.0001", "0.001, used")
    assert slow["held-out images"].startswith("81.00 ±") and fast["held-out images"].startswith("96.50 ±")
    assert slow["test images"].startswith("80.00 ±") and slow["epochs"] == "2"
    assert (slow["above 95 %"], fast["above 95 %"]) == ("no", "yes")
    store.save(teacher("tiny", 2, None, [60.0, 94.9]))  # one of them is not
    assert rows_of(rates.rates_table())[1]["above 95 %"] == "no"


def test_without_a_teacher_there_is_a_sentence(store):
    assert "No teacher that holds training images out is recorded yet." in rates.rates_table().data
    store.save(teacher("paper", 0, None, []))  # paper scale holds nothing out: no choice can be made there
    assert "No teacher that holds training images out" in rates.rates_table().data


@pytest.mark.parametrize("name", ["table3_3", "table3_4", "table3_5", "table3_6", "table3_7", "table3_8"])
@pytest.mark.parametrize(
    ("choice", "field", "usual", "other"),
    [("rates", "lr", 1e-3, 1e-4), ("augmentations", "augment", "flip_affine", "flip_affine_wide")],
)
def test_every_table_takes_a_rate_and_an_augmentation(name, choice, field, usual, other):
    def values(**choices: Any) -> tuple[set[Any], set[Any]]:
        trials: list[Any] = [trial for _, _, trial in tables[name].entries("tiny", [0], **choices)]
        trained = [trial for trial in trials if trial.recipe in ("baseline", "distill")]
        teachers = [trial.parents["teacher"] for trial in trained if trial.parents]
        return tuple({getattr(each.settings.training, field) for each in group} for group in (trained, teachers))

    assert values() == ({usual}, {usual})
    assert values(**{choice: other}) == ({other}, {other})
    with pytest.raises(ValueError, match="comparable, choose one"):
        list(tables[name].entries("tiny", [0], **{choice: [usual, other]}))


def test_the_thesiss_rate_where_it_is_not_too_slow():
    assert {scale: size.lr for scale, size in arms.SIZES.items() if scale != "smoke"} == {
        "tiny": 1e-3, "small": 1e-4, "paper": 1e-4,
    }  # fmt: skip
