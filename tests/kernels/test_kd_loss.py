"""The Triton path of kd_loss against its definition, both against float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from efflib.kernels.common import taking
from efflib.kernels.kd_loss import _fused, _fused_backward, kd_loss, kd_loss_ref

FLOATS = (torch.float32, torch.bfloat16)


def logits(N, C, device, dtype=torch.float32, spread=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = spread * torch.randn(2, N, C, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, C, (N,), generator=generator)
    return student.to(device, dtype), teacher.to(device, dtype), targets.to(device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("N", "C"), [(64, 100), (7, 11), (3, 1), (1, 2), (5, 4099)])
def test_agrees_with_float64(agree, device, dtype, N, C):
    options = {"temperature": 4.0, "alpha": 0.3}
    agree(partial(kd_loss, **options), partial(kd_loss_ref, **options), logits(N, C, device, dtype), wrt=(0,))


@pytest.mark.parametrize(("temperature", "alpha"), [(0.05, 0.5), (100.0, 0.5), (1.0, 1.0), (4.0, 0.0)])
def test_extreme_options(agree, device, temperature, alpha):
    options = {"temperature": temperature, "alpha": alpha}
    agree(partial(kd_loss, **options), partial(kd_loss_ref, **options), logits(13, 17, device), wrt=(0,))


def ties(device):
    student, teacher, targets = logits(6, 10, device)
    return torch.ones_like(student), teacher.round(), targets


def same(device):
    student, _, targets = logits(6, 10, device)
    return student, student.clone(), targets


def far_apart(device):
    student, teacher, targets = logits(6, 10, device, spread=100.0)
    return student, teacher, targets


def columns_first(device):
    student, teacher, _ = logits(10, 6, device)
    return student.T, teacher.T, torch.arange(6, device=device) % 10


def every_other(device):
    student, teacher, targets = logits(6, 20, device)
    return student[:, ::2], teacher[:, ::2], targets // 2


@pytest.mark.parametrize("case", [ties, same, far_apart, columns_first, every_other])
def test_edges(agree, device, case):
    options = {"temperature": 2.0, "alpha": 0.4}
    agree(partial(kd_loss, **options), partial(kd_loss_ref, **options), case(device), wrt=(0,), floor=16)


def test_teacher_is_a_constant_and_no_grad_needs_no_backward(device):
    student, teacher, targets = logits(4, 5, device)
    student.requires_grad_(), teacher.requires_grad_()
    with taking("triton"):
        kd_loss(student, teacher, targets, 4.0, 0.5).backward()
        with torch.no_grad():
            assert not kd_loss(student, teacher, targets, 4.0, 0.5).requires_grad
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_a_target_beyond_the_classes_stops_the_run(device):
    student, teacher, _ = logits(2, 3, device)
    with taking("triton"):
        assert kd_loss(student, teacher, torch.tensor([0, 3], device=device), 4.0, 0.5).isnan()
        assert kd_loss(student, teacher, torch.tensor([-1, 0], device=device), 4.0, 0.5).isnan()


def test_bad_input_is_refused_as_by_the_definition(device):
    student, teacher, targets = logits(2, 3, device)
    with taking("triton"):
        with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
            kd_loss(student, teacher[:, :2], targets, 4.0, 0.5)
        with pytest.raises(ValueError, match="above 0, got 0"):
            kd_loss(student, teacher, targets, 0.0, 0.5)
        with pytest.raises(ValueError, match="one class per row"):
            kd_loss(student, teacher, targets[:1], 4.0, 0.5)


def test_torch_compile_sees_it(one_graph, device):
    student, teacher, targets = logits(6, 10, device)
    one_graph(lambda s, t: kd_loss(s, t, targets, 4.0, 0.5), (student, teacher), wrt=(0,))


def test_operators_are_registered_as_torch_wants(registered, device):
    student, teacher, targets = logits(6, 10, device)
    registered(_fused, (student.requires_grad_(), teacher, targets, 4.0, 0.5))
    lse = _fused(student.detach(), teacher, targets, 4.0, 0.5)[1]
    upstream = torch.tensor(2.0, device=device)
    registered(_fused_backward, (upstream, student.detach(), teacher, targets, lse, 4.0, 0.5))


@pytest.mark.parametrize(
    "change",
    [
        {"(1 - alpha) * temperature * temperature * divergence": "(1 - alpha) * temperature * divergence"},
        {"- tl.log(sum_t) + tl.log(sum_s)": "- tl.log(sum_t) + tl.log(sum_1)"},
        {"(1 - alpha) * temperature * (p_s - p_t)": "(1 - alpha) * (p_s - p_t)"},
        {"tl.load(upstream) / N * both": "both / N"},
        {"weight * ((t - s) / temperature)": "weight * ((t - s) / (1.001 * temperature))"},
    ],
)
def test_a_wrong_kernel_is_noticed(agree, device, mutant, change):
    wrong = mutant("kd_loss", change)
    options = {"temperature": 4.0, "alpha": 0.3}
    with pytest.raises(AssertionError, match="is off by"):
        agree(partial(wrong.kd_loss, **options), partial(kd_loss_ref, **options), logits(7, 11, device), wrt=(0,))
