"""Ways to cluster, the grid of representatives, and the table of recorded codebooks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_records import recorded
from shown import cells_of

from efflib.papers.encodenet import arms, codebooks_page
from efflib.trials import Store


def clouds(per_cluster: int = 40, clusters: int = 3, classes: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Tight, far clusters in each class: (N, 5) float64 and (N,) labels."""
    chance = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(classes * clusters, 5, generator=chance, dtype=torch.float64)
    points = centres.repeat_interleave(per_cluster, 0)
    points = points + 0.1 * torch.randn(points.shape, generator=chance, dtype=torch.float64)
    return points, torch.arange(classes).repeat_interleave(clusters * per_cluster)


def test_every_method_finds_clusters_that_are_there() -> None:
    points, labels = clouds()
    head, *rows = cells_of(codebooks_page.methods_table(points, labels, ("a", "b")))
    found = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(found) == ["kmeans", "hdbscan", "cosine"]
    for method, row in found.items():
        assert row["clusters per class"] == "3", method
        assert float(row["silhouette, classes"].split()[0]) > 0.9 or method == "cosine"
    assert (found["hdbscan"]["images left out as noise"], found["hdbscan"]["classes that stay whole"]) == ("0", "0")
    assert found["kmeans"]["images left out as noise"] == ""


def test_hdbscan_tells_what_it_could_not_split() -> None:
    one = torch.randn(120, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    row = cells_of(codebooks_page.methods_table(one, torch.zeros(120, dtype=torch.long), ("a",)))[2]
    assert (row[0], row[1], row[-1]) == ("hdbscan", "1", "1")


def test_the_grid_has_the_representatives_of_every_class_in_a_column(monkeypatch) -> None:
    calls: list[tuple] = []
    monkeypatch.setattr(codebooks_page, "image_grid", lambda *given: calls.append(given))
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((6, 2, 2, 3), dtype=np.uint8)
    book: Any = SimpleNamespace(classes=torch.tensor([0, 0, 1]), members=torch.tensor([4, 1, 5]))
    train: Any = SimpleNamespace(classes=("cat", "dog"), images=images)
    codebooks_page.representatives_grid(book, train)
    [(rows, columns, lines, _)] = calls
    assert lines == ["cluster 0", "cluster 1"] and columns == ["cat", "dog"]
    assert [[int(picture[0, 0, 0]) for picture in row] for row in rows] == [[4, 5], [1, 0]]  # 0: left black


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("EFFLIB_RESULTS", str(tmp_path))
    return Store(tmp_path)


def test_without_codebooks_there_is_a_sentence(store) -> None:
    assert "No codebook of real images is recorded yet." in codebooks_page.codebooks_table().data


def test_seeds_of_one_kind_share_a_row_and_give_ranges(store) -> None:
    plain = {
        "codes": 4,
        "constant_mse": 0.05,
        "class_known_mse": 0.03,
        "never_correct": [],
        "changed_by_correctness": 0,
    }
    for seed, low in ((0, 0.1), (1, 0.2)):
        parent = arms.baseline("tiny", "resnet20", "cifar10", seed)
        curves = {"silhouette": [low, None, 0.4], "knee": 3 + seed, "knee_height": 0.3, "knee_flattened": 3}
        told = {**plain, **curves, "knee_height_flattened": 0.5, "counts": [10 + seed, 300], "entropies": [1e-4, low]}
        told |= {"changed_by_correctness": 2 * seed, "never_correct": [7] * seed}
        store.save(recorded(arms.codebook("tiny", parent), told, variant="jpeg-q7"))
    single = {**plain, "counts": [500, 510], "entropies": [1e-5]}
    parent = arms.baseline("tiny", "resnet20", "cifar10", 0)
    store.save(recorded(arms.codebook("tiny", parent, "class"), single, variant="jpeg-q7"))
    _, *lines = cells_of(codebooks_page.codebooks_table())
    names, *columns = zip(*lines, strict=True)
    found = {column[names.index("codes")]: dict(zip(names, column, strict=True)) for column in columns}
    assert set(found) == {"cluster", "class"}
    row = found["cluster"]
    assert (row["scale"], row["network"], row["data"], row["seeds"]) == ("tiny", "resnet20", "cifar10 (jpeg-q7)", "2")
    assert row["clustered"] == "kmeans, k = 3, baseline_penultimate"
    assert (row["silhouette"], row["knee (height)"]) == ("0.10 to 0.40", "3 to 4 (0.30)")
    assert (row["knee, flattened (height)"], row["images of a code"]) == ("3 (0.50)", "10 to 300")
    assert row["entropy of representatives"] == "0.0001 to 0.2"
    assert row["choices changed because the baseline erred"] == "0 to 2"
    assert row["codes without an image that it gets right"] == "0 to 1"
    assert (row["error: one output"], row["one per class"]) == ("0.0500", "0.0300")
    assert (found["class"]["clustered"], found["class"]["silhouette"], found["class"]["knee (height)"]) == ("", "", "")
