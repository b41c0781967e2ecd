"""What the pages of EncodeNet's tables 1 and 2 show: losses, conversions, costs, curves, disagreements."""

from __future__ import annotations

import re
from html import unescape
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from shown import rows_of

from efflib.papers.baselines import CANARY_SETTINGS, ClassifierConfig, new_model, split
from efflib.papers.encodenet import arms, losses
from efflib.papers.encodenet.autoencoder import ConvertingAutoencoder, converted
from efflib.papers.encodenet.codebook import Codebook
from efflib.papers.encodenet.cost import Cost
from efflib.papers.encodenet.recipes import AutoencoderConfig
from efflib.papers.encodenet.tables import tables
from efflib.report.tables import TableComparison
from efflib.training import evaluate, normalisation, seeded

matplotlib.use("agg")
TABLE1, TABLE2 = tables["table1"], tables["table2"]


class Made:
    """Results whose records have metrics by a rule of cell and seed; None where nothing ran."""

    def __init__(self, table, rule, seeds=3, scale="tiny", **choices):
        self.table, self.scale, self.entries = table, scale, []
        for cell, seed, trial in table.entries(scale, seeds, **choices):
            metrics = rule(cell, seed)
            record = metrics and SimpleNamespace(metrics=metrics, precision="fp32")
            made = SimpleNamespace(cell=cell, seed=seed, trial=trial, record=record, usable=record is not None)
            self.entries.append(made)

    def matching(self, **cell):
        return [entry for entry in self.entries if cell.items() <= dict(entry.cell).items()]

    def samples(self, metric="last", **cell):
        return {e.seed: e.record.metrics[metric] for e in self.matching(**cell) if e.usable}


def text_of(shown) -> str:
    """A table or a figure without its markup, a table's cells set apart by bars; of a figure, its alternative text."""
    return unescape(re.sub(r"<[^>]*>", "", re.sub(r"</t[hd]>", "|", shown.data))) + alt_of(shown)


def alt_of(shown) -> str:
    return unescape("".join(re.findall(r'class="only-light" alt="(.*?)"', shown.data)))


# --- table 1: losses --------------------------------------------------------------------------------------


def loss_of(cell, seed):
    """Cluster targets have the lower loss and the higher one relative to their constant output."""
    cluster = cell["target"] == "cluster"
    mse, constant = (0.02 + 0.001 * seed, 0.04) if cluster else (0.03, 0.1)
    return {
        "train_mse": mse,
        "test_mse": 2 * mse,
        "train_nmse": mse / constant,
        "test_nmse": 2 * mse / constant,
        "constant_mse": constant,
        "class_known_mse": 0.01 if cluster else 0.0,
        "nearest_representative": 80.0 + seed,
        "decoded_accuracy": 70.0,
    }


def page(results, recorded=True):
    shown = SimpleNamespace(results=results)
    return SimpleNamespace(recorded={"tiny": shown} if recorded else {}, show_scale=lambda: shown)


def test_losses_stand_beside_what_ignorance_costs():
    single, cluster = rows_of(losses.errors_table(Made(TABLE1, loss_of)))
    assert (single["target"], cluster["target"]) == ("class", "cluster")
    assert cluster["train MSE"] == "0.0210 ± 0.0025 (3)"
    assert cluster["MSE of the best constant output"].startswith("0.0400")
    assert single["MSE if only the class is known"].startswith("0.0000")
    assert cluster["train NMSE"].startswith("0.5250") and single["test NMSE"].startswith("0.6000")
    rows = rows_of(losses.recognition_table(Made(TABLE1, loss_of)))
    assert rows[0]["nearest representative, %"] == "81.00 ± 2.48 (3)"
    assert rows[0]["baseline on decoded images, %"] == "70.00 ± 0.00 (3)"


def test_cells_without_a_record_are_left_out():
    half = Made(TABLE1, lambda cell, seed: loss_of(cell, seed) if cell["target"] == "class" else None)
    assert [row["target"] for row in rows_of(losses.errors_table(half))] == ["class"]
    none = Made(TABLE1, lambda cell, seed: None)
    assert text_of(losses.errors_table(none)) == "Nothing is measured at scale tiny yet."


def test_headline_is_relative_and_paired():
    told = losses.relative_headline(page(Made(TABLE1, loss_of))).data
    assert "resnet20, cifar10, training images +0.2250 ± " in told
    assert "test images +0.4500 ± " in told and told.count("(3)") == 2
    assert losses.relative_headline(page(Made(TABLE1, loss_of), recorded=False)) is None
    assert losses.relative_headline(page(Made(TABLE1, lambda cell, seed: None))) is None


def test_one_printed_loss_is_above_the_estimate_for_a_constant_output():
    smoke = SimpleNamespace(results=Made(TABLE1, loss_of, scale="smoke"))
    rows = rows_of(losses.printed_shares(smoke))
    assert len(rows) == 8 and all("constant output, measured" not in row for row in rows)
    above = [(row["model"], row["target"]) for row in rows if float(row["printed / estimated"]) > 1]
    assert above == [("vgg16", "cluster")]
    for row in rows:
        estimate = 0.06286 * (1 - 1 / {"class": 10, "cluster": 30}[row["target"]])  # variance of CIFAR-10's pixels
        assert float(row["constant output, estimated"]) == pytest.approx(estimate, abs=1e-4)


def test_measured_constants_stand_beside_the_estimate():
    rows = rows_of(losses.printed_shares(SimpleNamespace(results=Made(TABLE1, loss_of))))
    measured = {(row["model"], row["target"]): row["constant output, measured"] for row in rows}
    assert measured["resnet20", "class"].startswith("0.1000") and measured["resnet20", "cluster"].startswith("0.0400")
    assert measured["vgg8", "class"] == ""


def test_the_figure_of_losses_says_its_numbers():
    said = alt_of(losses.loss_figure(TableComparison(TABLE1, Made(TABLE1, loss_of, scale="small"))))
    assert "scale small" in said and said.count(" class train 0.300 ± 0.000 (3)") == 2
    assert "vgg8 cifar10 cluster test 1.050 ± " in said and "resnet20 cifar10 cluster train 0.525" in said
    one = alt_of(losses.loss_figure(TableComparison(TABLE1, Made(TABLE1, loss_of, seeds=1))))
    assert "cluster train 0.500 (1)" in one  # one seed has no interval
    nothing = losses.loss_figure(TableComparison(TABLE1, Made(TABLE1, lambda cell, seed: None)))
    assert "nothing to draw" in text_of(nothing)


def test_the_floor_is_relative_to_the_constant():
    floor = losses._class_known(Made(TABLE1, loss_of), "resnet20", "cifar10")
    assert floor == {0: 0.25, 1: 0.25, 2: 0.25}


# --- table 1: converted images ----------------------------------------------------------------------------

CONFIG = AutoencoderConfig(**CANARY_SETTINGS, decoder_width=0.25)


def book_of(codes_per_class: int) -> Codebook:
    """Codes of one grey each; the number of an image's code is that of its class times `codes_per_class`."""
    train, _, test = split(CONFIG)
    count = 10 * codes_per_class
    greys = torch.arange(count)[:, None, None, None] / 255
    classes = torch.repeat_interleave(torch.arange(10), codes_per_class)
    found = [torch.from_numpy(data.labels) * codes_per_class for data in (train, test)]
    found[1] = found[1] + codes_per_class - 1  # test images have the last code of their class
    return Codebook(greys.expand(count, 1, 8, 8).float(), classes, *found, torch.full((count,), -1))


def recorded(target: str, book: Codebook) -> tuple[SimpleNamespace, dict[str, dict]]:
    """An entry of an untrained autoencoder, and the weights of it and its codebook by label."""
    with seeded(len(book.images)):
        model = ConvertingAutoencoder(new_model(CONFIG), book, width=0.25)
    source = SimpleNamespace(label=f"codebook {target}")
    trial = SimpleNamespace(label=f"autoencoder {target}", settings=CONFIG, parents={"codebook": source})
    cell = {"model": "resnet14", "dataset": "digits", "target": target}
    entry = SimpleNamespace(cell=cell, seed=0, trial=trial, record=SimpleNamespace(precision="fp32"))
    return entry, {source.label: vars(book), trial.label: model.state_dict()}


def store_of(kept: dict[str, dict | None]) -> SimpleNamespace:
    def find(trial):
        weights = kept.get(trial.label)
        return [] if weights is None else [SimpleNamespace(status="ok", held=weights)]

    return SimpleNamespace(
        find=find,
        load_weights=lambda record: record.held,
        weights_of=lambda records: (records[0], records[0].held) if records else None,
        cache="the cache",
    )


def test_a_recorded_autoencoder_comes_back_with_its_codes():
    book = book_of(2)
    entry, kept = recorded("cluster", book)
    model, found = losses.converter(entry.trial, store_of(kept))
    assert not model.training and torch.equal(found.images, book.images) and torch.equal(found.test, book.test)
    state = model.state_dict()
    assert state.keys() == kept["autoencoder cluster"].keys()
    assert all(torch.equal(state[name], value) for name, value in kept["autoencoder cluster"].items())


@pytest.mark.parametrize(("gone", "named"), [("codebook", "no codes of"), ("autoencoder", "no weights of")])
def test_missing_weights_are_named(gone, named):
    entry, kept = recorded("class", book_of(1))
    kept[f"{gone} class"] = None
    with pytest.raises(FileNotFoundError, match=f"{named} {gone} class in the cache: run it first"):
        losses.converter(entry.trial, store_of(kept))


@pytest.mark.parametrize("part", ["train", "test"])
def test_images_are_shown_with_their_own_targets_and_outputs(part):
    book = book_of(3)
    entry, kept = recorded("cluster", book)
    store = store_of(kept)
    train, _, test = split(CONFIG)
    data = train if part == "train" else test
    chosen = np.array([7, 3])
    targets, outputs = losses._asked_and_got(entry, store, data, part, chosen)
    assert targets.shape == outputs.shape == (2, 8, 8, 1) and targets.dtype == outputs.dtype == np.uint8
    last = 2 if part == "test" else 0
    assert targets[:, 0, 0, 0].tolist() == [3 * data.labels[n] + last for n in chosen]
    model, _ = losses.converter(entry.trial, store)
    expected = converted(model, torch.from_numpy(data.images[[7, 3]]), *normalisation(CONFIG.training, data), "fp32")
    assert np.abs(outputs / 255 - expected.permute(0, 2, 3, 1).numpy()).max() <= 0.5 / 255 + 1e-6


def test_the_picture_shows_both_sets_and_all_targets():
    pairs = [recorded(target, book_of(count)) for target, count in (("class", 1), ("cluster", 3))]
    entries = [entry for entry, _ in pairs]
    results = SimpleNamespace(entries=entries, matching=lambda model: entries)
    shown = losses.conversions(results, store_of(pairs[0][1] | pairs[1][1]), images=2)
    assert alt_of(shown).startswith("Rendered training and test images")
    assert "autoencoders of class, cluster codes" in alt_of(shown)


# --- table 2: costs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "baseline", "autoencoder", "frozen", "finetune", "rho"),
    [
        ("vgg8", 8.7, 48.7, 1.0, 2.9, 5.7),
        ("resnet20", 3.7, 20.5, 0.4, 1.2, 5.7),
        ("resnet18", 50.0, 117.6, 5.6, 16.7, 2.5),
    ],
)
def test_costs_are_the_specs(model, baseline, autoencoder, frozen, finetune, rho):
    """Section 5.0 of the spec, full scale, in PFLOP."""
    parent = arms.baseline("paper", model, "cifar10", 0)
    literal, tuned = losses.costs("paper", parent).values()
    stages = (literal.before, literal.preparation, literal.network, tuned.network)
    assert [f"{flops / 1e15:.1f}" for flops in stages] == [str(n) for n in (baseline, autoencoder, frozen, finetune)]
    assert literal.extra == arms.extra_cost("paper", parent) == pytest.approx(rho, abs=0.05)
    assert tuned.extra - literal.extra == pytest.approx(2 / 9)  # backward passes of 100 epochs to 300
    assert (tuned.before, tuned.preparation) == (literal.before, literal.preparation)
    assert losses._epochs(parent) == 300


def test_one_row_per_network_and_scale():
    rows = rows_of(losses.cost_table(TABLE2, ["tiny", "small", "tiny"]))
    assert [(row["scale"], row["network"]) for row in rows] == [
        ("tiny", "resnet20"),
        ("small", "vgg8"),
        ("small", "resnet20"),
    ]
    assert rows[0]["epochs of the baseline"] == "30" and rows[0]["rho, frozen"] == "5.7"
    assert int(rows[0]["of equal budget"]) == arms.whole_epochs("tiny", arms.baseline("tiny", "resnet20", "cifar10", 0))


def test_the_warning_names_the_cheapest_and_the_dearest():
    told = losses.cost_warning(TABLE2, "small").data
    whole = {m: 1 + arms.extra_cost("small", arms.baseline("small", m, "cifar10", 0)) for m in ("vgg8", "resnet20")}
    least, most = sorted(whole, key=whole.__getitem__)
    assert f"{whole[least]:.1f} ({least}) to {whole[most]:.1f} ({most}) times the FLOPs" in told


def test_work_ends_where_the_budget_ends():
    spent = {"encodenet": Cost(100.0, 400.0, 20.0), "finetune": Cost(100.0, 400.0, 60.0)}
    assert losses._work("baseline", 10, spent, 10)[[0, -1]] == pytest.approx([0.1, 1.0])
    assert losses._work("baseline_long", 52, spent, 10)[-1] == pytest.approx(1 + spent["encodenet"].extra)
    assert losses._work("encodenet", 4, spent, 10) == pytest.approx([5.05, 5.1, 5.15, 5.2])
    assert losses._work("finetune", 2, spent, 10) == pytest.approx([5.3, 5.6])
    assert losses._work("finetune", 2, spent, 10)[-1] == pytest.approx(1 + spent["finetune"].extra)


# --- table 2: curves --------------------------------------------------------------------------------------


def curve_of(cell, seed):
    if cell["method"] == "finetune":
        return None
    ends = {"baseline": 60.0, "encodenet": 50.0, "baseline_long": 70.0}[cell["method"]]
    return {"curves": {"test": [10.0, 20.0, ends + seed]}}


def test_curves_are_means_over_seeds_of_what_ran():
    results = Made(TABLE2, curve_of, scale="smoke")
    assert losses._curve(results, model="vgg8", dataset="objects32", method="encodenet").tolist() == [10, 20, 51]
    said = alt_of(losses.stage_curves(results))
    assert said.startswith("Test accuracy while training, vgg8, objects32, scale smoke")
    assert "baseline 61.0 %, encoder frozen (literal) 51.0 %, baseline of equal budget 71.0 %" in said
    assert "fine-tuned" not in said


def test_without_a_second_stage_there_is_no_curve():
    only = Made(TABLE2, lambda cell, seed: curve_of(cell, seed) if cell["method"] == "baseline" else None)
    assert "nothing to draw" in text_of(losses.stage_curves(only))


# --- table 2: differences ---------------------------------------------------------------------------------


def test_printed_gains_beside_their_noise():
    rows = rows_of(losses.printed_noise(TABLE2))
    assert len(rows) == 8
    found = {(row["model"], row["dataset"]): row for row in rows}
    assert found["vgg8", "cifar10"]["gain"] == "+2.35" and found["resnet20", "cifar100"]["gain"] == "+1.48"
    # Spec, section 5: 0.38 points near 93 % (VGG16's two accuracies), 0.61 near 75 %.
    assert found["resnet18", "cifar10"]["sd, unpaired"] == "0.38"
    assert found["resnet18", "cifar100"]["sd, unpaired"] == found["resnet20", "cifar100"]["sd, unpaired"] == "0.61"
    for row in rows:
        assert float(row["gain / sd"]) == pytest.approx(float(row["gain"]) / float(row["sd, unpaired"]), rel=0.02)


@pytest.mark.parametrize(("gained", "lost", "images"), [(30, 10, 200), (0, 0, 50), (5, 5, 40), (50, 0, 50)])
def test_paired_deviation_is_that_of_the_mean_difference(gained, lost, images):
    differences = np.array([1.0] * gained + [-1.0] * lost + [0.0] * (images - gained - lost))
    expected = 100 * differences.std() / np.sqrt(images)
    assert losses.paired_deviation(gained, lost, images) == pytest.approx(expected, abs=1e-12)


def test_answers_are_those_of_the_weights_in_the_precision_of_the_record():
    config = ClassifierConfig(**CANARY_SETTINGS)
    model, test = new_model(config), split(config)[2]
    trial = SimpleNamespace(label="baseline", settings=config)
    store = store_of({"baseline": model.state_dict()})
    for precision in ("fp32", "bf16"):
        right = losses._right(SimpleNamespace(trial=trial, record=SimpleNamespace(precision=precision)), store)
        found = evaluate(model, test, config.training, "cpu", precision)
        assert right.shape == (len(test),) and 100 * float(right.double().mean()) == pytest.approx(found)


def answers(right: dict[str, list[bool]]):
    return lambda entry, store: torch.tensor(right[entry.cell["method"]])


def test_disagreements_count_in_both_directions(monkeypatch):
    right = {
        "baseline": [True] * 12 + [False] * 8,
        "encodenet": [False] * 2 + [True] * 18,  # 8 gained, 2 lost
        "finetune": [True] * 12 + [False] * 8,  # the same answers
        "baseline_long": [True] * 20,  # 8 gained
    }
    monkeypatch.setattr(losses, "_right", answers(right))
    results = Made(TABLE2, lambda cell, seed: {"last": 0.0}, seeds=2, scale="smoke")
    rows = rows_of(losses.disagreements(results, SimpleNamespace()))
    frozen, tuned, longer = rows
    assert [row["arm"] for row in rows] == list(losses.NAMES.values())
    assert (frozen["only the arm is right"], frozen["only the baseline is right"]) == ("8", "2")
    assert frozen["difference (points)"] == "+30.0"
    assert float(frozen["p (McNemar, exact)"]) == pytest.approx(2 * (1 + 10 + 45) / 2**10, abs=0.006)
    assert (tuned["difference (points)"], tuned["p (McNemar, exact)"]) == ("+0.0", "1")
    assert float(tuned["sd, same images"]) == 0 < float(tuned["sd, if unpaired"])
    assert float(longer["p (McNemar, exact)"]) == pytest.approx(2 / 2**8, abs=5e-4)
