"""EncodeNet's codebook: who represents whom, the controls, and the errors that losses are measured against."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from efflib.data import ImageSet
from efflib.papers.encodenet.codebook import Clusters, Codebook, Ranking, build, ranking, representatives

CLASSES, PER_CLASS, K = 4, 9, 3
N = CLASSES * PER_CLASS


def images(count=N):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(count) % CLASSES
    return ImageSet("objects32", "train", pixels, labels, tuple("abcd"), np.arange(count), "f", "embedded")


def logits(seed=0):
    return torch.randn(N, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def clusters(counts=(K,) * CLASSES):
    """Image n has label n % CLASSES and, within its class, cluster (n // CLASSES) % counts."""
    labels, place = torch.arange(N) % CLASSES, torch.arange(N) // CLASSES
    inside = place % torch.tensor(counts)[labels]
    return Clusters(inside, inside[:12], list(counts))


def made(codes="cluster", seed=0, **options):
    data = images()
    ranked = ranking(logits(), torch.from_numpy(data.labels))
    given = options.pop("clusters", clusters())
    return build(codes, data, ranked, given, torch.from_numpy(data.labels[:12]), seed, **options), ranked


def test_ranking_is_the_entropy_in_nats_of_the_softmax():
    p = logits().softmax(dim=1)
    labels = torch.arange(N) % CLASSES
    ranked = ranking(logits().float(), labels)
    assert torch.allclose(ranked.entropy, -(p * p.log()).sum(dim=1), rtol=1e-6)
    assert torch.allclose(ranked.truth, p[torch.arange(N), labels], rtol=1e-6)
    assert torch.equal(ranked.correct, logits().argmax(dim=1) == labels)
    assert ranked.entropy.dtype == torch.float64


def test_the_representative_has_the_lowest_entropy_of_its_correct_members():
    (book, chosen), ranked = made()
    assert len(book.images) == CLASSES * K
    for code, member in enumerate(chosen.members.tolist()):
        inside = torch.nonzero(book.train == code)[:, 0]
        right = inside[ranked.correct[inside]]
        pool = right if len(right) else inside
        if len(right):
            assert ranked.entropy[member] == ranked.entropy[pool].min()
        else:
            assert code in chosen.never_correct and ranked.truth[member] == ranked.truth[pool].max()
        assert torch.equal(book.images[code], torch.from_numpy(images().images[member]).permute(2, 0, 1) / 255)
        assert book.classes[code] == ranked.labels[member]


def test_every_image_is_converted_within_its_class():
    (book, _), ranked = made()
    assert torch.equal(book.classes[book.train], ranked.labels)
    assert torch.equal(book.classes[book.test], ranked.labels[:12])
    assert book.train.bincount().tolist() == [3] * 12


def test_correctness_is_counted_where_it_changes_a_choice():
    (_, strict), _ = made()
    (_, free), _ = made(require_correct=False)
    differ = int((strict.members != free.members).sum())
    assert strict.changed == differ > 0
    assert free.changed == 0 and free.never_correct == []


def test_ties_go_to_the_higher_true_probability_then_to_the_lower_position():
    zeros = torch.zeros(4, dtype=torch.float64)
    labels, groups = torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
    right = torch.ones(4, dtype=torch.bool)
    ranked = Ranking(zeros, torch.tensor([0.1, 0.9, 0.9, 0.2]), right, labels)
    assert representatives(ranked, groups).members.tolist() == [1]
    assert representatives(Ranking(zeros, zeros, right, labels), groups).members.tolist() == [0]


def test_a_class_that_is_never_correct_takes_its_likeliest_image():
    labels = torch.zeros(3, dtype=torch.int64)
    ranked = Ranking(
        torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.2, 0.4, 0.3]), torch.zeros(3, dtype=torch.bool), labels
    )
    chosen = representatives(ranked, labels)
    assert chosen.members.tolist() == [1] and chosen.never_correct == [0] and chosen.changed == 1


def test_the_class_representative_is_one_of_the_cluster_representatives():
    # Spec, section 2.4: an exact consistency check.
    (by_cluster, chosen), ranked = made(require_correct=False)
    (_, single), _ = made("class", require_correct=False)
    for number, member in enumerate(single.members.tolist()):
        own = chosen.members[by_cluster.classes == number]
        assert member in own.tolist()
        assert ranked.entropy[member] == ranked.entropy[own].min()


@pytest.mark.parametrize("codes", ["rand_rep", "max_ent", "noise_code", "rand_cluster", "other_class_code"])
def test_controls_keep_the_labels_that_the_codes_carry(codes):
    (book, _), ranked = made(codes)
    (plain, _), _ = made()
    assert torch.equal(book.classes[book.train], ranked.labels)
    assert len(book.images) == len(plain.images)
    assert not torch.equal(book.images, plain.images)
    (again, _), _ = made(codes)
    assert torch.equal(book.images, again.images) and torch.equal(book.train, again.train)


def test_what_each_control_changes():
    (plain, _), ranked = made(require_correct=False)
    (worst, _), _ = made("max_ent")
    for code, member in enumerate(worst.members.tolist()):
        assert ranked.entropy[member] == ranked.entropy[plain.train == code].max()
    (drawn, _), _ = made("rand_rep")
    assert all(drawn.train[member] == code for code, member in enumerate(drawn.members.tolist()))
    (noise, _), _ = made("noise_code")
    assert (noise.members == -1).all() and 0.4 < noise.images.mean() < 0.6
    (moved, _), _ = made("other_class_code", require_correct=False)
    assert torch.equal(moved.images, plain.images.roll(K, 0))
    (split, _), _ = made("rand_cluster")
    assert not torch.equal(split.train, plain.train)
    assert split.train.bincount().tolist() == plain.train.bincount().tolist()


def test_codes_are_numbered_also_where_classes_differ_in_clusters():
    (book, _), ranked = made(clusters=clusters((1, 3, 2, 3)))
    assert book.classes.tolist() == [0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert torch.equal(book.classes[book.train], ranked.labels)
    with pytest.raises(ValueError, match=r"equally many clusters, got \[1, 3, 2, 3\]"):
        made("other_class_code", clusters=clusters((1, 3, 2, 3)))


def test_an_empty_cluster_is_an_error():
    given = clusters()
    with pytest.raises(ValueError, match=r"groups .* hold no image"):
        made(clusters=Clusters(given.train.clamp(max=1), given.test, [K] * CLASSES))


def book_of(codes, train, classes):
    return Codebook(codes, torch.tensor(classes), torch.tensor(train), torch.tensor(train), torch.arange(len(codes)))


def test_constant_error_of_two_equally_frequent_codes():
    # Spec, section 7: all-0 and all-1 images, constant output 0.5 -> 0.25.
    codes = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    book = book_of(codes, [0, 1, 0, 1], [0, 1])
    assert book.constant_mse == pytest.approx(0.25)
    assert book.class_known_mse == 0
    assert book_of(codes, [0, 1, 0, 1], [0, 0]).class_known_mse == pytest.approx(0.25)


def test_constant_errors_are_those_of_the_best_constants():
    (book, _), ranked = made()
    targets = book.images[book.train].double()
    mean = targets.mean(dim=0)
    assert book.constant_mse == pytest.approx(float((targets - mean).square().mean()))
    by_class = torch.stack([targets[ranked.labels == number].mean(dim=0) for number in range(CLASSES)])
    assert book.class_known_mse == pytest.approx(float((targets - by_class[ranked.labels]).square().mean()))
