"""PKGD's figures 5 and 6: their grids, the recipe `clusters`, and what their pages draw and measure."""

from __future__ import annotations

import base64
import io
import re
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from made_records import recorded
from shown import cells_of

from efflib import create_model, load_dataset
from efflib.data import NORMALISATION
from efflib.kernels import hcl_loss
from efflib.models import count_macs, features
from efflib.papers.baselines import CANARY_SETTINGS, ClassifierConfig, new_model, split
from efflib.papers.distillation import work_of
from efflib.papers.features import pixels_of, pooled_features
from efflib.papers.pkgd import claims, recipes, show
from efflib.papers.pkgd.arms import arm, baseline, embedding
from efflib.papers.pkgd.figures import SMOKE_TIMED
from efflib.papers.pkgd.recipes import ClustersConfig, clusters, neighbour_accuracy, silhouette
from efflib.papers.pkgd.tables import tables
from efflib.papers.table import Table
from efflib.report.verdict import claim_verdict
from efflib.scales import SCALES
from efflib.training import evaluate, seeded, tiny_imagenet
from efflib.trials import Entry, Results, Store, Trial
from efflib.trials.recipes import Context, get_recipe

mpl.use("agg")
TINY = ("resnet34", "resnet18", "tiny_imagenet")


# --- grids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_figure5_has_a_trial_for_every_cell(scale):
    entries = list(tables["figure5"].entries(scale, 2))
    assert len({(tuple(cell.items()), seed) for cell, seed, _ in entries}) == len(entries)
    for cell, seed, trial in entries:
        config = trial.config
        assert (config["seed"], config["dataset"]) == (seed, cell["dataset"])
        assert config["model"] == (cell["teacher"] if cell["method"] == "teacher" else cell["student"])
        assert config.get("method", cell["method"]) == cell["method"]
        assert config["training"]["epochs"] == {"smoke": 4, "tiny": 30, "small": 60, "paper": 300}[scale]
    pairs = [SMOKE_TIMED] if scale == "smoke" else list(claims.TINY_PAIRS)
    assert list(dict.fromkeys((c["teacher"], c["student"]) for c, _, _ in entries)) == pairs
    methods = {c["method"] for c, _, _ in entries} - {"teacher", "baseline"}
    assert methods == ({"kd", "pkgd"} if scale == "smoke" else set(claims.TIMED))


def test_figure5_trains_as_the_spec_says():
    for scale, subset, holdout in (("tiny", 10_000, 1_000), ("small", None, 5_000), ("paper", None, 0)):
        for model in ("resnet34", "mobilenetv1"):
            config = baseline(scale, model, "tiny_imagenet", 0).settings
            assert config.training == tiny_imagenet(config.training.epochs)
            assert (config.subset, config.holdout) == (subset, holdout)
    assert baseline("paper", "resnet34", "tiny_imagenet", 0).settings.training.milestones == (90, 150, 210, 270)
    assert arm("paper", *TINY, 0, "pkgd").settings.options == {}  # its defaults: 20 epochs of warm-up
    lengths = [arm(scale, *TINY, 0, "pkgd").settings.options["warmup_epochs"] for scale in ("tiny", "small")]
    assert lengths == [2.0, 4.0]  # 20 of 300


@pytest.mark.parametrize(
    ("scale", "pair", "petaflop"),
    [
        ("paper", ("resnet34", "resnet18"), 678),
        ("paper", ("resnet50", "mobilenetv1"), 345),
        ("small", ("resnet34", "resnet18"), 44.6),
    ],
)
def test_the_cost_of_a_run_is_the_specs(scale, pair, petaflop):
    """Section 4.5: 300 epochs of 100,000 images; three passes' worth of the student and one of the teacher."""
    macs = []
    for model in pair:
        options = baseline(scale, model, "tiny_imagenet", 0).settings.model_options
        with torch.device("meta"):
            macs.append(count_macs(create_model(model, 200, **options), 64))
    assert 2 * (macs[0] + 3 * macs[1]) * 300 * 100_000 / 1e15 == pytest.approx(petaflop, rel=2e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_figure6_looks_at_networks_that_the_tables_train(scale):
    entries = list(tables["figure6"].entries(scale, 2))
    pairs = {(cell["teacher"], cell["student"]) for cell, _, _ in entries}
    assert len(entries) == 2 * 4 and len(pairs) == 1
    if scale != "smoke":
        assert pairs == {claims.ABLATION if scale == "tiny" else claims.VISUAL}
    trained = {trial for name in ("table1", "table5") for trial in tables[name].trials(scale, 2)}
    for cell, seed, trial in entries:
        network = trial.parents["network"]
        assert trial.recipe == "clusters" and network in trained
        assert network.config["model"] == (cell["teacher"] if cell["method"] == "teacher" else cell["student"])
        assert network.config.get("method", cell["method"]) in (cell["method"], "baseline")
        shared = {name: trial.config[name] for name in ClassifierConfig.model_fields}
        assert shared == {name: network.config[name] for name in shared} and shared["seed"] == seed


def test_choices_narrow_the_figures():
    chosen = list(tables["figure5"].entries("tiny", 1, pairs=["resnet34->resnet18"], methods=["pkgd"]))
    assert [(c["student"], c["method"]) for c, _, _ in chosen] == [
        ("resnet18", "teacher"),
        ("resnet18", "baseline"),
        ("resnet18", "pkgd"),
    ]
    assert [c["method"] for c, _, _ in tables["figure6"].entries("tiny", 1, methods=["kd"])] == ["kd"]
    with pytest.raises(ValueError, match="resnet34->resnet18"):
        list(tables["figure5"].entries("tiny", 1, pairs=["resnet18->resnet34"]))


def test_identities_of_the_cifar_evidence_do_not_change():
    """Options of a stem and of the length that warm-ups refer to must not rename CIFAR's trials."""
    assert arm("tiny", "resnet56", "resnet20", "cifar100", 0, "pkgd").identity == "1234a71b68411e65"


# --- the recipe clusters ----------------------------------------------------------------------------------


def silhouette_by_definition(points: np.ndarray, labels: np.ndarray) -> float:
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    found = []
    for i, own in enumerate(labels):
        a = apart[i][(labels == own) & (np.arange(len(labels)) != i)].mean()
        b = min(apart[i][labels == other].mean() for other in set(labels) - {own})
        found.append((b - a) / max(a, b))
    return float(np.mean(found))


def test_silhouette_is_its_definition():
    line = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
    assert silhouette(line, np.array([0, 0, 1, 1])) == pytest.approx((3.5 / 4.5 + 2.5 / 3.5) / 2)
    assert silhouette(line, np.array([0, 1, 0, 1])) < 0
    points, labels = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)), np.arange(60) % 4
    assert silhouette(points, labels) == pytest.approx(silhouette_by_definition(points.double().numpy(), labels))


def test_neighbours_vote_among_the_training_images():
    generator = torch.Generator().manual_seed(1)
    train, test = torch.randn(80, 6, generator=generator), torch.randn(50, 6, generator=generator)
    known, asked = np.arange(80) % 3, np.arange(50) % 3
    nearest = torch.cdist(test.double(), train.double()).argsort(dim=1)[:, :7].numpy()
    votes = [np.bincount(known[row], minlength=3).argmax() for row in nearest]  # argmax: ties go to the lowest
    assert neighbour_accuracy(train, known, test, asked, 7) == pytest.approx(100 * float(np.mean(votes == asked)))
    assert neighbour_accuracy(train, known, train, known, 1) == 100
    with pytest.raises(ValueError, match="81 neighbours of only 80 training images"):
        neighbour_accuracy(train, known, test, asked, 81)


def test_pooled_features_are_those_of_eval_mode_and_leave_the_network_alone():
    config = ClustersConfig(**CANARY_SETTINGS)
    model, test = new_model(config).train(), split(config)[2]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pooled, logits = pooled_features(model, test, config)
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert pooled.shape == (len(test), model.head.in_features) and pooled.dtype == torch.float32
    torch.testing.assert_close(logits, model.eval().head(pooled))
    again, _ = pooled_features(model, test.take(range(130)), config)  # other batches
    torch.testing.assert_close(again, pooled[:130])


def test_the_recipe_measures_its_parent():
    own = {name: value for name, value in CANARY_SETTINGS.items() if name != "model"}
    parent = Trial.of("baseline", model="resnet14", **own)
    trial = embedding(parent)
    assert trial.parents == {"network": parent} and trial.settings.neighbours == 20
    model = new_model(parent.settings)
    outcome = clusters(trial.settings, Context("cpu", "fp32", None, {"network": model.state_dict()}))
    train, held, test = split(parent.settings)
    assert set(outcome.metrics) == {"last", "silhouette", "knn20"} and outcome.weights is None
    assert outcome.metrics["last"] == pytest.approx(evaluate(model, test, device="cpu", precision="fp32"))
    known, asked = (pooled_features(model, data, trial.settings)[0] for data in (train, test))
    assert outcome.metrics["silhouette"] == pytest.approx(silhouette(asked, test.labels), abs=1e-6)
    assert outcome.metrics["knn20"] == neighbour_accuracy(known, train.labels, asked, test.labels, 20)
    assert held is not None and len(train) == 160
    assert outcome.flops == 2 * count_macs(model, 8, 1) * (160 + 360)
    five = trial.settings.model_copy(update={"neighbours": 5})
    assert "knn5" in clusters(five, Context("cpu", "fp32", None, {"network": model.state_dict()})).metrics


def test_the_recipe_is_registered_with_a_canary_that_repeats():
    recipe = get_recipe("clusters")
    assert recipe.parents == ("network",) and recipe.data(ClustersConfig(**CANARY_SETTINGS)) == [
        ("digits", "train"),
        ("digits", "test"),
    ]
    assert recipes._canary() == recipes._canary()
    with pytest.raises(ValueError, match=r"needs parents \['network'\]"):
        Trial.of("clusters", **CANARY_SETTINGS)
    with pytest.raises(ValueError, match="neighbours"):
        Trial.of("clusters", {"network": Trial.of("baseline", **CANARY_SETTINGS)}, **CANARY_SETTINGS, neighbours=0)


def test_networks_are_told_apart_by_their_parents():
    names = [embedding(arm("tiny", *claims.ABLATION, "cifar100", 0, method)).identity for method in ("kd", "pkgd")]
    names.append(embedding(baseline("tiny", "resnet20", "cifar100", 0)).identity)
    assert len(set(names)) == 3


# --- records to draw --------------------------------------------------------------------------------------


def results_of(table: Table, metrics, scale="smoke", seeds=1, devices=lambda cell: "cpu one", **choices) -> Results:
    """Results with `metrics(cell, seed)` in every cell; None leaves a cell without a record."""
    entries = []
    for cell, seed, trial in table.entries(scale, seeds, **choices):
        found = metrics(cell, seed)
        record = None if found is None else recorded(trial, found, devices(cell))
        entries.append(Entry(cell, seed, trial, record))
    return Results(table, scale, entries)


def timed(cell, seed):
    place = ("teacher", "baseline", "kd", "pkgd").index(cell["method"])
    return {"last": 50.0 + place + 0.1 * seed, "seconds_per_epoch": (1.0 + place) * (1 + 0.01 * seed)}


def pictures(output) -> list[np.ndarray]:
    from PIL import Image

    found = re.findall(r'<img class="only-(\w+)" alt="([^"]+)" src="data:image/png;base64,([^"]+)">', output.data)
    assert [theme for theme, _, _ in found] == ["light", "dark"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for _, _, data in found]


def alt_of(output) -> str:
    return re.search('alt="([^"]+)"', output.data)[1]


# --- figure 5: times --------------------------------------------------------------------------------------


def test_times_stand_beside_accuracies_and_work():
    results = results_of(tables["figure5"], timed, seeds=3)
    head, *rows = cells_of(show.times_table(results))
    found = {row[head.index("method")]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(found) == ["teacher", "student alone", "KD", "PKGD"]
    assert found["PKGD"]["accuracy"] == "53.10 ± 0.25 (3)"
    assert found["PKGD"]["seconds per epoch"].startswith("4.04 ± ")
    assert found["PKGD"]["time / KD's"] == "1.33 ± 0.00 (3)"
    assert found["KD"]["machine"] == "cpu one, fp32"


def test_the_work_of_a_step_is_counted_on_the_networks():
    alone = baseline("smoke", "vgg8", "objects64", 0)
    assert show.step_flops(alone) == 3 * 2 * count_macs(new_model(alone.settings), 64)
    beside = arm("smoke", *SMOKE_TIMED, "objects64", 0, "pkgd")
    assert show.step_flops(beside) == work_of(beside.settings).step > show.step_flops(alone)


def test_times_of_two_machines_are_kept_apart():
    def devices(cell):
        return "gpu" if cell["method"] == "kd" else "cpu one"

    results = results_of(tables["figure5"], timed, devices=devices)
    head, *rows = cells_of(show.times_table(results))
    ratios = {row[head.index("method")]: row[-4] for row in rows}
    assert ratios == {"teacher": "", "student alone": "", "KD": "1.00 (1)", "PKGD": ""}
    output = show.accuracy_against_time(results)
    assert "on cpu one, fp32" in alt_of(output) and " KD:" not in alt_of(output) and " PKGD: 53" in alt_of(output)


def test_accuracy_against_time_is_drawn_for_both_themes_and_spoken():
    output = show.accuracy_against_time(results_of(tables["figure5"], timed))
    assert all(picture.shape[2] == 4 and picture[..., 3].any() for picture in pictures(output))
    assert "resnet18 to vgg8, KD: 52.00 (1) % at 3.00 (1) s" in alt_of(output)
    assert "teacher" not in alt_of(output)


def test_without_runs_sentences_take_the_place_of_tables_and_pictures():
    nothing = results_of(tables["figure5"], lambda cell, seed: None)
    assert "No run with a time is recorded at scale smoke yet" in show.times_table(nothing).data
    assert "nothing to draw" in show.accuracy_against_time(nothing).data
    assert "No features are measured" in show.clusters_table(Results(tables["figure6"], "smoke", [])).data
    assert "weights are not here" in show.clusters_strip({}).data
    page = SimpleNamespace(recorded={})
    assert "No trial on real data" in show.at_every_scale(page, show.times_table).data


def test_every_recorded_scale_has_its_table():
    found = {"tiny": SimpleNamespace(results="a"), "small": SimpleNamespace(results="b")}
    output = show.at_every_scale(SimpleNamespace(recorded=found), lambda results: SimpleNamespace(data=f"<p>{results}"))
    assert output.data == "<p>a<p>b"


def test_the_described_method_does_less_work_than_reviewkd():
    """Finding 9 on figure 5's pairs; the claim reads the FLOPs of the runs, whatever they took."""
    head, *rows = cells_of(show.flops_table("tiny", ("reviewkd", "pkgd")))
    work = {(row[0], row[1]): float(row[-1]) for row in rows}
    assert len(work) == 4 and head[-1] == "in all"
    for pair in (" to ".join(pair) for pair in claims.TINY_PAIRS):
        assert work[pair, "PKGD"] < work[pair, "ReviewKD"]
    claim = next(c for c in claims.CLAIMS["figure5"] if c.id == "pkgd.figure5.e")
    entries = [
        Entry(cell, seed, trial, recorded(trial, {"last": 1.0}, flops=1e15 * (2 if cell["method"] == "pkgd" else 3)))
        for cell, seed, trial in tables["figure5"].entries("tiny", 3, methods=["pkgd", "reviewkd"])
    ]
    assert claim_verdict(claim.comparisons(Results(None, "tiny", entries)), "tiny").verdict == "supported"


# --- figure 6: clusters and attention ---------------------------------------------------------------------


def seen(cell, seed):
    place = ("teacher", "baseline", "kd", "pkgd").index(cell["method"])
    return {"last": 60.0 + place, "silhouette": 0.1 * place + 0.01 * seed, "knn20": 70.0 + 2 * place}


def test_clusters_and_their_differences_are_tabled():
    results = results_of(tables["figure6"], seen, scale="tiny", seeds=3)
    head, *rows = cells_of(show.clusters_table(results))
    assert head == ["pair", "features of", "accuracy (%)", "silhouette", "20 nearest neighbours (%)"]
    found = {row[1]: row for row in rows}
    assert list(found)[:4] == ["teacher", "student alone", "KD", "PKGD"]
    assert found["PKGD"][3] == "0.3100 ± 0.0248 (3)"
    assert found["PKGD less student alone"][2:] == ["+2.00 ± 0.00 (3)", "+0.2000 ± 0.0000 (3)", "+4.00 ± 0.00 (3)"]
    verdicts = [claim_verdict(c.comparisons(results), "tiny").verdict for c in claims.CLAIMS["figure6"]]
    assert verdicts == ["supported", "supported"]


def test_the_networks_of_a_demonstration_must_beat_guessing(tmp_path, monkeypatch):
    from efflib.report.notebook import ChanceLevel

    monkeypatch.setattr("efflib.trials.store.smoke_root", lambda: tmp_path / "smoke")
    monkeypatch.setenv("EFFLIB_CACHE", str(tmp_path))
    results = results_of(tables["figure6"], seen)
    for entry in results.entries:
        parent = entry.trial.parents["network"]
        Store.for_scale("smoke").save(recorded(parent, {"last": 50.0 if entry.cell["method"] == "teacher" else 11.0}))
    with pytest.raises(ChanceLevel, match=r"reaches 11.0 %"):
        show.refuse_untrained(results)
    assert show.networks(results, Store.for_scale("smoke")) == {}  # records without weights


@pytest.fixture(scope="module")
def pair():
    """(student, teacher), untrained but for the statistics of their batch norms; 8, 16, 32 channels."""
    with seeded(0):
        student, teacher = (create_model(name, 10, width=0.5) for name in ("resnet14", "resnet20"))
    images = pixels_of(load_dataset("objects32", "train").take(range(48)), *NORMALISATION["objects32"])
    with torch.no_grad():
        for model in (student, teacher):
            for _ in range(20):
                model.train()(images)
    return student.eval(), teacher.eval()


def test_attention_is_the_squared_last_stage(pair):
    student, data = pair[0], show.examples().take(range(4))
    heat = show.attention(student, data)
    assert heat.shape == (4, 32, 32) and float(heat.min()) >= 0 and float(heat.max()) <= 1
    last = features(student, pixels_of(data, *NORMALISATION[data.name])).stages[-1].detach()
    squared = (last**2).mean(dim=1)
    flat = squared.flatten(1)
    scaled = ((flat - flat.amin(1, keepdim=True)) / (flat.amax(1) - flat.amin(1))[:, None]).reshape_as(squared)
    enlarged = torch.nn.functional.interpolate(scaled[:, None], (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(heat, enlarged)
    dead = create_model("resnet14", 10, width=0.5)
    for parameter in dead.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(show.attention(dead, data), torch.zeros(4, 32, 32))


def test_attention_is_measured_against_the_true_objects(pair):
    data = load_dataset("objects32", "test").take(range(40))
    networks = {"student alone": (pair[0], None), "teacher": (pair[1], None)}
    rows = show.localisation_rows(networks, data)
    assert [row["attention of"] for row in rows] == list(networks)
    assert rows[0]["object's share of the image"] == pytest.approx(np.asarray(data.masks).mean())
    assert all(0 <= row["ranking (AUC)"] <= 1 for row in rows)
    made = [{"attention of": "a", "ranking (AUC)": 0.6}, {"attention of": "b", "ranking (AUC)": 0.7}]
    assert show.localisation_words(made).data.endswith("b (0.70), a (0.60).")
    strip = show.attention_strip(networks, images=2)
    assert len(pictures(strip)) == 2 and alt_of(strip).endswith("the attention of: student alone, teacher")


def test_tsne_repeats_and_is_drawn(pair):
    config = ClassifierConfig(dataset="objects32", model="resnet14", training=tiny_imagenet(1), seed=0)
    data = show.some_of(load_dataset("objects32", "test"), images=60, classes=4)
    assert len(data) == 60 and set(data.labels) == {0, 1, 2, 3}
    points = pooled_features(pair[0], data, config)[0]
    first = show.tsne(points, perplexity=10)
    assert first.shape == (60, 2) and np.array_equal(first, show.tsne(points, perplexity=10))
    output = show.clusters_strip({"student alone": (pair[0], config)}, data)
    assert len(pictures(output)) == 2 and "60 test images" in alt_of(output)


# --- guidance ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some():
    return load_dataset("objects32", "train").take(range(48))


def gap(method, pair, data) -> float:
    with torch.no_grad():
        known = show._seen(pair[1], data, preactivation=True)
        _, guided, wanted = method.eval().guided(show._seen(pair[0], data), known)
        return float(hcl_loss(guided, wanted))


def test_fitting_narrows_the_gap_and_leaves_the_networks_alone(pair, some):
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in pair]
    start, fitted = (show.fitted_guidance(*pair, some, steps=steps) for steps in (0, 20))
    assert gap(fitted, pair, some) < 0.8 * gap(start, pair, some)
    for model, state in zip(pair, before, strict=True):
        assert not model.training and all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    again = show.fitted_guidance(*pair, some, steps=20)
    assert all(torch.equal(a, b) for a, b in zip(fitted.parameters(), again.parameters(), strict=True))


def test_panels_are_the_modules_own_maps(pair, some):
    method, data = show.fitted_guidance(*pair, some, steps=2), some.take(range(3))
    panels = show.guidance_panels(method, *pair, data)
    assert len(panels) == 3 and [level[0].shape for level in panels[0]] == [(32, 32), (16, 16), (8, 8)]
    assert len(panels[0][0]) == len(show.GUIDANCE) - 1
    known = show._seen(pair[1], data, preactivation=True)
    with torch.no_grad():
        aligned, guided, wanted = method.guided(show._seen(pair[0], data), known)
        mixed = method.mixing(wanted)
    for number, (student, prior, received, after, teacher) in enumerate(panels[1]):
        for shown, full in ((student, aligned), (prior, mixed), (after, guided), (teacher, wanted)):
            np.testing.assert_allclose(shown, full[number][1].mean(dim=0).numpy(), rtol=1e-5, atol=1e-6)
        assert received.shape == tuple(side // method.guides[number].k for side in student.shape)
        assert received.sum() == pytest.approx(received.size, rel=1e-4)  # each of the prior's positions spends 1
    assert not any(module._forward_hooks for module in method.modules())


def test_the_spatial_attention_is_the_one_that_guides(pair, some):
    """With an identity for a decoder, eq. 11's spatial part of constant tokens is the received attention itself."""
    method, data = show.fitted_guidance(*pair, some, steps=2), some.take(range(2))
    guide = method.guides[2]
    student, prior = torch.randn(2, 2, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = [guide.encoder(guide.norm(x)) for x in (student, prior)]
        received = show._received(guide, *tokens)
        s, t = (x.flatten(2) for x in tokens)
        spatial = (t.transpose(1, 2) @ s / s.shape[1] ** 0.5).softmax(dim=-1)
        ones = torch.ones(2, 1, s.shape[2]) @ spatial  # P_S Map_s for a channel of ones
    torch.testing.assert_close(received.flatten(1), ones[:, 0])
    assert len(show.guidance_panels(method, *pair, data)) == 2


def test_the_released_codes_guidance_can_be_shown_too(pair, some):
    from efflib.distill.pkgd import code_variant

    method = show.fitted_guidance(*pair, some, steps=1, **code_variant(trained=True))
    (levels,) = show.guidance_panels(method, *pair, some.take([0]))
    assert all(np.isfinite(part).all() for level in levels for part in level)


def test_a_method_without_ddag_has_no_guidance_to_show(pair, some):
    method = show.fitted_guidance(*pair, some, steps=0, modules="align")
    with pytest.raises(ValueError, match="modules='align' has no DDAG"):
        show.guidance_panels(method, *pair, some)


def test_a_strip_needs_a_recorded_students_weights(tmp_path, monkeypatch):
    store = Store(tmp_path / "records", tmp_path / "cache")
    trial = arm("smoke", "resnet20", "resnet14", "objects32", 0, "pkgd")
    with pytest.raises(FileNotFoundError, match="run it first"):
        show.guidance_strip(trial, store)
    for each in (trial, trial.parents["teacher"]):
        weights = store.save_weights(each.identity, new_model(each.settings).state_dict())
        store.save(recorded(each, {"last": 50.0}, weights=weights))
    output = show.guidance_strip(trial, store, image=1, steps=1)
    assert len(pictures(output)) == 2
    assert "a row per level" in alt_of(output) and "prior (MLFF)" in alt_of(output)
