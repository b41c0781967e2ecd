"""What EncodeNet's chapter and table 3 draw and measure: codes, mixtures, clusters, entropies, the rule's tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from shown import cells_of
from torch import Tensor, nn

from efflib import load_dataset
from efflib.papers.baselines import new_model
from efflib.papers.encodenet import arms, clustering, show
from efflib.papers.encodenet.autoencoder import ConvertingAutoencoder
from efflib.papers.encodenet.codebook import Clusters, build, ranking
from efflib.papers.encodenet.show import Scene
from efflib.trials import Store

mpl.use("agg")


def probabilities(count: int, codes: int, seed: int = 0) -> Tensor:
    drawn = torch.rand(count, codes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.sum(dim=1, keepdim=True)


def pictures(codes: int, values: int = 48, seed: int = 1) -> Tensor:
    return torch.rand(codes, values, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- the codebook view ------------------------------------------------------------------------------------


def test_the_expected_loss_is_its_definition() -> None:
    codes, truth, guess = pictures(5), probabilities(3, 5), probabilities(3, 5, seed=2)
    found = show.expected_loss(codes, truth, guess)
    for n in range(3):
        output = sum(guess[n, m] * codes[m] for m in range(5))
        wanted = sum(truth[n, m] * ((output - codes[m]) ** 2).mean() for m in range(5))
        assert found[n] == pytest.approx(float(wanted), rel=1e-12)


def test_the_excess_is_what_a_wrong_mixture_costs_more() -> None:
    codes, truth, guess = pictures(7), probabilities(50, 7), probabilities(50, 7, seed=2)
    more = show.expected_loss(codes, truth, guess) - show.expected_loss(codes, truth, truth)
    torch.testing.assert_close(show.excess(codes, truth, guess), more, rtol=1e-10, atol=1e-14)
    assert (more > 0).all()
    assert show.excess(codes, truth, truth).abs().max() == 0


def test_certainty_about_the_wrong_code_costs_its_distance() -> None:
    codes, sure = pictures(4), torch.eye(4, dtype=torch.float64)
    pairs = [(m, n) for m in range(4) for n in range(m + 1, 4)]
    costs = torch.stack([show.excess(codes, sure[[m]], sure[[n]])[0] for m, n in pairs])
    torch.testing.assert_close(show.confusion_costs(codes), costs)


def test_noise_makes_it_a_brier_score_times_a_twelfth() -> None:
    codes, truth, guess = pictures(6, 200_000), probabilities(20, 6), probabilities(20, 6, seed=2)
    brier = (guess - truth).square().sum(dim=1)
    torch.testing.assert_close(show.excess(codes, truth, guess), brier / 12, rtol=0.02, atol=0)


def test_the_formula_table_says_when_the_score_is_not_strict(shown: Scene) -> None:
    head, *rows = cells_of(show.formula_table(shown.book, draws=20))
    assert [row[:3] for row in rows] == [["representatives", "yes", "yes"], ["noise images", "yes", "yes"]]
    assert head[3].endswith("least") and float(rows[0][3]) < float(rows[0][4]) < float(rows[0][5])
    twice = replace(shown.book, images=shown.book.images[torch.zeros(len(shown.book.images), dtype=torch.int64)])
    mixed = torch.stack([twice.images[0], *shown.book.images[1:-1], shown.book.images[:2].mean(dim=0)])
    _, first, _ = cells_of(show.formula_table(replace(twice, images=mixed), draws=20))
    assert first[1:3] == ["yes", "no"]  # one code is the mean of two others


def test_mixtures_are_found_and_their_weights_sum_to_one() -> None:
    codes, wanted = pictures(6), probabilities(9, 6)
    torch.testing.assert_close(show.mixtures(wanted @ codes, codes), wanted)
    off = show.mixtures(pictures(9, seed=5), codes)
    torch.testing.assert_close(off.sum(dim=1), torch.ones(9, dtype=torch.float64))
    rest = pictures(9, seed=5) - off @ codes
    assert (rest @ (codes[1:] - codes[0]).T).abs().max() < 1e-12, "nearest: the rest is orthogonal to every mixture"


def test_mixtures_of_codes_that_repeat_still_give_the_picture() -> None:
    codes = pictures(5)[[0, 1, 2, 3, 3]]
    outputs = probabilities(4, 5) @ codes
    torch.testing.assert_close(show.mixtures(outputs, codes) @ codes, outputs)


def test_explained_is_one_in_the_span_and_a_share_of_variance_outside() -> None:
    codes = torch.eye(3, 6, dtype=torch.float64)
    inside = probabilities(40, 3) @ codes
    assert show.explained(inside, codes) == pytest.approx(1)
    outside = torch.zeros_like(inside)
    outside[:20, 5], outside[20:, 5] = 1, -1
    variance = (inside - inside.mean(dim=0)).square().sum()
    assert show.explained(inside + outside, codes) == pytest.approx(float(variance / (variance + 40)))


def test_the_heaviest_class_adds_up_its_codes() -> None:
    weights = torch.tensor([[0.3, 0.3, 0.4], [0.1, 0.2, 0.7], [0.6, -0.3, 0.5]])
    assert show.heaviest_class(weights, torch.tensor([0, 0, 1])).tolist() == [0, 1, 1]


# --- a small scene ----------------------------------------------------------------------------------------

CLASSES, EACH = 3, 14


@pytest.fixture(scope="module")
def shown() -> Scene:
    """Three classes of rendered objects, a baseline and autoencoders that were never trained, two clusters."""
    parent = arms.baseline("smoke", "vgg8", "objects32", 0)
    settings: Any = parent.settings
    data = load_dataset("objects32", "test")
    places = np.concatenate([np.flatnonzero(data.labels == label)[:EACH] for label in range(CLASSES)])
    train = replace(data.take(places), classes=data.classes[:CLASSES])
    network = new_model(settings).eval()
    labels = torch.from_numpy(train.labels)
    logits = torch.randn(len(train), CLASSES, generator=torch.Generator().manual_seed(0))
    ranked = ranking(logits + 1.5 * nn.functional.one_hot(labels), labels)
    clusters = Clusters(torch.arange(len(train)) % 2, torch.arange(len(train)) % 2, [2] * CLASSES)
    book, _ = build("cluster", train, ranked, clusters, labels, seed=0)
    models = {name: ConvertingAutoencoder(new_model(settings), book, width=0.125).eval() for name in ("one", "two")}
    return Scene(settings, network, models, book, train, train, ranked, "fp32")


@pytest.fixture
def grids(monkeypatch) -> list[tuple]:
    """What is handed to `image_grid`: (rows, columns, lines, alt) of each call."""
    calls: list[tuple] = []
    monkeypatch.setattr(show, "image_grid", lambda *given: calls.append(given))
    return calls


class Drawn(nn.Module):
    """In place of an autoencoder: output n of the images asked for, in the order of the whole set."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.outputs, self.place = outputs, 0

    def decode(self, x: Tensor) -> Tensor:
        found = self.outputs[self.place : self.place + len(x)]
        self.place += len(x)
        return found


def drawing(shown: Scene, outputs: Tensor) -> Scene:
    images = outputs.reshape(len(outputs), *shown.book.images.shape[1:])
    return replace(shown, models={"drawn": Drawn(images)})  # type: ignore[dict-item]


def test_outputs_that_are_the_targets_are_recognised_as_such(shown) -> None:
    codes = shown.book.images.flatten(1).double()
    [row] = show.mixture_rows(drawing(shown, codes[shown.book.test]), draws=2)
    assert row["codes"] == pytest.approx(1) and row["others"] < 0.99
    assert (row["heaviest"], row["nearest"]) == (100, 100)
    assert max(row["score"], row["rest"], row["mse"]) < 1e-12


def test_the_error_is_the_score_and_what_lies_outside_the_span(shown) -> None:
    outputs = torch.rand(len(shown.test), shown.book.images[0].numel(), dtype=torch.float64)
    [row] = show.mixture_rows(drawing(shown, outputs), draws=1)
    codes = shown.book.images.flatten(1).double()
    assert row["mse"] == pytest.approx(float((outputs - codes[shown.book.test]).square().mean()))
    assert row["score"] + row["rest"] == pytest.approx(row["mse"], rel=1e-9) and row["rest"] > 0


def test_a_blurred_mixture_is_read_by_its_weights_not_by_the_nearest_code(shown) -> None:
    """Outputs a tenth of the way from the mean of all codes to their target: the weights still tell the class."""
    codes = shown.book.images.flatten(1).double()
    blurred = 0.9 * codes.mean(dim=0) + 0.1 * codes[shown.book.test]
    [row] = show.mixture_rows(drawing(shown, blurred), draws=1)
    assert row["heaviest"] == 100 and row["nearest"] < 60


def test_mixtures_are_tabled_and_told(shown) -> None:
    rows = show.mixture_rows(shown, draws=1)
    head, *lines = cells_of(show.mixture_table(rows, guessing=33.0))
    assert [line[0] for line in lines] == ["one", "two"] and len(head) == len(lines[0]) == 8
    assert lines[0][1] == f"{rows[0]['codes']:.1%}"
    told = show.mixture_words(rows).data
    assert told.count("\n") == 1 and f"for {rows[1]['nearest']:.1f} %." in told


def test_other_images_are_no_representatives(shown) -> None:
    first, second = show._other_images(shown, 2, 0)
    codes = shown.book.images.flatten(1).double()
    assert first.shape == second.shape == codes.shape and not torch.equal(first, second)
    assert torch.cdist(first, codes).min() > 0.1
    own = show._flat(shown.train, shown.book.members)
    torch.testing.assert_close(own, codes, rtol=0, atol=1e-7)


def test_a_scene_has_one_codebook_and_needs_weights(tmp_path) -> None:
    parent = arms.baseline("smoke", "vgg8", "objects32", 0)
    trials = {target: arms.autoencoder("smoke", parent, target) for target in ("cluster", "class", "identity")}
    with pytest.raises(ValueError, match="these 3 autoencoders have 2"):
        show.scene(trials, Store(tmp_path))
    del trials["class"]
    with pytest.raises(FileNotFoundError, match="run it first"):
        show.scene(trials, Store(tmp_path, tmp_path))


# --- figures 2 to 5 ---------------------------------------------------------------------------------------


def test_each_cluster_shows_its_representative_first_and_only_its_own(shown, grids) -> None:
    show.clusters_strip(shown, 1, images=9)
    [(rows, columns, lines, alt)] = grids
    codes = torch.nonzero(shown.book.classes == 1)[:, 0].tolist()
    assert lines == ["cluster 0\n7 images", "cluster 1\n7 images"] and shown.train.classes[1] in alt
    assert all(len(row) == len(columns) == 9 for row in rows)
    for code, row in zip(codes, rows, strict=True):
        np.testing.assert_array_equal(row[0], shown.train.images[int(shown.book.members[code])])
        inside = torch.nonzero(shown.book.train == code)[:, 0].tolist()
        met = [n for n in inside for picture in row[:7] if np.array_equal(picture, shown.train.images[n])]
        assert sorted(met) == inside
        assert not np.any(row[7:]), "a small cluster leaves the end black"


def test_entropies_rise_from_the_lowest_to_the_highest(shown, grids) -> None:
    code = 2
    places = show.by_entropy(shown, code, 5)
    inside = shown.ranked.entropy[shown.book.train == code]
    entropies = shown.ranked.entropy[places]
    assert (entropies.diff() > 0).all() and len(places) == 5
    assert (entropies[0], entropies[-1]) == (inside.min(), inside.max())
    assert len(show.by_entropy(shown, code, 50)) == len(inside)
    show.entropy_strip(shown, code, 50)
    [(rows, columns, _, _)] = grids
    assert len(rows[0]) == len(columns)
    right = shown.ranked.correct[show.by_entropy(shown, code, 50)].tolist()
    assert [("wrong" not in title) for title in columns] == right


def test_the_histogram_tells_how_many_are_right(shown) -> None:
    told = show.entropy_histogram(shown).data
    right = int(shown.ranked.correct.sum())
    assert f"{right} classified rightly" in told
    assert f"{len(shown.train) - right} classified wrongly" in told or right == len(shown.train)


def test_conversions_show_input_outputs_target_and_heaviest_code(shown, grids) -> None:
    show.conversion_strip(shown, images=2)
    [(rows, columns, lines, _)] = grids
    assert columns == ["input", "output,\none", "output,\ntwo", "code\n(target)", "heaviest\ncode"]
    assert len(rows) == len(lines) == 4 and all(len(row) == 5 for row in rows)
    for row, label in zip(rows, (0, 1, 0, 1), strict=True):
        place = int(np.flatnonzero(shown.train.labels == label)[0])
        np.testing.assert_array_equal(row[0], shown.train.images[place])
        member = int(shown.book.members[shown.book.train[place]])
        np.testing.assert_array_equal(row[3], shown.train.images[member])
        assert any(np.array_equal(row[4], shown.train.images[int(n)]) for n in shown.book.members)


def test_features_and_silhouettes_are_those_of_the_clustering(shown) -> None:
    points = show.features_of(shown)
    again = clustering.cluster_features(
        "baseline_penultimate", shown.train, shown.network, shown.settings.training, precision="fp32"
    )
    torch.testing.assert_close(points, again)
    head, *rows = cells_of(show.silhouette_table(shown, ("baseline_penultimate", "pixels"), k=2))
    assert head == ["class", "baseline_penultimate".replace("_", " "), "pixels", "normal noise"]
    assert [row[0] for row in rows] == [*shown.train.classes, "mean"]
    labels = torch.from_numpy(shown.train.labels)
    found = clustering.silhouettes(points, clustering.cluster(points, labels, shown.train.classes, k=2), labels)
    assert [row[1] for row in rows[:-1]] == [f"{value:.3f}" for value in found]


def test_flattened_curves_bend_at_three_whatever_the_data(shown) -> None:
    curves = show.elbow_curves(shown)
    assert list(curves) == ["features", "normal noise of their shape", "five true clusters"]
    assert all(curve[0] == pytest.approx(1) and len(curve) == 9 for both in curves.values() for curve in both.values())
    found = {tuple(row[:2]): row for row in cells_of(show.elbow_table(curves))[1:]}
    assert found["normal noise of their shape", "scalars"][2] == found["five true clusters", "scalars"][2] == "3"
    assert found["five true clusters", "images"][2] == "5"
    alt = show.elbow_figure(curves).data
    assert "five true clusters, k-means of the images: knee 5" in alt
