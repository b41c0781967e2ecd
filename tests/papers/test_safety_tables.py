"""The safety paper's grids and claims: which trials repeat each table at each scale, and what decides a claim."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from efflib.papers.safety import arms, claims
from efflib.papers.safety.drift import sizes_after
from efflib.papers.safety.tables import CONTROLS, ROWS, SWEEP, tables
from efflib.quantize import GAMMAS, preset
from efflib.report.verdict import CONTRADICTED, NOT_RUN, SUPPORTED, UNDETERMINED, claim_verdict
from efflib.scales import SCALES
from efflib.trials import Trial

CNN, DECODER = arms.MODELS
COUNTS = {  # cells, and trials with one seed
    ("table1", "smoke"): (5, 6), ("table1", "tiny"): (9, 10), ("table1", "small"): (10, 11),
    ("table1", "paper"): (16, 17),
    ("table2", "smoke"): (5, 5), ("table2", "tiny"): (10, 10), ("table2", "small"): (10, 10),
    ("table2", "paper"): (16, 16),
}  # fmt: skip
MODEL_OF = {"table1": CNN, "table1_bytes": CNN, "table2": DECODER, "table2_bytes": DECODER}


pytestmark = pytest.mark.usefixtures("no_data")


def entries(name: str, scale: str, seeds: Any = 1, **choices: Any) -> list[tuple[dict[str, Any], int, Trial]]:
    return list(tables[name].entries(scale, seeds, **choices))


def column(name: str, scale: str, seed: int = 0) -> dict[Any, Trial]:
    """Method, or (method, gamma), -> trial."""
    found = entries(name, scale, [seed])
    return {(c["method"], c["gamma"]) if "gamma" in c else c["method"]: trial for c, _, trial in found}


# --- grids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scale"), COUNTS)
def test_sizes_of_the_grids(name, scale):
    cells, trials = COUNTS[name, scale]
    assert len(entries(name, scale)) == cells
    assert len(tables[name].trials(scale, 1)) == trials
    assert len(entries(name, scale, 3)) == 3 * cells
    assert len(tables[name].trials(scale, 3)) == 3 * trials, "no trial is shared between seeds"


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", tables)
def test_every_cell_has_its_trial(name, scale):
    found = entries(name, scale, 2)
    assert len({(tuple(cell.items()), seed) for cell, seed, _ in found}) == len(found)
    for cell, seed, trial in found:
        config = trial.config
        assert (config["model"], config["dataset"], config["seed"]) == (MODEL_OF[name], cell["dataset"], seed)
        kind = "float_twin" if cell["method"].startswith("float") else "self_compression"
        assert trial.recipe == kind
        if "gamma" in cell:
            assert (config["preset"], config["gamma"]) == ("default", cell["gamma"])
            assert cell["method"] in ("default_safe", "default_unsafe")
        elif kind == "self_compression":
            assert (config["preset"], config["gamma"]) == ("drift", 0.1)


@pytest.mark.parametrize("name", tables)
def test_the_paper_grid_holds_every_printed_cell(name):
    cells = [cell for cell, _, _ in entries(name, "paper")]
    assert all(printed.keys in cells for printed in tables[name].printed.numbers)


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_a_table_of_sizes_needs_no_further_run(name):
    for scale in SCALES:
        assert set(tables[f"{name}_bytes"].trials(scale, 2)) <= set(tables[name].trials(scale, 2))
    cells = [cell for cell, _, _ in entries(f"{name}_bytes", "paper")]
    assert [cell["method"] for cell in cells] == list(ROWS)
    assert tables[f"{name}_bytes"].page == name


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_controls_and_penalties_at_paper_scale(name):
    methods = list(column(name, "paper"))
    assert set(CONTROLS[MODEL_OF[name]]) <= set(methods)
    assert [m[1] for m in methods if m[0] == "default_safe"] == list(GAMMAS) == list(SWEEP["paper"])
    assert ("float_half" in methods) == (name == "table2")
    assert ("safe_leaking" in methods) == (name == "table1"), "the names have no test text of their own"


# --- settings of the trials -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "optimiser", "batch", "decay"), [("table1", "adam", 64, 0.0), ("table2", "adamw", 16, 0.01)]
)
def test_published_values_stand_in_the_trials(name, optimiser, batch, decay):
    settings: Any = column(name, "paper")["safe"].settings
    assert (settings.steps, settings.optimiser, settings.batch_size, settings.preserved) == (
        10_000,
        optimiser,
        batch,
        batch,
    )
    assert (settings.bits, settings.exponent, settings.gamma, settings.preservation_weight) == (32.0, -8.0, 0.1, 0.05)
    assert (settings.lr, settings.lr_bits, settings.lr_exponent, settings.eps_bits) == (1e-3, 1e-3, 1e-3, 1e-8)
    assert (settings.norm, settings.l1, settings.cosine_tail) == ("all_params", 0.0, 0.0)
    assert (settings.weight_decay, settings.decay, settings.model_options) == (decay, "all", {})
    assert (settings.protocol, settings.augment_preserved) == ("stream", name == "table1")


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_checks_come_every_hundred_steps_by_the_published_rule(name):
    for scale in SCALES:
        for key, trial in column(name, scale).items():
            rule = trial.config.get("restoration")
            if rule is not None:
                assert rule["every"] == arms.EVERY == 100, (scale, key)
    published = column(name, "paper")["safe"].config["restoration"]
    assert (published["trigger"], published["mode"], published["pick"]) == ("previous", "two_bits", "random")
    assert (published["rounding"], published["share"], published["exempt"]) == ("down", 0.1, False)
    assert published["tolerance"] == (10.0 if name == "table1" else 0.1)
    assert list(published["only"]) == ([] if name == "table1" else ["qkv"])
    own = column(name, "paper")["default_safe", 0.1].config["restoration"]
    assert (own["trigger"], own["mode"], own["pick"], own["tolerance"]) == (
        "best", "snapshot", "ranked", 1.0 if name == "table1" else 0.05,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_methods_differ_in_their_second_batch_alone(name):
    found = column(name, "paper")
    safe = found["safe"].config
    for method in ("unsafe", *CONTROLS[MODEL_OF[name]]):
        config = found[method].config
        changed = {key for key in safe | config if safe.get(key) != config.get(key)}
        assert "preserve" in changed and changed <= {"preserve", "preservation_weight", "restoration"}, method
        assert config["preserve"] == arms.SAFE[method]
    assert (found["unsafe"].config["preservation_weight"], found["unsafe"].config["restoration"]) == (0.0, None)
    assert found["extra_batch"].config["preservation_weight"] == 0.05
    assert found["extra_batch"].config["restoration"] is None, "an extra batch is not watched"


@pytest.mark.parametrize("name", ["table1", "table2"])
@pytest.mark.parametrize("scale", SCALES)
def test_one_float_twin_serves_all_published_runs_of_a_seed(name, scale):
    for seed in (0, 1):
        found = column(name, scale, seed)
        for key, trial in found.items():
            if isinstance(key, str) and trial.recipe == "self_compression":
                assert trial.parents["float"].identity == found["float"].identity, key
                for setting in ("steps", "batch_size", "optimiser", "weight_decay", "dataset", "held", "model_options"):
                    assert trial.config[setting] == found["float"].config[setting], setting


def test_the_float_twin_of_our_setting_is_its_own_where_batches_differ():
    twins = {
        name: {t.parents["float"].identity for t in column(name, "paper").values() if t.parents}
        for name in ("table1", "table2")
    }
    assert (len(twins["table1"]), len(twins["table2"])) == (2, 1)


@pytest.mark.parametrize(("scale", "share"), [("smoke", 0.02), ("tiny", 0.2), ("small", 0.4), ("paper", 1.0)])
def test_steps_are_a_share_of_the_preset(scale, share):
    for name, model in (("table1", CNN), ("table2", DECODER)):
        for key, trial in column(name, scale).items():
            wanted = preset("default" if isinstance(key, tuple) else "drift", model).steps * share
            assert trial.config["steps"] == int(wanted * (0.5 if key == "float_half" else 1) + 0.5)


def test_smoke_takes_embedded_data_and_holds_training_images_out():
    assert {cell["dataset"] for name in tables for cell, _, _ in entries(name, "smoke")} == {
        "digits28",
        "embedded_names",
    }
    assert {cell["dataset"] for name in tables for cell, _, _ in entries(name, "tiny")} == {"mnist", "names"}
    assert {trial.config["held"] for trial in column("table1", "paper").values()} == {5_000}
    assert {trial.config["held"] for trial in column("table2", "paper").values()} == {0}


def test_the_protocol_of_the_names_reaches_the_twin():
    safe = arms.compressed("paper", DECODER, 0, "safe", protocol="shuffled")
    assert safe.config["protocol"] == safe.parents["float"].config["protocol"] == "shuffled"


# --- choices ----------------------------------------------------------------------------------------------


def test_methods_can_be_chosen_and_leave_our_setting_out():
    found = entries("table1", "smoke", methods=["safe", "safe_leaking"])
    assert [cell["method"] for cell, _, _ in found] == ["safe", "safe_leaking"]
    assert len(tables["table1"].trials("smoke", 1, methods=["safe"])) == 2, "with the twin that judges"


def test_penalties_can_be_chosen():
    found = entries("table2", "tiny", gammas=[0.5], methods=["float"])
    assert [(c["method"], c.get("gamma")) for c, _, _ in found] == [
        ("float", None), ("default_unsafe", 0.5), ("default_safe", 0.5),
    ]  # fmt: skip
    assert len(entries("table2", "tiny", gammas=0.5)) == 6 + 2


def test_wrong_choices_are_refused():
    with pytest.raises(ValueError, match="safe_leaking"):
        entries("table2", "paper", methods=["safe_leaking"])
    with pytest.raises(ValueError, match="extra_batch"):
        entries("table1_bytes", "paper", methods=["extra_batch"])
    with pytest.raises(ValueError, match="Unknown choice 'gammas' for safety table1_bytes"):
        entries("table1_bytes", "paper", gammas=[0.1])
    with pytest.raises(KeyError):
        arms.compressed("paper", CNN, 0, "safest")


# --- claims -----------------------------------------------------------------------------------------------

Means = dict[tuple[str, str], float]  # (method, metric) -> mean
STEPS = 10_000


class Measured:
    """Results of one table with numbers by (method, metric), one per seed; each arm has a spread of its own."""

    def __init__(self, model: str, means: Means, seeds: int, spread: float) -> None:
        self.place = (model, arms.SIZES["paper"].datasets[model])
        self.means, self.seeds, self.spread = means, seeds, spread

    def samples(self, metric: str = "last", *, model: str, dataset: str, method: str) -> dict[int, float]:
        assert (model, dataset) == self.place
        mean = self.means.get((method, metric))
        if mean is None:
            return {}
        turn = len(method) + len(metric)
        return {seed: mean * (1 + self.spread * ((seed + turn) % 3 - 1)) for seed in range(self.seeds)}

    def matching(self, **cell: Any) -> list[Any]:
        settings = SimpleNamespace(steps=STEPS)
        return [SimpleNamespace(seed=seed, trial=SimpleNamespace(settings=settings)) for seed in range(self.seeds)]


def verdict(claim: str, means: Means, seeds: int = 3, spread: float = 1e-5, scale: str = "paper") -> str:
    table = claim.split(".")[0]
    (found,) = (each for each in claims.CLAIMS[table] if each.id == f"safety.{claim}")
    measured = Measured(MODEL_OF[table], means, seeds, spread)
    return claim_verdict(found.comparisons(measured), scale, found.minimum_scale).verdict


def last(**found: float) -> Means:
    return {(method, "last"): value for method, value in found.items()}


def sized(metric: str = "soft_bytes", **found: float) -> Means:
    return {(method, metric): value for method, value in found.items()}


def tightened(after: float, tight: float) -> Means:
    return {
        ("safe", "last"): 1.6, ("safe", "tightened_test"): after,
        ("safe", "soft_bytes"): 200.0, ("safe", "tight_bytes"): tight,
    }  # fmt: skip


def gaps(safe: float, unsafe: float) -> Means:
    return {**last(safe=99.0, unsafe=99.0), ("safe", "train"): 99 + safe, ("unsafe", "train"): 99 + unsafe}


DRIFT = {model: float(sizes_after(model, STEPS)[-1]) for model in arms.MODELS}
# Claim -> numbers that support it, numbers that contradict it.
DECIDED: Mapping[str, tuple[Means, Means]] = {
    "table1.a": (last(safe=99.5, float=98.6), last(safe=99.0, float=99.3)),
    "table1.b": (last(safe=99.5, unsafe=97.0), last(safe=99.0, unsafe=99.3)),
    "table1.c": (last(safe=99.5, float=98.5, unsafe=96.9), last(safe=99.5, float=98.5, unsafe=98.0)),
    "table1.d": (gaps(0.1, 0.6), gaps(0.6, 0.1)),
    "table1.e": (last(safe=99.5, safe_random=99.2), last(safe=99.2, safe_random=99.5)),
    "table1.f": (last(safe=99.5, extra_batch=99.2), last(safe=99.2, extra_batch=99.5)),
    "table1.g": (last(unsafe=99.2, float=99.3), last(unsafe=97.0, float=98.6)),
    "table1.h": (tightened(1.6, 50), tightened(1.6, 150)),
    "table1_bytes.a": (sized(safe=214_730, float=326_784), sized(safe=224_720, float=326_784)),
    "table1_bytes.b": (
        sized(safe=DRIFT[CNN], unsafe=DRIFT[CNN]), sized(safe=DRIFT[CNN], unsafe=0.98 * DRIFT[CNN]),
    ),
    "table2.a": (last(safe=1.6, float=1.8), last(safe=1.8, float=1.6)),
    "table2.b": (last(safe=1.6, unsafe=1.9), last(safe=1.7, unsafe=1.6)),
    "table2.c": (last(float=1.6, float_half=1.7), last(float=1.7, float_half=1.6)),
    "table2.d": (last(unsafe=1.65, float=1.66), last(unsafe=1.9, float=1.8)),
    "table2.e": (tightened(1.6, 60), tightened(1.8, 60)),
    "table2_bytes.a": (sized(safe=481_967, float=793_344), sized(safe=505_381, float=793_344)),
    "table2_bytes.b": (sized(safe=505_381, unsafe=425_865), sized(safe=425_865, unsafe=505_381)),
    "table2_bytes.c": (
        sized(safe=DRIFT[DECODER], unsafe=DRIFT[DECODER]), sized(safe=1.01 * DRIFT[DECODER], unsafe=DRIFT[DECODER]),
    ),
}  # fmt: skip


def test_every_claim_is_decided_below():
    assert {claim.id.removeprefix("safety.") for listed in claims.CLAIMS.values() for claim in listed} == set(DECIDED)
    assert set(claims.CLAIMS) == set(tables)
    assert all(tables[name].claims == claims.CLAIMS[name] for name in tables)


@pytest.mark.parametrize("claim", DECIDED)
def test_a_claim_can_be_supported(claim):
    assert verdict(claim, DECIDED[claim][0]) == SUPPORTED


@pytest.mark.parametrize("claim", DECIDED)
def test_a_claim_can_be_contradicted(claim):
    assert verdict(claim, DECIDED[claim][1]) == CONTRADICTED


@pytest.mark.parametrize("claim", DECIDED)
def test_two_seeds_or_a_wide_spread_leave_a_claim_undetermined(claim):
    assert verdict(claim, DECIDED[claim][0], seeds=2) == UNDETERMINED
    assert verdict(claim, DECIDED[claim][0], spread=0.9) == UNDETERMINED


@pytest.mark.parametrize("claim", DECIDED)
def test_without_an_arm_a_claim_is_not_run(claim):
    for missing in {method for method, _ in DECIDED[claim][0]}:
        rest = {key: value for key, value in DECIDED[claim][0].items() if key[0] != missing}
        assert verdict(claim, rest) in (NOT_RUN, UNDETERMINED), missing
    assert verdict(claim, {}) == NOT_RUN
    assert verdict(claim, DECIDED[claim][0], scale="smoke") == NOT_RUN


def test_minimum_scales():
    needed = {claim.id.removeprefix("safety."): claim.minimum_scale for t in claims.CLAIMS.values() for claim in t}
    assert {name for name, scale in needed.items() if scale == "paper"} == {
        "table1.c", "table1_bytes.a", "table2.c", "table2_bytes.a", "table2_bytes.b",
    }  # fmt: skip
    assert {name for name, scale in needed.items() if scale == "tiny"} == {"table1_bytes.b", "table2_bytes.c"}
    assert verdict("table1.c", DECIDED["table1.c"][0], scale="small") == NOT_RUN


def test_bounds_are_those_of_the_printed_tables():
    for model, name in ((CNN, "table1"), (DECODER, "table2")):
        sizes = {cell.keys["method"]: cell.value for cell in tables[f"{name}_bytes"].printed.cells}
        network = claims.CNN if model == CNN else claims.DECODER
        assert claims.RATIO[network] == round(sizes["safe"] / sizes["float"], 2)
    printed = {cell.keys["method"]: cell.value for cell in tables["table1"].printed.cells}
    assert {name: pytest.approx(printed["safe"] - printed[name]) for name in claims.GAIN} == claims.GAIN


def test_equal_sizes_do_not_support_a_larger_safe_model():
    assert verdict("table2_bytes.b", sized(safe=DRIFT[DECODER], unsafe=DRIFT[DECODER]), spread=0) == UNDETERMINED


def test_the_drift_is_that_of_the_runs_own_steps(monkeypatch):
    found = DECIDED["table1_bytes.b"][0]
    monkeypatch.setitem(globals(), "STEPS", 9_000)
    assert verdict("table1_bytes.b", found) == CONTRADICTED
