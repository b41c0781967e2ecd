"""Bare losses of the distillers against the specs' numbers and definitions in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from efflib.distill.common import Shapes
from efflib.distill.crd import in_batch_loss, nce_loss
from efflib.distill.dkd import dkd_loss, other_kd, target_kd
from efflib.distill.fitnet import FitNet, hint_loss
from efflib.distill.ft import Paraphraser, encoder, factor_loss
from efflib.distill.ickd import icc_loss
from efflib.distill.kd import KD
from efflib.distill.pkgd import AttentionFusion, ChannelNorm, reduction
from efflib.distill.rkd import rkd_loss
from efflib.distill.rpkd import response_loss
from efflib.distill.sckd import Projector, projected_loss, supervised_contrastive_loss
from efflib.models import Features

STUDENT = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
ZERO = torch.tensor([0])


@pytest.mark.parametrize(
    ("temperature", "target", "other", "total"), [(1, 0.016669, 0.110944, 0.904221), (4, 0.026576, 0.124030, 1.018817)]
)
def test_dkd_of_the_spec(temperature, target, other, total):
    assert target_kd(STUDENT, TEACHER, ZERO, temperature).item() == pytest.approx(target, abs=1e-6)
    assert other_kd(STUDENT, TEACHER, ZERO, temperature).item() == pytest.approx(other, abs=1e-6)
    assert dkd_loss(STUDENT, TEACHER, ZERO, 1, 8, temperature).item() == pytest.approx(total, abs=1e-6)


def test_dkd_parts_make_up_the_kl():
    """KL = TCKD + (1 - p_T(target)) NCKD, at T = 1 (Zhao et al. 2022, Eq. 5)."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 1, 9, generator=generator, dtype=torch.float64).unbind()
    target = torch.tensor([4])
    p = teacher.softmax(1)
    kl = (p * (p.log() - student.log_softmax(1))).sum()
    parts = target_kd(student, teacher, target, 1) + (1 - p[0, 4]) * other_kd(student, teacher, target, 1)
    assert parts.item() == pytest.approx(kl.item(), rel=1e-12)


def test_dkd_survives_a_certain_teacher_and_passes_gradients():
    student = torch.zeros(2, 5, requires_grad=True)
    teacher = torch.tensor([[200.0, 0, 0, 0, 0], [0, -200.0, 0, 0, 0]])
    loss = dkd_loss(student, teacher, torch.tensor([0, 1]), 1, 8, 1)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all() and student.grad.abs().sum() > 0


def test_rkd_against_a_loop():
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    teacher = torch.randn(5, 4, generator=generator, dtype=torch.float64)

    def distances(x):
        d = torch.tensor([[float((a - b).norm()) for b in x] for a in x], dtype=torch.float64)
        return d / d[d > 0].mean()

    def angles(x):
        unit = [[(b - a) / max(float((b - a).norm()), 1e-12) for b in x] for a in x]
        return torch.tensor([[[float(u @ v) for v in row] for u in row] for row in unit], dtype=torch.float64)

    expected = 25 * F.smooth_l1_loss(distances(student), distances(teacher))
    expected += 50 * F.smooth_l1_loss(angles(student), angles(teacher))
    assert rkd_loss(student, teacher).item() == pytest.approx(expected.item(), rel=1e-9)


def test_kd_of_table_4():
    """EncodeNet spec, section 7: T = 4, 0.1 CE + 0.9 T^2 KL."""
    logits = [torch.tensor(rows, dtype=torch.float64) for rows in ([[1.0, 2, 3], [0, 0, 1]], [[3.0, 1, 0], [0, 1, 2]])]
    student, teacher = (Features((), each, each) for each in logits)
    shapes = Shapes((), 3, 3)
    terms = KD(shapes, shapes)(student, teacher, torch.tensor([0, 2]), torch.arange(2), 0.0)
    assert terms["kd"].item() / 0.9 == pytest.approx(1.126575, abs=1e-6)
    assert terms["cross_entropy"].item() / 0.1 == pytest.approx(1.479525, abs=1e-6)
    assert sum(terms.values()).item() == pytest.approx(1.161870, abs=1e-6)


def test_rkd_of_table_4():
    """EncodeNet spec, section 7."""
    student = torch.tensor([[0.0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 0], [2, 0], [0, 1]], dtype=torch.float64)
    assert rkd_loss(student, teacher, 1, 0).item() == pytest.approx(0.0184845, abs=1e-7)
    assert rkd_loss(student, teacher, 0, 1).item() == pytest.approx(0.0038012, abs=1e-7)
    assert rkd_loss(student, teacher).item() == pytest.approx(0.6521732, abs=1e-7)


def test_rkd_knows_what_it_ignores_and_what_it_needs():
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
    assert rkd_loss(3 * x @ rotation + 5, x).item() == pytest.approx(0, abs=1e-10)
    repeated = torch.cat([x[:3], x[:3]]).requires_grad_(True)  # equal images: the root's slope at 0 must not matter
    rkd_loss(repeated, x).backward()
    assert repeated.grad.isfinite().all()
    with pytest.raises(ValueError, match="at least 2, got 1"):
        rkd_loss(x[:1], x[:1])
    with pytest.raises(ValueError, match=r"\(6, 4\) and \(3, 4\)"):
        rkd_loss(x, x[:3])


def test_icc_of_the_spec():
    student = torch.eye(2, dtype=torch.float64).view(1, 2, 1, 2)
    teacher = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64).view(1, 2, 1, 2)
    assert icc_loss(student, teacher).item() == pytest.approx(0.3985, abs=1e-4)
    assert icc_loss(teacher, teacher.repeat(1, 1, 1, 3)).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"\(1, 2, 1, 2\) and \(1, 3, 1, 2\)"):
        icc_loss(student, torch.zeros(1, 3, 1, 2))


def test_response_correction_of_the_spec():
    got = response_loss(TEACHER, torch.tensor([1]), 4)
    assert got.item() == pytest.approx(0.479939, abs=1e-6)
    assert response_loss(TEACHER, torch.tensor([1]), 4, detach=False).item() == pytest.approx(got.item())


def test_crd_of_the_spec():
    """All scores 1/N, N = 50,000, K = 16,384: both sides together 21.418."""
    images, negatives = 50_000, 16_384
    score = torch.tensor(1 / images, dtype=torch.float64)
    one = nce_loss(score.expand(1, 1), score.expand(1, negatives), images)
    assert 2 * one.item() == pytest.approx(21.418, abs=1e-3)


def test_in_batch_contrast():
    z = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
    alone = in_batch_loss(z, z, torch.tensor([0, 0, 0, 0]))
    assert alone.item() == pytest.approx(0, abs=1e-12)  # one class: no negatives, nothing to tell apart
    scores = (z @ z.T / 0.07).exp()
    expected = -(scores.diagonal() / scores.sum(1)).log().mean()
    assert in_batch_loss(z, z, torch.arange(4)).item() == pytest.approx(expected.item())


def test_hint():
    student, teacher = torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 4, 4)
    assert hint_loss(student, teacher).item() == 1.0


def test_channel_norm_of_the_spec():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).view(1, 4, 1, 1)
    got = ChannelNorm(4).double()(x).flatten().tolist()
    assert got == pytest.approx([-1.3416, -0.4472, 0.4472, 1.3416], abs=1e-4)


def test_fusion_of_the_spec():
    """Gates of 0.5, identity convolution, batch norm with default statistics."""
    block = AttentionFusion(4, 4).double().eval()
    with torch.no_grad():
        block.inward[0].weight.copy_(torch.eye(4).view(4, 4, 1, 1))
        block.inward[1].running_var.fill_(1 - block.inward[1].eps)
        block.gates.weight.zero_()
        block.gates.bias.zero_()
    a = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).view(1, 4, 1, 1)
    assert block(a, a.flip(1)).flatten().tolist() == pytest.approx([1, 2, 3, 4], abs=1e-4)
    assert block(a, a).flatten().tolist() == pytest.approx([-0.3416, 1.5528, 3.4472, 5.3416], abs=1e-4)


@pytest.mark.parametrize(("height", "k"), [(64, 4), (32, 2), (16, 2), (8, 2), (4, 2), (2, 1), (1, 1)])
def test_reduction_of_the_spec(height, k):
    assert reduction(height) == k
    assert math.log2(reduction(height)).is_integer()


def test_factor_loss_of_the_spec():
    one = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64).view(1, 1, 2, 2)
    two = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64).view(1, 1, 2, 2)
    assert factor_loss(one, two).item() == pytest.approx((1 - 2**-0.5 + 2**-0.5) / 4)
    assert factor_loss(one, one.flip(3)).item() == pytest.approx(0.5)


def test_factor_loss_of_table_4():
    """EncodeNet spec, section 7: one sample, two channels of 2 x 2."""
    student = torch.tensor([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75], dtype=torch.float64).view(1, 2, 2, 2)
    teacher = torch.tensor([1.0, 0, 2, 1, 0, 1, 1, 3], dtype=torch.float64).view(1, 2, 2, 2)
    assert factor_loss(student, teacher).item() == pytest.approx(0.1446916, abs=1e-7)
    assert hint_loss(student, teacher).item() == pytest.approx(0.78125)


@pytest.mark.parametrize(("channels", "count"), [(32, 1_120), (256, 66_304)])
def test_regressors_of_table_4(channels, count):
    """EncodeNet spec, section 4.4: FitNet's regressor between the second stages of a pair."""
    shapes = Shapes(((1, 8, 8), (channels, 8, 8)), 64, 100)
    assert sum(weights.numel() for weights in FitNet(shapes, shapes).regressor.parameters()) == count


def test_helpers_have_the_counts_of_the_spec():
    """BIMask spec, section 3: paraphraser, translator and projector for 64-channel 8x8 maps."""

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(Paraphraser(64, 32)) == 129_312
    assert count(encoder(64, 32, norm=True)) == 64_896
    assert count(Projector((64, 8, 8))) == 662_048


def test_projected_loss_of_the_spec():
    student = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert 80 * projected_loss(student, teacher).item() == pytest.approx(48)


def test_supervised_contrastive_loss_of_the_spec():
    views = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1])
    assert supervised_contrastive_loss(views, labels, 1.0).item() == pytest.approx(math.log(1 + 2 / math.e))
    assert 0 <= supervised_contrastive_loss(views, labels, 0.07).item() < 1e-5
    with pytest.raises(ValueError, match="two views"):
        supervised_contrastive_loss(views, torch.tensor([0, 1, 2, 1]))
    with pytest.raises(ValueError, match="above 0"):
        supervised_contrastive_loss(views, labels, 0)
