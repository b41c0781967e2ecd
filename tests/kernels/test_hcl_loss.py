"""The Triton path of hcl_loss against its definition, both against float64."""

from __future__ import annotations

import pytest
import torch

from efflib.kernels import hcl_loss as operation
from efflib.kernels.common import taking
from efflib.kernels.hcl_loss import _fused, _fused_backward, hcl_loss_ref

KINDS = (
    (torch.float32, torch.channels_last),
    (torch.bfloat16, torch.channels_last),
    (torch.float32, torch.contiguous_format),
)


def maps(shape, device, dtype=torch.float32, memory=torch.channels_last):
    """(student, teacher) of this shape, their layout that of training."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    drawn[0] += 0.5  # without it, the means of large maps would hardly count
    return tuple(x.to(device, dtype).contiguous(memory_format=memory) for x in drawn)


def flat(function):
    """A loss of two lists as one of tensors: the students, then the teachers."""
    return lambda *tensors: function(tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :])


hcl_loss, definition = flat(operation), flat(hcl_loss_ref)


@pytest.mark.parametrize(("dtype", "memory"), KINDS)
@pytest.mark.parametrize(
    "shape",
    [
        (2, 5, 8, 8),
        (2, 3, 12, 12),  # beyond 8 x 8: the sums of the cells are kept
        (1, 2, 20, 8),
        (2, 7, 4, 4),
        (1, 3, 4, 10),
        (2, 3, 2, 2),
        (2, 1, 2, 5),
        (3, 11, 1, 1),
        (2, 3, 1, 7),
        (1, 32, 8, 68),  # more columns in a cell than lanes
        (1, 300, 8, 8),  # more channels than a program takes
    ],
)
def test_agrees_with_float64(agree, device, shape, dtype, memory):
    agree(hcl_loss, definition, maps(shape, device, dtype, memory), wrt=(0, 1))


@pytest.mark.parametrize("shape", [(2, 3, 7, 7), (2, 3, 8, 6), (2, 3, 3, 3), (2, 3, 6, 8), (1, 2, 14, 14)])
def test_overlapping_windows_take_the_definition(device, shape):
    student, teacher = maps(shape, device)
    with taking("triton"):
        assert torch.equal(hcl_loss(student, teacher), definition(student, teacher))


def levels(device):
    pairs = [maps(shape, device) for shape in ((2, 3, 8, 8), (2, 4, 7, 7), (2, 5, 12, 12), (2, 6, 1, 1))]
    return [student for student, _ in pairs] + [teacher for _, teacher in pairs]


@pytest.mark.parametrize("wrt", [(0, 1, 2, 3), (2, 5, 6), (4,), ()])
def test_several_levels(agree, device, wrt):
    agree(hcl_loss, definition, levels(device), wrt=wrt)


def the_same(student, teacher):
    return student, student.clone()


def both_zero(student, teacher):
    return torch.zeros_like(student), torch.zeros_like(teacher)


def constant(student, teacher):
    """Every pool is the map itself."""
    return torch.full_like(student, 3.0), torch.full_like(teacher, 1.0)


def board(student, teacher):
    """Neighbours cancel: every pool is 0."""
    row, column = torch.meshgrid(torch.arange(8), torch.arange(12), indexing="ij")
    return (student * 0 + (-1.0) ** (row + column).to(student), teacher * 0)


def far_from_zero(student, teacher):
    return student + 1000, teacher + 1000


def mixed_layouts(student, teacher):
    return student, teacher.contiguous()


def mixed_precision(student, teacher):
    return student.bfloat16(), teacher


def cropped(student, teacher):
    return student[:, :, :4, 1:9], teacher[:, :, 4:, 1:9]


def transposed(student, teacher):
    return student.transpose(2, 3), teacher.transpose(2, 3)


def every_other(student, teacher):
    return student[:, ::2], teacher[:, ::2]


def one_teacher_for_all(student, teacher):
    return student, teacher[:1].expand(3, -1, -1, -1)


@pytest.mark.parametrize(
    "case",
    [
        the_same, both_zero, constant, board, far_from_zero, mixed_layouts, mixed_precision, cropped, transposed,
        every_other, one_teacher_for_all,
    ],
)  # fmt: skip
def test_edges(agree, device, case):
    agree(hcl_loss, definition, case(*maps((3, 5, 8, 12), device)), wrt=(0, 1), floor=16)


def test_gradients_have_the_layout_of_their_maps_and_no_grad_needs_no_backward(device):
    student, teacher = maps((2, 3, 8, 8), device)
    teacher = teacher.contiguous().requires_grad_()
    student.requires_grad_()
    with taking("triton"):
        hcl_loss(student, teacher).backward()
        with torch.no_grad():
            assert not hcl_loss(student, teacher).requires_grad
    assert torch.equal(student.grad, -teacher.grad)
    assert student.grad.is_contiguous(memory_format=torch.channels_last) and teacher.grad.is_contiguous()


def test_bad_input_is_refused_as_by_the_definition(device):
    student, teacher = maps((2, 3, 4, 4), device)
    with taking("triton"):
        with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and \(2, 3, 2, 4\).*align"):
            operation([student], [teacher[:, :, :2]])
        with pytest.raises(ValueError, match=r"\(3, 4, 4\) and \(3, 4, 4\)"):
            operation([student[0]], [teacher[0]])
        with pytest.raises(ValueError, match="2 and 1"):
            operation([student, student], [teacher])
        with pytest.raises(ValueError, match="0 and 0"):
            operation([], [])


def test_torch_compile_sees_it(one_graph, device):
    one_graph(hcl_loss, levels(device), wrt=(0, 2, 6))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 12, 12)])
def test_operators_are_registered_as_torch_wants(registered, device, shape):
    student, teacher = maps(shape, device)
    sums = _fused(student, teacher)[1]
    registered(_fused_backward, (torch.tensor(2.0, device=device), student, teacher, sums, True, False))
    registered(_fused, (student.requires_grad_(), teacher.requires_grad_()))


@pytest.mark.parametrize(
    "change",
    [
        {"loss += weight_4 * tl.sum(cells * cells)": "loss += 1.01 * weight_4 * tl.sum(cells * cells)"},
        {"weight_2 * halves + whole": "weight_2 * halves"},
        {"weight_4 * cells + _finer": "_finer"},
        {"elif CELLS == 2:\n        shift = weight_2 * cells": "elif CELLS == 2:\n        shift = weight_4 * cells"},
        {"twice = 2 * tl.load(upstream)": "twice = 2.0"},
        {"(-value)": "value"},
        {"cell_number * C + channel[None, :, None], cells": "cell_number * C + channel[None, :, None] * 0, cells"},
        {"q**2 / (parts": "q / (parts"},
        {"(1 + sum(pools.values()))": "1.5"},
        {"< COLUMNS)": "< COLUMNS - 1)"},
    ],
)
def test_a_wrong_kernel_is_noticed(agree, device, mutant, change):
    wrong = flat(mutant("hcl_loss", change).hcl_loss)

    def check():
        for shape in ((2, 3, 4, 4), (2, 3, 8, 8), (2, 3, 12, 12)):
            agree(wrong, definition, maps(shape, device), wrt=(0, 1))

    with pytest.raises(AssertionError, match="is off by"):
        check()
