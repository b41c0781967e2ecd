"""The Triton path of attention_loss against its definition, both against float64."""

from __future__ import annotations

import pytest
import torch

from efflib.kernels.attention_loss import _fused, _fused_backward, attention_loss, attention_loss_ref
from efflib.kernels.common import taking

KINDS = (
    (torch.float32, torch.channels_last),
    (torch.bfloat16, torch.channels_last),
    (torch.float32, torch.contiguous_format),
)


def maps(student, teacher, device, dtype=torch.float32, memory=torch.channels_last, scale=1.0):
    """Two maps of these shapes, their layout that of training."""
    generator = torch.Generator().manual_seed(0)
    drawn = [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (student, teacher)]
    return tuple(x.to(device, dtype).contiguous(memory_format=memory) for x in drawn)


@pytest.mark.parametrize(("dtype", "memory"), KINDS)
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((3, 16, 4, 4), (3, 24, 4, 4)),
        ((2, 5, 7, 3), (2, 11, 7, 3)),
        ((2, 1, 5, 5), (2, 3, 5, 5)),
        ((2, 70, 3, 1), (2, 1030, 3, 1)),  # more channels than a tile has
        ((1, 1, 47, 47), (1, 2, 47, 47)),  # more positions than the second kernel takes at once
    ],
)
def test_agrees_with_float64(agree, device, student, teacher, dtype, memory):
    agree(attention_loss, attention_loss_ref, maps(student, teacher, device, dtype, memory), wrt=(0,))


def test_student_and_teacher_of_different_precision_and_layout(agree, device):
    student, teacher = maps((2, 6, 3, 5), (2, 9, 3, 5), device)
    agree(attention_loss, attention_loss_ref, (student.bfloat16(), teacher.contiguous()), wrt=(0,))


@pytest.mark.parametrize(("student", "teacher"), [((2, 6, 3, 3), (2, 5, 7, 6)), ((2, 6, 8, 2), (2, 5, 4, 4))])
def test_the_larger_map_is_pooled(agree, device, student, teacher):
    agree(attention_loss, attention_loss_ref, maps(student, teacher, device), wrt=(0,))


def zero_student(student, teacher):
    return torch.zeros_like(student), teacher


def zero_teacher(student, teacher):
    return student, torch.zeros_like(teacher)


def both_zero(student, teacher):
    return torch.zeros_like(student), torch.zeros_like(teacher)


def one_zero_image(student, teacher):
    return student * torch.tensor([0.0, 1.0], device=student.device).reshape(2, 1, 1, 1), teacher


def constant(student, teacher):
    return torch.full_like(student, 2.0), torch.full_like(teacher, 0.5)


def the_same(student, teacher):
    return student, student.clone()


def one_position(student, teacher):
    return student[:, :, :1, :1], teacher[:, :, :1, :1]


def clamped(student, teacher):
    """Lengths near 1e-14 and 1e-13, below the least that divides."""
    return 1e-7 * student, 3e-7 * teacher


def just_above_the_clamp(student, teacher):
    return 3e-6 * student, 3e-6 * teacher


def faint_beside_bright(student, teacher):
    return 1e-6 * student, 1e4 * teacher


def cropped(student, teacher):
    return student[:, :, 1:, :-1], teacher[:, :, 1:, :-1]


def columns_first(student, teacher):
    return student.transpose(2, 3), teacher.transpose(2, 3)


def every_other_channel(student, teacher):
    return student[:, ::2], teacher[:, 1::3]


def one_channel_repeated(student, teacher):
    return student, teacher[:, :1].expand(-1, 6, -1, -1)


@pytest.mark.parametrize(
    "case",
    [
        zero_student, zero_teacher, both_zero, one_zero_image, constant, the_same, one_position, clamped,
        just_above_the_clamp, faint_beside_bright, cropped, columns_first, every_other_channel, one_channel_repeated,
    ],
)  # fmt: skip
def test_edges(agree, device, case):
    tensors = case(*maps((2, 6, 4, 5), (2, 9, 4, 5), device))
    agree(attention_loss, attention_loss_ref, tensors, wrt=(0,), floor=16)


def test_a_nan_is_not_hidden(device):
    student, teacher = maps((2, 3, 2, 2), (2, 3, 2, 2), device)
    student[0, 1, 1, 0] = float("nan")
    with taking("triton"):
        assert attention_loss(student, teacher).isnan() and attention_loss(teacher, student).isnan()


def test_teacher_is_a_constant_and_no_grad_needs_no_backward(device):
    student, teacher = maps((2, 3, 4, 4), (2, 5, 4, 4), device)
    student.requires_grad_(), teacher.requires_grad_()
    with taking("triton"):
        attention_loss(student, teacher).backward()
        with torch.no_grad():
            assert not attention_loss(student, teacher).requires_grad
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert student.grad.is_contiguous(memory_format=torch.channels_last)


def test_bad_input_is_refused_as_by_the_definition(device):
    student, teacher = maps((2, 3, 4, 4), (3, 3, 4, 4), device)
    with taking("triton"):
        with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and \(3, 3, 4, 4\)"):
            attention_loss(student, teacher)
        with pytest.raises(ValueError, match=r"\(3, 4, 4\) and \(3, 3, 4, 4\)"):
            attention_loss(student[0], teacher)


def test_torch_compile_sees_it(one_graph, device):
    one_graph(attention_loss, maps((2, 3, 4, 4), (2, 5, 8, 8), device), wrt=(0,))


def test_operators_are_registered_as_torch_wants(registered, device):
    student, teacher = (x.flatten(2) for x in maps((2, 3, 4, 4), (2, 5, 4, 4), device))
    slopes = _fused(student, teacher)[1]
    registered(_fused_backward, (torch.tensor(2.0, device=device), student, slopes))
    registered(_fused, (student.requires_grad_(), teacher))


@pytest.mark.parametrize(
    "change",
    [
        {"q_s - q_t - q_s * turn": "q_s - q_t"},
        {"norm < 1e-12, 0.0, tl.sum": "norm < 0.0, 0.0, tl.sum"},
        {"tl.where(norm < 1e-12, 1e-12, norm)": "norm + 1e-12"},
        {"axis=1) / C, here": "axis=1), here"},
        {"tl.sum(square, axis=0) / P": "tl.sum(square, axis=0)"},
        {"tl.load(upstream) * tl.load": "tl.load"},
        {"scale = 4 /": "scale = 2 /"},
        {"tile += CHANNELS": "tile += 0"},
    ],
)
def test_a_wrong_kernel_is_noticed(agree, device, mutant, change):
    wrong = mutant("attention_loss", change).attention_loss
    cases = (
        clamped(*maps((2, 6, 2, 3), (2, 9, 2, 3), device)),
        maps((2, 70, 1, 3), (2, 3, 1, 3), device, memory=torch.contiguous_format),
        maps((1, 4, 3, 2), (1, 4, 3, 2), device, scale=3e-6),
    )

    def check():
        for tensors in cases:
            agree(wrong, attention_loss_ref, tensors, wrt=(0,))

    with pytest.raises(AssertionError, match="is off by"):
        check()
