"""Definitions of the distillation kernels against the specs' numbers and float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from efflib.kernels import attention_loss, guided_attention, hcl_loss, kd_loss


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


ZERO = torch.tensor([0])


@pytest.mark.parametrize(("temperature", "value"), [(1, 0.053808), (4, 0.098609)])
def test_kl_of_the_pkgd_spec(temperature, value):
    got = kd_loss(row(1, 0, 0), row(2, 1, 0), ZERO, temperature, alpha=0)
    assert got.item() == pytest.approx(value, abs=1e-6)


def test_kd_of_the_bimask_spec():
    student, teacher = row(0, 0), row(2, 0)
    assert kd_loss(student, teacher, ZERO, 4, 0).item() == pytest.approx(0.48480, abs=1e-5)
    assert kd_loss(student, teacher, ZERO, 4, 0.1).item() == pytest.approx(0.50563, abs=1e-5)
    assert kd_loss(student, teacher, ZERO, 1, 0).item() == pytest.approx(0.32781, abs=1e-5)


def test_kd_is_the_sum_of_its_parts_and_the_teacher_is_a_constant():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(7, 11, generator=generator, requires_grad=True)
    teacher = torch.randn(7, 11, generator=generator, requires_grad=True)
    targets = torch.randint(0, 11, (7,), generator=generator)
    p_t, log_s = (teacher / 3).softmax(1), (student / 3).log_softmax(1)
    divergence = 9 * (p_t * (p_t.log() - log_s)).sum(1).mean()
    expected = 0.3 * F.cross_entropy(student, targets) + 0.7 * divergence
    got = kd_loss(student, teacher, targets, 3.0, 0.3)
    assert torch.allclose(got, expected, atol=1e-6) and got.ndim == 0
    (2.5 * got).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert torch.allclose(student.grad.sum(1), torch.zeros(7), atol=1e-6)


def test_kd_bad_input():
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\).*same classes"):
        kd_loss(row(0, 0), row(0, 0, 0), ZERO, 4, 0.5)
    with pytest.raises(ValueError, match="above 0, got 0"):
        kd_loss(row(0, 0), row(0, 0), ZERO, 0, 0.5)
    with pytest.raises(ValueError, match="one class per row"):
        kd_loss(row(0, 0), row(0, 0), torch.tensor([0, 1]), 4, 0.5)


def maps(values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, len(values), -1)


def test_attention_loss_of_the_specs():
    one, two = maps([[1, 0], [0, 0]]), maps([[1, 1], [0, 0]])
    assert attention_loss(one, two).item() == pytest.approx(0.146447, abs=1e-6)
    assert attention_loss(one, maps([[0, 1], [0, 0]])).item() == pytest.approx(0.5)
    assert attention_loss(one, one).item() == 0


def test_attention_loss_sizes_channels_and_errors():
    small, large = torch.rand(2, 3, 4, 4), torch.rand(2, 8, 8, 8)
    expected = attention_loss(small, F.adaptive_avg_pool2d(large, 4))
    assert torch.equal(attention_loss(small, large), expected)
    assert attention_loss(torch.zeros(2, 3, 4, 4), large).isfinite()
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and \(3, 3, 4, 4\)"):
        attention_loss(small, torch.rand(3, 3, 4, 4))


def against_zero(x):
    return hcl_loss([x], [torch.zeros_like(x)]).item()


def test_hcl_of_the_spec():
    count = torch.arange(1, 17, dtype=torch.float64)
    assert against_zero(maps([[1, 2], [3, 4]])) == pytest.approx((7.5 + 0.5 * 6.25) / 1.5)
    assert against_zero(count.reshape(1, 1, 4, 4)) == pytest.approx(89.25)
    tenths = torch.arange(1, 65, dtype=torch.float64).reshape(1, 1, 8, 8) / 10
    assert against_zero(tenths) == pytest.approx(13.5958, abs=1e-4)
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    board = torch.where((i - j) % 2 == 0, -1.0, 1.0).double()[None, None]
    assert against_zero(board) == pytest.approx(1 / 1.875)
    assert against_zero(maps([[3.0]])) == pytest.approx(9.0)


def test_hcl_adds_levels_and_names_bad_shapes():
    a, b = maps([[1, 2], [3, 4]]), maps([[2.0]])
    zeros = [torch.zeros_like(a), torch.zeros_like(b)]
    assert hcl_loss([a, b], zeros).item() == pytest.approx(against_zero(a) + 4)
    with pytest.raises(ValueError, match=r"\(1, 1, 2, 2\) and \(1, 1, 1, 1\).*align"):
        hcl_loss([a], [b])
    with pytest.raises(ValueError, match="2 and 1"):
        hcl_loss([a, b], [a])


EYE = torch.eye(2, dtype=torch.float64)[None]
STUDENT = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], dtype=torch.float64)


def test_guided_attention_of_the_spec():
    """P_T = I, P_S = [[1, 2], [3, 4]], no scale: the spec gives both branches; their sum is the output."""
    channel = torch.tensor([[2.7616, 3.7616], [2.7616, 3.7616]], dtype=torch.float64)
    literal = torch.tensor([[0.8068, 2.1932], [1.8826, 5.1174]], dtype=torch.float64)
    transposed = torch.tensor([[1.7311, 1.7311], [3.7311, 3.7311]], dtype=torch.float64)
    assert torch.allclose(guided_attention(EYE, STUDENT, "none")[0], channel + literal, atol=2e-4)
    assert torch.allclose(guided_attention(EYE, STUDENT, "none", True)[0], channel + transposed, atol=2e-4)


def test_guided_attention_options():
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 4, 9, generator=generator, dtype=torch.float64) for _ in range(3))
    scaled = guided_attention(q, k, "sqrt")
    assert torch.allclose(scaled, _by_hand(q, k, k, 9**-0.5, 4**-0.5))
    unit = [F.normalize(x, dim=2) for x in (q, k)]
    assert torch.allclose(guided_attention(q, k, "l2", value=v, scale=2.0), _by_hand(*unit, v, 2.0, 2.0))
    assert guided_attention(q.float(), k.bfloat16(), "sqrt").dtype == torch.bfloat16
    one = guided_attention(q[..., :1], k[..., :1], "none")  # a single position: the spatial map is 1
    assert torch.allclose(one, _by_hand(q[..., :1], k[..., :1], k[..., :1], 1.0, 1.0))
    with pytest.raises(ValueError, match="sqrt, none, l2"):
        guided_attention(q, k, "cosine")
    with pytest.raises(ValueError, match=r"\(2, 4, 9\), \(2, 4, 8\)"):
        guided_attention(q, k[..., :8])


def _by_hand(q, k, v, channel_scale, spatial_scale):
    channel = torch.softmax(channel_scale * torch.einsum("bdl,bel->bde", q, k), dim=2)
    spatial = torch.softmax(spatial_scale * torch.einsum("bdl,bdm->blm", q, k), dim=2)
    return torch.einsum("bde,bel->bdl", channel, v) + torch.einsum("bdl,blm->bdm", v, spatial)
