"""Costs of the thesis's networks are the counts of section 3 of the spec, exactly."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from efflib.models import count_macs
from efflib.papers.diswot.costs import (
    Convolution,
    cost,
    formula_parameters,
    forward_of,
    keras_parameters,
    literal_macs,
    memory_access,
    on_meta,
    profiler_flops,
    recorded,
)
from efflib.papers.diswot.space import MEMBERS, ROLES, STUDENTS, TEACHER, build, member

# torch parameters, Keras total, multiply-accumulates at 224 pixels
SPEC = {
    "w100-d17-flatten": (18_313_860, 18_347_972, 315_583_872),
    "w100-d17-gap": (2_585_220, 2_619_332, 299_855_232),
    "w075-d17-gap": (1_716_772, 1_743_412, 208_150_752),
    "w050-d17-gap": (1_049_028, 1_067_572, 96_212_800),
    "w035-d17-gap": (757_476, 771_556, 58_366_768),
    "w100-d11-gap": (2_014_724, 2_037_396, 204_335_808),
    "w075-d11-gap": (1_385_764, 1_403_668, 142_381_776),
    "w050-d11-gap": (895_940, 908_660, 65_387_488),
    "w035-d11-gap": (677_092, 687_012, 43_560_928),
    "w100-d17-dsc": (2_402_564, 2_439_492, 308_087_424),
    "w075-d17-dsc": (1_534_116, 1_563_572, 216_382_944),
    "w050-d17-dsc": (866_372, 887_732, 104_444_992),
    "w035-d17-dsc": (574_820, 591_716, 66_598_960),
    "w100-d11-dsc": (1_832_068, 1_857_556, 212_568_000),
    "w075-d11-dsc": (1_203_108, 1_223_828, 150_613_968),
    "w050-d11-dsc": (713_284, 728_820, 73_619_680),
    "w035-d11-dsc": (494_436, 507_172, 51_793_120),
}
BACKBONES = {
    (1.0, 17): 2_257_984, (0.75, 17): 1_382_064, (0.5, 17): 706_224, (0.35, 17): 410_208,
    (1.0, 11): 1_676_048, (0.75, 11): 1_042_320, (0.5, 11): 547_312, (0.35, 11): 325_664,
}  # fmt: skip


def test_the_space_has_sixteen_students_and_a_teacher() -> None:
    assert len(STUDENTS) == 16
    assert set(SPEC) == set(MEMBERS) == {TEACHER.name, *STUDENTS}
    assert all(member(name).name == name for name in MEMBERS)
    assert set(ROLES.values()) <= set(STUDENTS)


def test_unknown_members_are_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown member of the space: 'w100-d17-gpa'.*w100-d17-gap"):
        member("w100-d17-gpa")
    with pytest.raises(ValueError, match="multiple of 32"):
        build(TEACHER.name, image_size=100)


@pytest.mark.parametrize("name", SPEC)
def test_counts_are_those_of_the_spec(name: str) -> None:
    own = cost(name)
    assert (own.parameters, own.keras_parameters, own.macs) == SPEC[name]
    assert own.backbone_keras_parameters == BACKBONES[member(name).width, member(name).depth]


def test_sum_of_macs_over_the_space() -> None:
    assert sum(cost(name).macs for name in STUDENTS) == 2_302_360_640


@pytest.mark.parametrize("name", [TEACHER.name, "w075-d11-dsc", "w035-d17-gap"])
def test_macs_are_those_of_the_librarys_counter(name: str) -> None:
    assert cost(name, 64).macs == count_macs(on_meta(name, 64), 64)


def test_flops_are_the_profilers() -> None:
    names = (TEACHER.name, "w100-d17-gap", "w035-d17-gap")
    assert [cost(name).profiler_flops for name in names] == [644_843_096, 613_448_536, 122_646_776]
    assert [cost(name).printed_macs for name in names[:2]] == [322_421_548, 306_724_268]


def test_flops_decompose_as_in_the_spec() -> None:
    teacher, student = recorded(TEACHER.name), recorded("w100-d17-gap")
    for forward in (teacher, student):
        assert sum(layer.macs for layer in forward.convolutions) == 299_494_272
        assert len(forward.convolutions) == 52
        assert sum(elements for _, elements in forward.norms) == 6_678_112
        assert sum(channels for channels, _ in forward.norms) == 17_056
        assert forward.added == 216_384
        assert sum(layer.outputs[0] for layer in forward.dense) == 388
    assert (teacher.pooled, student.pooled) == (0, 62_720)
    assert [2 * sum(layer.macs for layer in f.dense) for f in (teacher, student)] == [
        2 * (62_720 * 256 + 256 * 128 + 128 * 4), 721_920,
    ]  # fmt: skip
    assert profiler_flops(student, classes=5) - profiler_flops(student) == 5


def test_size_is_four_bytes_for_each_keras_parameter() -> None:
    assert cost(TEACHER.name).megabytes == pytest.approx(73.391888)
    assert cost("w100-d17-gap").megabytes == pytest.approx(10.477328)


def test_smaller_images_shrink_the_teacher() -> None:
    totals = {64: 3_602_372, 96: 5_240_772, 128: 7_534_532, 160: 10_483_652}
    assert {size: cost(TEACHER.name, size).keras_parameters for size in totals} == totals
    names = (TEACHER.name, "w100-d17-gap", "w035-d17-gap")
    millions = {64: (25.8, 24.8, 5.1), 96: (58.0, 55.4, 11.0), 128: (103.1, 98.2, 19.3)}
    for size, expected in millions.items():
        assert tuple(round(cost(name, size).macs / 1e6, 1) for name in names) == expected


@pytest.mark.parametrize(
    ("name", "true", "grouped", "literal"),
    [("w100-d17-gap", 15_633_792, 14_081_472, 54_627_552), ("w035-d17-gap", 6_195_408, 5_433_360, 10_513_248)],
)
def test_memory_access_of_the_backbone(name: str, true: int, grouped: int, literal: int) -> None:
    layers = recorded(name, part="backbone").convolutions
    assert cost(name).backbone_memory_access == memory_access(layers) == true
    assert memory_access(layers, true_inputs=False) == grouped
    assert memory_access(layers, grouped=False, true_inputs=False) == literal


def test_memory_access_of_the_network_adds_its_head() -> None:
    dense = (62_720, 256, 128, 4)
    head = sum(a + b + a * b for a, b in pairwise(dense))
    own = cost(TEACHER.name)
    assert own.memory_access == own.backbone_memory_access + head


def test_literal_formulas_of_the_thesis() -> None:
    layers = recorded("w100-d17-gap", part="backbone").convolutions
    assert round(literal_macs(layers) / 1e9, 2) == 5.55
    assert formula_parameters(layers) == 2_206_816


def test_one_convolution_by_hand() -> None:
    layer = Convolution(kernel=3, groups=4, inputs=(8, 6, 6), outputs=(8, 3, 3))
    assert layer.weights == 9 * 8 * 8 // 4
    assert layer.macs == 9 * layer.weights
    assert memory_access([layer]) == 8 * 36 + 8 * 9 + 144
    assert memory_access([layer], grouped=False, true_inputs=False) == 9 * 16 + 9 * 64
    assert literal_macs([layer]) == 9 * 9 * 64
    assert formula_parameters([layer]) == 144 + 8


class Small(nn.Module):
    """A convolution, a batch norm, a residual sum, a global average and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.dense = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.norm(self.convolution(x))
        return self.dense(x.mean(dim=(2, 3)))


def test_a_small_network_by_hand() -> None:
    network = Small()
    before = [b.clone() for b in network.buffers()]
    forward = forward_of(network, 4)
    assert forward.convolutions == (Convolution(3, 3, (3, 4, 4), (3, 4, 4)),)
    assert forward.dense == (Convolution(1, 1, (3, 1, 1), (2, 1, 1)),)
    assert (forward.norms, forward.added, forward.pooled) == (((3, 48),), 48, 48)
    assert profiler_flops(forward, classes=2) == 2 * (16 * 27 + 6) + 2 * 48 + 6 * 3 + 48 + 48 + 2 + 10
    assert keras_parameters(network) == 27 + 6 + 6 + 8
    assert network.training
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers()))


def test_counting_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    on_meta("w035-d11-gap", 32)
    assert torch.equal(torch.rand(1), expected)


def test_an_unknown_part_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown part: 'head'"):
        recorded("w035-d11-gap", 32, "head")
