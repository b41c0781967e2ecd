"""EncodeNet's codebook: which image each (class, cluster) is converted to, and what a constant output would cost.

The target of the converting autoencoder depends on an image through its class and cluster only. So the C K targets are
a fixed codebook, and the autoencoder regresses onto it (spec, section 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from efflib.data import ImageSet
from efflib.kernels import softmax_stats
from efflib.training import derived_seed

# What stands in the codebook. The last five are controls that the paper does not have (spec, section 2.7).
Codes = Literal["cluster", "class", "rand_rep", "max_ent", "noise_code", "rand_cluster", "other_class_code"]


@dataclass(frozen=True)
class Ranking:
    """How sure the baseline is of each image of a set: all (N,).

    entropy: float64, nats. truth: float64, probability of the true class. correct: bool. labels: int64.
    """

    entropy: Tensor
    truth: Tensor
    correct: Tensor
    labels: Tensor


def ranking(logits: Tensor, labels: Tensor) -> Ranking:
    """Rank images by the entropy of the baseline's softmax, in float64: trained networks saturate float32.

    Args:
        logits: (N, C) of un-augmented images in eval mode.
        labels: (N,) int64.

    Source: EncodeNet, section 3.2.
    """
    z = logits.double()
    stats = softmax_stats(z)
    truth = z.log_softmax(dim=1).gather(1, labels[:, None])[:, 0].exp()
    return Ranking(stats.entropy, truth, stats.prediction == labels, labels)


@dataclass(frozen=True)
class Chosen:
    """The image of each group, and what the choice met.

    members: (M,) positions in the set. changed: groups whose choice `require_correct` changed. never_correct: groups
    (a class, or a cluster of one) without one correctly classified image: the highest true-class probability decided.
    """

    members: Tensor
    changed: int
    never_correct: list[int]


def representatives(ranked: Ranking, groups: Tensor, require_correct: bool = True) -> Chosen:
    """The image of lowest entropy in each group; ties by true-class probability, then by position.

    Args:
        ranked: of the N images.
        groups: (N,) int64, the numbers 0..M-1, each with at least one image.
        require_correct: choose among the images that the baseline classifies correctly (the paper does not say).

    Raises:
        ValueError: a group without an image.

    Source: EncodeNet, section 3.2; ties and correctness are decisions of the spec (section 2.4).
    """
    members, changed, hopeless = [], 0, []
    for number, inside in enumerate(_members(groups)):
        best = _first(inside, ranked.entropy[inside], -ranked.truth[inside])
        if require_correct:
            right = inside[ranked.correct[inside]]
            if len(right):
                wanted = _first(right, ranked.entropy[right], -ranked.truth[right])
            else:
                wanted = _first(inside, -ranked.truth[inside], ranked.entropy[inside])
                hopeless.append(number)
            changed += int(wanted != best)
            best = wanted
        members.append(best)
    return Chosen(torch.tensor(members), changed, hopeless)


def _members(groups: Tensor) -> list[Tensor]:
    found = [torch.nonzero(groups == number)[:, 0] for number in range(int(groups.max()) + 1)]
    empty = [number for number, inside in enumerate(found) if not len(inside)]
    if empty:
        raise ValueError(f"groups {empty} hold no image: every cluster of every class needs one, use fewer clusters")
    return found


def _first(positions: Tensor, *keys: Tensor) -> int:
    order = np.lexsort((positions.numpy(), *(key.numpy() for key in reversed(keys))))
    return int(positions[int(order[0])])


@dataclass(frozen=True)
class Codebook:
    """M code images and who is converted to which.

    images: (M, C, H, W) float32 in [0, 1], not normalised. classes: (M,) class of each code. train, test: code of each
    training and test image, (N,) and (N_test,); a test image's cluster is the nearest of its true class. members: (M,)
    training image that each code shows, -1 where it shows none.
    """

    images: Tensor
    classes: Tensor
    train: Tensor
    test: Tensor
    members: Tensor

    @property
    def shares(self) -> Tensor:
        """(M,) share of the training images that each code stands for."""
        counts = torch.bincount(self.train, minlength=len(self.images)).double()
        return counts / counts.sum()

    @property
    def constant_mse(self) -> float:
        """V_T, the mean squared error of the best constant output: it makes losses of different targets comparable.

        sum_m w_m mean_j (t_mj - mean_j)^2 (spec, section 2.8).
        """
        codes, shares = self.images.double().flatten(1), self.shares
        return float((shares[:, None] * (codes - shares @ codes).square()).sum(dim=0).mean())

    @property
    def class_known_mse(self) -> float:
        """The error of the best output for someone who knows the class but not the cluster: variance within classes."""
        codes, shares = self.images.double().flatten(1), self.shares
        total = 0.0
        for number in self.classes.unique():
            inside = self.classes == number
            weights = shares[inside] / shares[inside].sum()
            spread = (weights[:, None] * (codes[inside] - weights @ codes[inside]).square()).sum(dim=0).mean()
            total += float(shares[inside].sum() * spread)
        return total


@dataclass(frozen=True)
class Clusters:
    """Cluster of each image within its class: train (N,), test (N_test,) (of its true class), and counts per class."""

    train: Tensor
    test: Tensor
    counts: list[int]


def build(
    codes: Codes,
    train: ImageSet,
    ranked: Ranking,
    clusters: Clusters,
    test_labels: Tensor,
    seed: int,
    require_correct: bool = True,
) -> tuple[Codebook, Chosen]:
    """The codebook of one arm.

    Args:
        codes: "cluster" is the method, "class" the paper's ablation without clusters, the others are our controls.
        train: the N training images.
        ranked: of the same images.
        clusters: of the training and test images.
        test_labels: (N_test,) int64.
        seed: of random members, random clusters and noise.
        require_correct: as in `representatives`.

    Raises:
        ValueError: classes with different numbers of clusters where codes move to another class.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, 0, f"codebook {codes}"))
    clusters = _regrouped(codes, clusters, ranked.labels, test_labels, generator)
    counts = torch.tensor(clusters.counts)
    offsets = counts.cumsum(dim=0) - counts  # with HDBSCAN the number of clusters differs by class
    groups = clusters.train + offsets[ranked.labels]
    chosen = _chosen(codes, ranked, groups, generator, require_correct)
    members = _moved(chosen.members, clusters.counts) if codes == "other_class_code" else chosen.members
    if codes == "noise_code":
        height, width, channels = train.images.shape[1:]
        images = torch.rand((len(members), channels, height, width), generator=generator)
        members = torch.full_like(members, -1)
    else:
        images = torch.from_numpy(train.images[members.numpy()]).permute(0, 3, 1, 2).float() / 255
    classes = torch.repeat_interleave(torch.arange(len(counts)), counts)
    found = Codebook(images.contiguous(), classes, groups, clusters.test + offsets[test_labels], members)
    return found, chosen


def _regrouped(codes: Codes, clusters: Clusters, labels: Tensor, test_labels: Tensor, generator) -> Clusters:
    """The clusters that an arm uses: those found, none at all, or as many by chance."""
    if codes == "class":
        return Clusters(torch.zeros_like(labels), torch.zeros_like(test_labels), [1] * len(clusters.counts))
    if codes != "rand_cluster":
        return clusters
    drawn = torch.rand(len(test_labels), generator=generator) * torch.tensor(clusters.counts)[test_labels]
    return Clusters(_random_clusters(labels, clusters.counts, generator), drawn.long(), clusters.counts)


def _random_clusters(labels: Tensor, counts: list[int], generator: torch.Generator) -> Tensor:
    """As many clusters as found, of nearly equal size, by chance."""
    found = torch.empty_like(labels)
    for number, count in enumerate(counts):
        inside = torch.nonzero(labels == number)[:, 0]
        found[inside[torch.randperm(len(inside), generator=generator)]] = torch.arange(len(inside)) % count
    return found


def _chosen(codes: Codes, ranked: Ranking, groups: Tensor, generator: torch.Generator, require_correct: bool) -> Chosen:
    if codes == "rand_rep":
        picks = [int(inside[torch.randint(len(inside), (), generator=generator)]) for inside in _members(groups)]
        return Chosen(torch.tensor(picks), 0, [])
    if codes == "max_ent":
        return representatives(Ranking(-ranked.entropy, -ranked.truth, ranked.correct, ranked.labels), groups, False)
    return representatives(ranked, groups, require_correct)


def _moved(members: Tensor, counts: list[int]) -> Tensor:
    """Each class gets the representatives of the class before it: still a code for the label, of the wrong picture."""
    if len(set(counts)) > 1 or len(counts) < 2:
        raise ValueError(f"codes of another class need two classes or more with equally many clusters, got {counts}")
    return members.roll(counts[0])
