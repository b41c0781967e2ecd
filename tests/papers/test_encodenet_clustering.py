"""Clusters inside each class: the features they are made of, what they find, how good they are, and the elbow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import nn

from efflib.data import DataNotFound, load_dataset, subset
from efflib.kernels.augment import normalise
from efflib.models import create_model, features
from efflib.models.imagenet import PRETRAINED, VGG16_INPUT
from efflib.papers.encodenet.clustering import (
    Clustering,
    cluster,
    cluster_features,
    flattened_inertias,
    inertias,
    knee,
    mean_ratios,
    scalar_inertias,
    silhouettes,
    smallest_cluster,
)
from efflib.training import TrainingRecipe, normalisation, seeded

RECIPE = TrainingRecipe(epochs=1)


@pytest.fixture(scope="module")
def objects():
    train = load_dataset("objects32", "train")
    return train.take(subset(train.labels, 200, 0))


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", "train")


def network(name: str = "resnet14", **options) -> nn.Module:
    """Running statistics differ from a fresh network's, so that eval mode and train mode do too."""
    with seeded(0):
        model = create_model(name, 10, **{"width": 0.5, **options})
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return model


# --- features -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet14", "vgg8"])
def test_features_of_the_baseline(name, objects):
    objects = objects.take(range(40))
    model = network(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = {
        source: cluster_features(source, objects, model, RECIPE) for source in ("baseline_penultimate", "baseline_mid")
    }
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    images = normalise(torch.from_numpy(objects.images), *normalisation(RECIPE, objects))
    with torch.no_grad():
        expected = features(model.eval(), images)
        torch.testing.assert_close(model.head(found["baseline_penultimate"]), expected.logits)
    torch.testing.assert_close(found["baseline_penultimate"], expected.stages[-1].mean(dim=(2, 3)))
    torch.testing.assert_close(found["baseline_mid"], expected.stages[-2].mean(dim=(2, 3)))
    assert all(value.dtype == torch.float32 and not value.requires_grad for value in found.values())


def test_float64_features_of_a_float64_baseline(objects):
    data = objects.take(range(20))
    for source in ("baseline_penultimate", "baseline_mid"):
        exact = cluster_features(source, data, network().double(), RECIPE, precision="fp64")
        rounded = cluster_features(source, data, network(), RECIPE)
        assert exact.dtype == torch.float64
        torch.testing.assert_close(rounded.double(), exact, rtol=1e-4, atol=1e-4)
        halved = cluster_features(source, data, network(), RECIPE, precision="bf16")
        assert halved.dtype == torch.float32 and not torch.equal(halved, rounded)
        torch.testing.assert_close(halved, rounded, rtol=0.05, atol=0.05)


def test_pixels_are_the_flattened_images(digits):
    found = cluster_features("pixels", digits)
    assert found.shape == (1_257, 64) and found.dtype == torch.float32
    assert found[5].numpy() == pytest.approx(digits.images[5].ravel() / 255)
    assert cluster_features("pixels", digits, precision="fp64").dtype == torch.float64


@pytest.fixture(scope="module")
def vgg16_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    with torch.device("meta"):
        shapes = PRETRAINED["vgg16"].build().state_dict()
    with seeded(0):  # He's initialisation, so that maps neither vanish nor explode
        state = {
            f"features.{name}": torch.randn(value.shape) * (2 / value[0].numel()) ** 0.5
            if value.ndim == 4
            else torch.zeros(value.shape)
            for name, value in shapes.items()
        }
    torch.save(state, path)
    return path


def test_features_of_vgg16(objects, vgg16_weights):
    found = cluster_features("imagenet_vgg16", objects.take(range(6)), weights=vgg16_weights)
    assert found.shape == (6, 512) and found.std(dim=0).max() > 0
    layers = PRETRAINED["vgg16"].build().eval()
    layers.load_state_dict({name.removeprefix("features."): value for name, value in torch.load(vgg16_weights).items()})
    mean, std = (torch.tensor(values)[:, None, None] for values in VGG16_INPUT)
    pixels = torch.from_numpy(objects.images[:6]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = layers((pixels - mean) / std)
    assert expected.shape == (6, 512, 1, 1)
    torch.testing.assert_close(found, expected.flatten(1), rtol=1e-4, atol=1e-3)
    exact = cluster_features("imagenet_vgg16", objects.take(range(2)), precision="fp64", weights=vgg16_weights)
    assert exact.dtype == torch.float64


def test_vgg16_halves_images_five_times(digits, vgg16_weights):
    with pytest.raises(ValueError, match=r"at least 32 x 32 pixels .*; digits has 8 x 8 x 1: use another"):
        cluster_features("imagenet_vgg16", digits, weights=vgg16_weights)
    large = load_dataset("objects64", "train").take([0])
    assert cluster_features("imagenet_vgg16", large, weights=vgg16_weights).shape == (1, 512 * 4)


def test_sources_that_cannot_be_had(objects, monkeypatch, tmp_path):
    for name in ("EFFLIB_DATA", "EFFLIB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
    with pytest.raises(DataNotFound, match=r"weights of VGG16 were not found(.|\n)*'baseline_penultimate'"):
        cluster_features("imagenet_vgg16", objects)
    with pytest.raises(ValueError, match=r"unknown value of feature_source: 'baseline'.*Valid: baseline_penultimate"):
        cluster_features("baseline", objects)
    with pytest.raises(ValueError, match="'baseline_mid' needs the trained baseline: give network= and training="):
        cluster_features("baseline_mid", objects, network())


# --- clusters -------------------------------------------------------------------------------------------------

CLASSES = ("cat", "dog")


def blobs(sizes=((40, 20, 30), (25, 35, 15)), d: int = 6, spread: float = 0.1, seed: int = 0):
    """Features float64 (N, d), labels (N,), true groups (N,): far apart groups of these sizes in each class."""
    generator = np.random.default_rng(seed)
    rows, labels, groups = [], [], []
    for label, class_sizes in enumerate(sizes):
        for group, size in enumerate(class_sizes):
            centre = 5 * generator.normal(size=d)
            rows.append(centre + spread * generator.normal(size=(size, d)))
            labels += [label] * size
            groups += [group] * size
    return torch.from_numpy(np.concatenate(rows)), np.array(labels), np.array(groups)


def partition(assignment, labels, identity=None) -> set[frozenset]:
    """The sets of images that are together, whatever their numbers."""
    identity = np.arange(len(labels)) if identity is None else identity
    pairs = np.asarray(assignment), np.asarray(labels)
    return {
        frozenset(identity[(pairs[0] == number) & (pairs[1] == label)].tolist())
        for number, label in set(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True))
    }


@pytest.mark.parametrize("method", ["kmeans", "hdbscan", "cosine"])
def test_groups_are_found_and_numbered_within_their_class_by_size(method):
    rows, labels, groups = blobs()
    found = cluster(rows, labels, CLASSES, method, min_cluster_size=5)
    assert found.assignment.dtype == torch.int64 and found.counts == (3, 3)
    assert partition(found.assignment, labels) == partition(groups, labels)
    rank = {0: [0, 2, 1], 1: [1, 0, 2]}  # of the groups of 40, 20, 30 and of 25, 35, 15
    assert found.assignment.tolist() == [rank[label][group] for label, group in zip(labels, groups, strict=True)]
    assert (3 * torch.from_numpy(labels) + found.assignment).bincount().tolist() == [40, 30, 20, 35, 25, 15]


def test_kmeans_is_the_specs():
    """PCA only beyond pca_dim features, then ten starts; here by scikit-learn's own names."""
    rows = torch.randn(130, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = np.zeros(130, dtype=np.int64)
    for pca_dim, points in ((12, rows.numpy()), (4, PCA(4, random_state=22).fit_transform(rows.numpy()))):
        expected = KMeans(3, n_init=10, random_state=22).fit(points)
        found = cluster(rows, labels, ["one"], pca_dim=pca_dim)
        assert (found.projections[0].components is None) == (pca_dim == 12)
        assert found.centroids[0].shape == (3, pca_dim)
        # A few points between two clusters may change sides: the starts are drawn from another order of the rows.
        inertia = ((found.projections[0](rows.numpy()) - found.centroids[0][found.assignment]) ** 2).sum()
        assert inertia == pytest.approx(expected.inertia_, rel=0.01)


@pytest.mark.parametrize("method", ["kmeans", "hdbscan", "cosine"])
def test_the_order_of_the_images_does_not_matter(method, objects):
    """On features without clear groups, where other starts give other clusters."""
    rows = cluster_features("baseline_penultimate", objects, network(), RECIPE)
    order = np.random.default_rng(3).permutation(len(objects))
    options = {"min_cluster_size": 2} if method == "hdbscan" else {}
    first = cluster(rows, objects.labels, objects.classes, method, **options)
    again = cluster(rows, objects.labels, objects.classes, method, **options)
    other = cluster(rows[order], objects.labels[order], objects.classes, method, **options)
    assert torch.equal(first.assignment, again.assignment) and max(first.counts) > 1
    assert torch.equal(first.assignment[order], other.assignment)
    assert all(np.array_equal(a, b) for a, b in zip(first.centroids, other.centroids, strict=True))
    other = inertias(rows[order], objects.labels[order], objects.classes, k_max=3)
    assert torch.equal(inertias(rows, objects.labels, objects.classes, k_max=3), other)


def test_the_seed_decides_where_k_means_starts(objects):
    rows = torch.rand(200, 8, generator=torch.Generator().manual_seed(0))
    found = [cluster(rows, objects.labels, objects.classes, k=5, seed=seed).assignment for seed in (22, 22, 23)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_one_class_does_not_change_another():
    rows, labels, _ = blobs()
    changed = rows.clone()
    changed[labels == 1] = torch.randn(75, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = (cluster(each, labels, CLASSES).assignment[labels == 0] for each in (rows, changed))
    assert torch.equal(first, second)


def test_other_images_go_to_the_nearest_centroid_of_their_class():
    rows, labels, groups = blobs()
    found = cluster(rows, labels, CLASSES)
    other, other_labels, _ = blobs(seed=0, sizes=((4, 2, 3), (2, 3, 1)))  # other centres
    expected = [
        int(((found.centroids[label] - row) ** 2).sum(axis=1).argmin())
        for row, label in zip(other.numpy(), other_labels, strict=True)
    ]
    assert found.assign(other, other_labels).tolist() == expected
    assert found.assign(other, torch.from_numpy(other_labels)).tolist() == expected
    assert found.assign(rows[:0], labels[:0]).tolist() == []
    for label in (0, 1):  # the means of its groups
        order = [[0, 2, 1], [1, 0, 2]][label]  # by falling size
        means = [rows[(labels == label) & (groups == group)].mean(dim=0).numpy() for group in order]
        assert found.centroids[label] == pytest.approx(np.stack(means))


@pytest.mark.parametrize(("method", "pca_dim"), [("kmeans", 100), ("kmeans", 5), ("cosine", 100)])
def test_clustered_images_are_assigned_to_their_own_clusters(method, pca_dim, digits):
    rows = cluster_features("pixels", digits)
    found = cluster(rows, digits.labels, digits.classes, method, pca_dim=pca_dim)
    assert torch.equal(found.assign(rows, digits.labels), found.assignment)
    test = load_dataset("digits", "test")
    assert found.assign(cluster_features("pixels", test), test.labels).unique().tolist() == [0, 1, 2]


def test_components_are_limited_by_the_images_of_a_class():
    rows = torch.randn(21, 300, generator=torch.Generator().manual_seed(0))
    labels = np.repeat([0, 1], [15, 6])
    found = cluster(rows, labels, CLASSES, k=2)
    assert [projection.components.shape for projection in found.projections] == [(14, 300), (5, 300)]
    assert found.assign(rows, labels).tolist() == found.assignment.tolist()
    single = cluster(rows[:1], labels[:1], ["cat"], k=1)  # one image has no components
    assert single.counts == (1,) and single.projections[0].components is None


def test_cosine_sees_directions_only():
    generator = np.random.default_rng(0)
    angles = np.repeat([0.0, 1.0, 2.0], 20) + 0.05 * generator.normal(size=60)
    lengths = generator.uniform(0.1, 100, size=(60, 1))
    rows = torch.from_numpy(lengths * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    labels, groups = np.zeros(60, dtype=np.int64), np.repeat([0, 1, 2], 20)
    assert partition(cluster(rows, labels, ["one"], "cosine").assignment, labels) == partition(groups, labels)
    assert partition(cluster(rows, labels, ["one"], "kmeans").assignment, labels) != partition(groups, labels)
    rows[0] = 0  # a network whose ReLU is silent
    assert cluster(rows, labels, ["one"], "cosine").counts == (3,)


# --- HDBSCAN --------------------------------------------------------------------------------------------------


def test_noise_goes_to_the_nearest_cluster():
    rows, labels, groups = blobs(sizes=((60, 40), (50, 30, 20)), spread=0.05)
    across = rows[0] - rows[99]
    outliers = torch.stack([rows[0] + 2 * across, rows[99] - 4 * across])  # further out than the groups are apart
    rows, labels = torch.cat([rows, outliers]), np.append(labels, [0, 0])
    found = cluster(rows, labels, CLASSES, "hdbscan", min_cluster_size=10)
    assert found.counts == (2, 3) and found.unsplit == ()
    assert found.noise[0] >= 2
    assert partition(found.assignment[:-2], labels[:-2]) == partition(groups, labels[:-2])
    assert found.assignment[-2:].tolist() == [0, 1]
    means = torch.stack([rows[:60].mean(dim=0), rows[60:100].mean(dim=0)])  # the outliers did not move them
    assert found.centroids[0] == pytest.approx(means.numpy(), abs=0.05)
    assert found.assign(outliers, np.zeros(2, dtype=np.int64)).tolist() == [0, 1]


def test_a_class_without_groups_stays_one_cluster_and_is_recorded():
    rows, labels, _ = blobs(sizes=((60, 40), (80,)))
    rows[labels == 1] = torch.rand(80, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = cluster(rows, labels, CLASSES, "hdbscan", k=7, min_cluster_size=20)
    assert found.counts == (2, 1) and found.unsplit == (1,)
    assert found.assignment[labels == 1].unique().tolist() == [0]
    assert found.centroids[1][0] == pytest.approx(rows[labels == 1].mean(dim=0).numpy())
    assert cluster(rows, labels, CLASSES, k=1).unsplit == ()  # asked for, not a failure
    few = cluster(rows[:9], labels[:9], ["cat"], "hdbscan")  # no room for two clusters of five
    assert few.counts == (1,) and few.unsplit == (0,) and few.noise == (0,)


def test_identical_images_are_a_dense_cluster():
    rows, labels, groups = blobs(sizes=((30, 30),))
    rows[:30] = rows[0]
    found = cluster(rows, labels, ["one"], "hdbscan", min_cluster_size=10)
    assert partition(found.assignment, labels) == partition(groups, labels)


def test_hdbscan_looks_at_ten_components():
    rows, labels, groups = blobs(d=50)
    found = cluster(rows, labels, CLASSES, "hdbscan", min_cluster_size=5)
    assert [centroids.shape for centroids in found.centroids] == [(3, 10), (3, 10)]
    assert partition(found.assignment, labels) == partition(groups, labels)
    assert cluster(rows, labels, CLASSES, "hdbscan", pca_dim=2).centroids[0].shape[1] == 2


def test_the_smallest_cluster_follows_the_class():
    """The spec's 100 for CIFAR-10 and 25 for CIFAR-100; whole sets, then the subsets of `tiny` and of smoke."""
    assert [smallest_cluster(images) for images in (5_000, 1_000, 500, 900, 90, 200, 3)] == [
        100, 100, 25, 25, 5, 10, 5,
    ]  # fmt: skip
    rows, labels, _ = blobs(sizes=((60, 40), (80, 9)))
    assert cluster(rows, labels, CLASSES, "hdbscan").counts == (2, 2)
    larger = cluster(rows, labels, CLASSES, "hdbscan", min_cluster_size=10)
    assert larger.counts == (2, 1) and larger.unsplit == (1,)


# --- what is refused ------------------------------------------------------------------------------------------


def test_wrong_options():
    rows, labels, _ = blobs()
    wrong = [
        ({"method": "kmean"}, "unknown value of cluster_method: 'kmean'. Did you mean 'kmeans'"),
        ({"k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"k": True}, "k must be a whole number of at least 1, got True"),
        ({"k": 2.0}, r"k must be a whole number of at least 1, got 2\.0"),
        ({"pca_dim": 0}, "pca_dim must be a whole number of at least 1, got 0"),
        ({"min_cluster_size": 1}, "min_cluster_size must be a whole number of at least 2, got 1"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            cluster(rows, labels, CLASSES, **options)
    with pytest.raises(ValueError, match="k_max must be a whole number of at least 1, got 0"):
        inertias(rows, labels, CLASSES, k_max=0)


@pytest.mark.parametrize("method", ["kmeans", "hdbscan", "cosine"])
def test_classes_with_too_few_images(method):
    rows, labels, _ = blobs()
    with pytest.raises(ValueError, match=r"class 2 \(cow\) has no images: take a subset with images of each of the 3"):
        cluster(rows, labels, (*CLASSES, "cow"), method)
    if method != "hdbscan":
        keep = np.r_[:90, 90, 91]
        with pytest.raises(
            ValueError, match=r"class 1 \(dog\) has 2 images, which cannot make 3 clusters: .*at most 2"
        ):
            cluster(rows[keep], labels[keep], CLASSES, method)


def test_empty_clusters_are_refused():
    rows, labels, _ = blobs()
    rows[labels == 1] = rows[-1].clone()
    rows[90] += 1
    for options in ({}, {"pca_dim": 2}, {"method": "cosine"}):
        with pytest.raises(
            ValueError, match=r"class 1 \(dog\) has only 2 different .* among 75 images, so 1 of 3 .*k <= 2"
        ):
            cluster(rows, labels, CLASSES, **options)
    rows[90] = rows[-1]  # all images of the class the same: no variance for components either
    assert cluster(rows, labels, CLASSES, k=1, pca_dim=2).counts == (1, 1)


def test_features_that_do_not_fit():
    rows, labels, _ = blobs()
    broken = rows.clone()
    broken[3, 1], broken[7] = float("nan"), float("inf")
    found = cluster(rows, labels, CLASSES)
    for refuse in (
        lambda rows, labels: cluster(rows, labels, CLASSES),
        lambda rows, labels: inertias(rows, labels, CLASSES),
        lambda rows, labels: flattened_inertias(rows, labels, CLASSES),
        lambda rows, labels: silhouettes(rows, found, labels),
        found.assign,
    ):
        with pytest.raises(ValueError, match="2 of 165 images have features that are not finite"):
            refuse(broken, labels)
        with pytest.raises(ValueError, match=r"features must be \(N, D\) and labels \(N,\), got \(165, 6\) and \(9,\)"):
            refuse(rows, labels[:9])
        with pytest.raises(ValueError, match="labels go from 0 to 2, but there are 2 classes"):
            refuse(rows, np.where(labels == 1, 2, labels))
    with pytest.raises(ValueError, match="made of 6 features per image, these are 5"):
        found.assign(rows[:, :5], labels)
    with pytest.raises(ValueError, match="made of 6 features per image, these are 5"):
        cluster(rows, labels, CLASSES, pca_dim=2).assign(rows[:, :5], labels)


# --- silhouettes ----------------------------------------------------------------------------------------------


def silhouette_by_definition(points: np.ndarray, numbers: np.ndarray) -> float:
    apart, found = np.linalg.norm(points[:, None] - points[None], axis=2), []
    for i, own in enumerate(numbers):
        a = apart[i][(numbers == own) & (np.arange(len(numbers)) != i)].mean()
        b = min(apart[i][numbers == other].mean() for other in set(numbers.tolist()) - {own})
        found.append((b - a) / max(a, b))
    return float(np.mean(found))


@pytest.mark.parametrize(("method", "pca_dim"), [("kmeans", 100), ("kmeans", 3), ("cosine", 100)])
def test_silhouettes_are_those_of_the_space_that_was_clustered(method, pca_dim):
    rows, labels, _ = blobs(spread=2)
    found = cluster(rows, labels, CLASSES, method, pca_dim=pca_dim)
    expected = []
    for label in (0, 1):
        own = rows.numpy()[labels == label]
        if method == "cosine":
            own = own / np.linalg.norm(own, axis=1, keepdims=True)
        elif pca_dim == 3:
            own = PCA(3).fit_transform(own)
        expected.append(silhouette_by_definition(own, found.assignment.numpy()[labels == label]))
    assert silhouettes(rows, found, labels) == pytest.approx(expected)


def test_silhouettes_of_a_sample():
    rows, labels, _ = blobs(spread=2, sizes=((400, 200, 300), (25, 35, 15)))
    found = cluster(rows, labels, CLASSES)
    whole, sampled = silhouettes(rows, found, labels), silhouettes(rows, found, labels, limit=300)
    assert sampled[0] != whole[0] and sampled[0] == pytest.approx(whole[0], abs=0.05)
    assert sampled[1] == whole[1]  # 75 images are below the limit
    assert silhouettes(rows, found, labels, limit=300) == sampled
    assert silhouettes(rows, found, labels, limit=300, seed=1)[0] != sampled[0]


def test_silhouettes_that_are_not_defined():
    rows, labels, _ = blobs(sizes=((30, 30), (3,)))
    assert silhouettes(rows, cluster(rows, labels, CLASSES, k=1), labels) == [None, None]
    first, second = silhouettes(rows, cluster(rows, labels, CLASSES, k=3), labels)
    assert first > 0 and second is None  # three clusters of one image each
    with pytest.raises(ValueError, match="63 images were clustered, these are 30"):
        silhouettes(rows[:30], cluster(rows, labels, CLASSES, k=1), labels[:30])


# --- the elbow ------------------------------------------------------------------------------------------------


def test_the_knee_of_the_spec():
    found = knee([100, 60, 35, 28, 24, 21])
    assert found.k == 3 and found.height == pytest.approx(0.4228, abs=5e-5)
    assert found.heights == pytest.approx([0, 0.3063, 0.4228, 0.3114, 0.1620, 0], abs=5e-5)
    assert knee(torch.tensor([9.0, 9, 9, 8])).k == 1  # a curve that bends upwards lies above its line


def test_curves_without_a_knee():
    with pytest.raises(ValueError, match=r"at least three points \(k = 1, 2, 3\), got shape \(2,\)"):
        knee([2, 1])
    with pytest.raises(ValueError, match="inertias from 2 to 2 do not fall with k"):
        knee([2, 1, 2])


def test_inertias_are_those_of_each_class():
    rows, labels, _ = blobs(spread=0.5)
    found = inertias(rows, labels, CLASSES, k_max=6)
    assert found.shape == (2, 6) and found.dtype == torch.float64
    for label in (0, 1):
        own = rows[labels == label]
        assert found[label, 0] == pytest.approx(float((own - own.mean(dim=0)).square().sum()))
        expected = [KMeans(k, n_init=10, random_state=0).fit(own.numpy()).inertia_ for k in range(1, 7)]
        assert found[label].tolist() == pytest.approx(expected, rel=0.02)
    ratios = mean_ratios(found)
    assert ratios.tolist() == pytest.approx(((found[0] / found[0, 0] + found[1] / found[1, 0]) / 2).tolist())
    assert knee(ratios).k == 3


def test_a_class_without_spread_has_no_ratios():
    rows, labels, _ = blobs()
    rows[labels == 1] = rows[-1].clone()
    with pytest.raises(ValueError, match="all images of class 1 have the same features"):
        mean_ratios(inertias(rows, labels, CLASSES, k_max=3))
    with pytest.raises(ValueError, match=r"class 0 \(cat\) has 3 images, which cannot make 9 clusters"):
        inertias(rows[:3], labels[:3], ["cat"])


GAUSSIAN = [1, 0.3634, 0.1902, 0.1175, 0.0799, 0.0580, 0.0440, 0.0345, 0.0279]


def test_scalars_of_a_gaussian_have_the_ratios_of_the_spec():
    scalars = norm.ppf((np.arange(500_000) + 0.5) / 500_000)  # as many as 5,000 images with 100 components give
    found = np.array(scalar_inertias(scalars))
    assert found / found[0] == pytest.approx(GAUSSIAN, abs=6e-5)
    assert knee(found).k == 3


@pytest.mark.parametrize("seed", range(4))
def test_k_means_of_scalars_is_k_means(seed):
    """Against scikit-learn, and against the best of all intervals."""
    generator = np.random.default_rng(seed)
    scalars = np.concatenate([generator.normal(1_000, 1, 15), generator.exponential(30, 10), [7.0] * 5])
    found = scalar_inertias(scalars[generator.permutation(30)], k_max=4, seed=seed)
    values = np.sort(scalars)
    for k, inertia in enumerate(found, start=1):
        cuts = ((0, *inner, 30) for inner in itertools.combinations(range(1, 30), k - 1))
        best = min(sum(values[a:b].var() * (b - a) for a, b in itertools.pairwise(bounds)) for bounds in cuts)
        reference = KMeans(k, n_init=10, random_state=0).fit(scalars[:, None]).inertia_
        assert best * (1 - 1e-9) <= inertia <= reference * (1 + 1e-9)


def test_more_clusters_than_different_scalars():
    assert scalar_inertias(np.array([1.0, 1, 1, 5]), k_max=4) == pytest.approx([12, 0, 0, 0])
    assert scalar_inertias(np.full(6, 3.0), k_max=2) == [0, 0]


def test_the_flattened_elbow_does_not_see_clusters():
    """Section 2.3: it is three for noise and for five true clusters alike; done properly, the latter give five."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(400, 40))
    centres = 3 * generator.normal(size=(5, 40))
    five = centres[np.arange(400) % 5] + generator.normal(size=(400, 40))
    rows, labels = torch.from_numpy(np.concatenate([noise, five])), np.repeat([0, 1], 400)
    flat = flattened_inertias(rows, labels, CLASSES, pca_dim=20)
    assert flat.shape == (2, 9) and [knee(curve).k for curve in flat] == [3, 3]
    assert (flat[0] / flat[0, 0]).tolist() == pytest.approx(GAUSSIAN, abs=0.02)
    assert knee(mean_ratios(flat)).k == 3
    proper = inertias(rows, labels, CLASSES, pca_dim=20)
    assert knee(proper[1]).k == 5 and knee(proper[1]).height > 2 * knee(proper[0]).height
    # The scalars are those of the components, of all of them where there are fewer features than pca_dim.
    points = PCA(20, random_state=22).fit_transform(noise[np.lexsort(noise.T[::-1])])
    assert flat[0].tolist() == pytest.approx(scalar_inertias(points))
    whole = flattened_inertias(rows, labels, CLASSES)
    assert whole[0, 0] == pytest.approx(float(((noise - noise.mean(axis=0)) ** 2).sum()))


def test_embedded_digits_have_clusters(digits):
    rows = cluster_features("pixels", digits)
    found = cluster(rows, digits.labels, digits.classes)
    assert isinstance(found, Clustering) and found.counts == (3,) * 10
    assert all(0.05 < value < 0.5 for value in silhouettes(rows, found, digits.labels))
    counts = [found.assignment[digits.labels == label].bincount() for label in range(10)]
    assert all(count.min() > 0 and torch.equal(count, count.sort(descending=True).values) for count in counts)
