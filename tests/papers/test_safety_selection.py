"""The preserved images: each score against its definition, the quotas, ties, chance, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from efflib.data import NORMALISATION, ImageSet
from efflib.models import create_model
from efflib.papers.safety.selection import (
    REASONS,
    Scores,
    Selection,
    random_selection,
    score_images,
    select,
)
from efflib.training import seeded

MEAN, STD = NORMALISATION["digits28"]


# --- scores -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge():
    with seeded(0):
        model = create_model("mnist_cnn", 10, width=0.125).double()
        for norm in (model.bn2, model.bn4):  # as after training: not those of a new network
            norm.running_mean.uniform_(0, 0.2)
            norm.running_var.uniform_(0.05, 0.2)
    return model.train()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (9, 28, 28, 1), dtype=np.uint8), np.arange(9)
    return ImageSet("digits28", "train", images, labels, tuple("0123456789"), np.arange(9), "f", "embedded")


@pytest.fixture(scope="module")
def scores(judge, data):
    return score_images(judge, data, MEAN, STD, "conv4")


def naive_scores(model, data):
    """Section 2.6 of the spec, image by image: (spread with and without scaling, margin, point, prediction)."""

    def normed(x, norm):
        return (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()

    found = []
    for pixels in data.images:
        x = torch.from_numpy((pixels.astype(np.float64) / 255 - MEAN) / STD).permute(2, 0, 1)[None].float().double()
        x = F.max_pool2d(normed(model.conv2(model.conv1(x).relu()).relu(), model.bn2), 2)
        A = model.conv4(model.conv3(x).relu()).detach().requires_grad_(True)
        phi = F.max_pool2d(normed(A.relu(), model.bn4), 2).flatten(1)
        logits = model.head(phi)[0]
        (slope,) = torch.autograd.grad(logits.max(), A)
        cam = sum(slope[0, k].mean() * A[0, k] for k in range(A.shape[1])).relu().detach()
        scaled = (cam - cam.min()) / (cam.max() - cam.min() + 1e-8)
        first, second = logits.softmax(0).topk(2).values
        point = (phi[0] / phi[0].norm()).detach().numpy()
        found.append((scaled.sum().item(), cam.sum().item(), (first - second).item(), point, logits.argmax().item()))
    return found


def test_scores_against_their_definition(judge, data, scores):
    spread, _, margin, points, prediction = zip(*naive_scores(judge.eval(), data), strict=True)
    judge.train()
    assert np.allclose(scores.spread, spread, rtol=1e-4) and np.allclose(scores.margin, margin, atol=1e-5)
    assert np.allclose(scores.points, np.stack(points), atol=1e-5) and scores.prediction.tolist() == list(prediction)
    assert len(set(np.round(spread, 3))) > 5 and all(0 <= value <= 36 for value in spread)
    assert torch.allclose(scores.points.norm(dim=1), torch.ones(9))


def test_maps_need_not_be_scaled(judge, data):
    found = score_images(judge, data, MEAN, STD, "conv4", cam_norm=False)
    raw = [each[1] for each in naive_scores(judge.eval(), data)]
    judge.train()
    assert np.allclose(found.spread, raw, rtol=1e-4, atol=1e-6)


def test_scores_do_not_depend_on_the_company_and_leave_the_network_alone(judge, data, scores):
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    alone = score_images(judge, data, MEAN, STD, "conv4", batch_size=2)
    for name in ("spread", "margin", "points", "prediction"):
        assert torch.allclose(getattr(alone, name), getattr(scores, name), atol=1e-6)
    assert judge.training and all(torch.equal(before[name], value) for name, value in judge.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in judge.parameters())


# --- quotas -----------------------------------------------------------------------------------------------


def made_up(count=400, seed=0, clusters=20):
    """Scores by chance, points in as many clumps."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(clusters)
    points = centres[torch.arange(count) % clusters] + 0.05 * torch.randn(count, clusters, generator=generator)
    spread, margin = torch.rand(2, count, generator=generator)
    return Scores(spread, margin, F.normalize(points, dim=1), torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize(
    ("count", "quotas"), [(40, (20, 10, 10)), (43, (21, 10, 12)), (4, (2, 1, 1)), (100, (50, 25, 25))]
)
def test_half_by_evidence_a_quarter_by_uncertainty_the_rest_by_diversity(count, quotas):
    scores = made_up()
    found = select(scores, count, 2, seed=0)
    assert tuple(found.counts()[reason] for reason in REASONS) == quotas
    assert found.reasons == tuple(reason for reason, size in zip(REASONS, quotas, strict=True) for _ in range(size))
    assert len(set(found.positions.tolist())) == count == len(found.positions) and found.positions.dtype == np.int64
    evidence, uncertain = found.positions[: quotas[0]], found.positions[quotas[0] : quotas[0] + quotas[1]]
    ranked = sorted(range(400), key=lambda place: (-float(scores.spread[place]), place))
    assert evidence.tolist() == ranked[: quotas[0]]
    left = sorted(set(range(400)) - set(evidence.tolist()), key=lambda place: (float(scores.margin[place]), place))
    assert uncertain.tolist() == left[: quotas[1]]


def test_ties_go_by_position():
    tied = made_up()
    equal = Scores(torch.ones(400), torch.zeros(400), tied.points, tied.prediction)
    found = select(equal, 40, 2, seed=0)
    assert found.positions[:30].tolist() == list(range(30))


def test_clusters_take_turns_and_give_the_member_nearest_to_their_centre():
    scores = made_up()
    found = select(scores, 160, 2, seed=0)
    diverse, taken = found.positions[120:], set(found.positions[:120].tolist())
    clump = diverse % 20
    assert len(diverse) == 40
    assert sorted(clump[:20]) == sorted(clump[20:]) == list(range(20)) and (clump[:20] == clump[20:]).all()
    centres = torch.stack([scores.points[number::20].double().mean(0) for number in range(20)])
    for number in range(20):
        members = [place for place in range(number, 400, 20) if place not in taken]
        members.sort(key=lambda place: float((scores.points[place].double() - centres[number]).norm()))
        assert diverse[clump == number].tolist() == members[:2]


def test_a_cluster_that_is_used_up_is_passed_over():
    scores = made_up(60)
    found = select(scores, 60, 2, seed=0)  # everything: clumps have three members, some of them taken before
    assert sorted(found.positions.tolist()) == list(range(60))


def test_the_same_seed_selects_the_same_images():
    generator = torch.Generator().manual_seed(0)
    spread, margin, *points = torch.rand(7, 300, generator=generator)
    loose = Scores(spread, margin, torch.stack(points, dim=1), torch.zeros(300))
    one, same, other = (select(loose, 80, 2, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.positions, same.positions) and one.reasons == same.reasons
    assert np.array_equal(one.positions[:60], other.positions[:60])  # the seed is that of the clusters only
    assert not np.array_equal(one.positions, other.positions)


def test_impossible_selections_are_refused():
    scores = made_up(60)
    for count in (3, 61):
        with pytest.raises(
            ValueError, match=f"a preservation set of {count} images out of 60: choose between 4 and 60"
        ):
            select(scores, count, 2, seed=0)
    with pytest.raises(ValueError, match="60 images cannot fill 100 clusters: take more images"):
        select(scores, 20, 10, seed=0)


# --- chance -----------------------------------------------------------------------------------------------


def test_the_control_draws_without_replacement():
    found = random_selection(50, 20, seed=0)
    assert isinstance(found, Selection) and found.reasons == ("random",) * 20
    assert len(set(found.positions.tolist())) == 20 and set(found.positions.tolist()) <= set(range(50))
    assert np.array_equal(found.positions, random_selection(50, 20, seed=0).positions)
    assert not np.array_equal(found.positions, random_selection(50, 20, seed=1).positions)
    assert found.counts() == dict.fromkeys(REASONS, 0)
    often = np.bincount(np.concatenate([random_selection(10, 3, seed).positions for seed in range(1_000)]))
    assert often.min() > 250 and often.max() < 350
    assert sorted(random_selection(5, 5, 0).positions) == list(range(5))
    for count in (0, 6):
        with pytest.raises(ValueError, match=f"{count} images cannot be drawn out of 5"):
            random_selection(5, count, 0)
