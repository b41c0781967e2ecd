"""BIMask's masks: exact count, ties by (seed, index, pixel), and the spec's numerical checks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from efflib.kernels import mask_least_salient
from efflib.kernels.common import taking
from efflib.kernels.mask_least_salient import (
    LARGEST,
    _fused,
    _start,
    mask_least_salient_ref,
    removed_count,
    tie_hash,
)


def mask(saliency, ratio, seed=0, indices=None):
    ones = torch.ones(len(saliency), 1, *saliency.shape[1:])
    return mask_least_salient(ones, saliency, ratio, seed, indices)[:, 0]


@pytest.mark.parametrize(
    ("ratio", "count"),
    [(0.05, 51), (0.075, 77), (0.1, 102), (0.15, 154), (0.2, 205), (0.3, 307), (0, 0), (1, 1024)],
)
def test_removed_counts_of_the_spec(ratio, count):
    assert removed_count(ratio, 32, 32) == count
    saliency = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0)).round()  # many ties
    assert (mask(saliency, ratio) == 0).flatten(1).sum(1).tolist() == [count] * 3


def test_bilinear_example_of_the_spec():
    coarse = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    fine = F.interpolate(coarse, size=(4, 4), mode="bilinear", align_corners=False)[0]
    assert fine[0, 0].tolist() == [0, 0.25, 0.75, 1] and fine[0, 3].tolist() == [2, 2.25, 2.75, 3]
    removed = (mask(fine, 0.1)[0] == 0).nonzero().tolist()
    assert removed == [[0, 0], [0, 1]]


def test_only_the_least_salient_go_and_all_channels_with_them():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 7, 5, generator=generator) + 0.1
    saliency = torch.rand(4, 7, 5, generator=generator)
    out = mask_least_salient(images, saliency, 0.4, seed=3)
    gone = (out == 0).all(dim=1)
    assert torch.equal(gone, (out == 0).any(dim=1))
    assert torch.equal(out[~gone[:, None].expand_as(out)], images[~gone[:, None].expand_as(images)])
    for n in range(4):
        assert saliency[n][gone[n]].max() < saliency[n][~gone[n]].min()


def test_ties_follow_seed_and_index_not_batch_or_raster():
    flat = torch.zeros(6, 16, 16)
    indices = torch.tensor([10, 11, 12, 13, 14, 15])
    whole = mask(flat, 0.25, 5, indices)
    parts = torch.cat([mask(flat[:2], 0.25, 5, indices[:2]), mask(flat[2:], 0.25, 5, indices[2:])])
    assert torch.equal(whole, parts)
    shuffled = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.equal(mask(flat, 0.25, 5, indices[shuffled]), whole[shuffled])
    assert not torch.equal(whole, mask(flat, 0.25, 6, indices))
    rows = (whole == 0).float().mean(dim=(0, 2))  # share removed per row: raster order would give 1, 1, 1, 1, 0, ...
    assert rows.max() < 0.5 and rows.min() > 0.05


def test_hash_is_fixed_and_uniform():
    values = tie_hash(0, torch.arange(64), 1024)
    assert values.min() >= 0 and values.max() < 2**32
    assert abs(values.double().mean() / 2**32 - 0.5) < 0.01
    assert len(values.flatten().unique()) > 65_500
    # Masks of recorded trials depend on these values: they follow MurmurHash3's finaliser in plain integers, for good.
    plain = [[by_hand(7, index, pixel) for pixel in range(5)] for index in (3, 49_999)]
    assert tie_hash(7, torch.tensor([3, 49_999]), 5).tolist() == plain
    assert plain[0][:3] == [1294001535, 4117257402, 219537481]


def by_hand(seed, index, pixel):
    def mix(x):
        x = ((x ^ (x >> 16)) * 0x85EBCA6B) % 2**32
        x = ((x ^ (x >> 13)) * 0xC2B2AE35) % 2**32
        return x ^ (x >> 16)

    return mix(mix(mix(seed ^ 0x9E3779B9) ^ index) ^ pixel)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 11),
    st.floats(0, 1),
    st.integers(-(2**31), 2**40),
    st.booleans(),
)
def test_exact_count_always(n, height, width, ratio, seed, ties):
    saliency = torch.randn(n, height, width, generator=torch.Generator().manual_seed(n))
    got = mask(saliency.round() if ties else saliency, ratio, seed)
    assert (got == 0).flatten(1).sum(1).tolist() == [int(ratio * height * width + 0.5)] * n


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.bfloat16, torch.float64])
def test_keeps_dtype_and_does_not_touch_the_input(dtype):
    images = torch.ones(2, 3, 4, 4).to(dtype)
    out = mask_least_salient(images, torch.rand(2, 4, 4).transpose(1, 2), 0.5, 0)
    assert out.dtype == dtype and bool(images.all()) and out.bool().sum() == 2 * 3 * 8


def test_bad_input_names_what_is_wrong():
    images, saliency = torch.ones(2, 3, 4, 4), torch.rand(2, 4, 4)
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and \(2, 4, 5\)"):
        mask_least_salient(images, torch.rand(2, 4, 5), 0.1, 0)
    with pytest.raises(ValueError, match=r"0\.\.1, got 10"):
        mask_least_salient(images, saliency, 10, 0)
    with pytest.raises(ValueError, match="one per image"):
        mask_least_salient(images, saliency, 0.1, 0, torch.arange(3))
    with pytest.raises(ValueError, match="NaN"):
        mask_least_salient(images, saliency * torch.nan, 0.1, 0)


# --- the Triton path: the very same pixels --------------------


def same_pixels(images, saliency, ratio, seed=0, indices=None, operation=mask_least_salient):
    with taking("triton"):
        got = operation(images, saliency, ratio, seed, indices)
    truth = mask_least_salient_ref(images, saliency, ratio, seed, indices)
    assert got.dtype == truth.dtype and torch.equal(got, truth), "other pixels than the definition"
    return got


def pictures(n, c, h, w, device, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = 1 + torch.rand(n, c, h, w, generator=generator) * 100
    return images.to(device, dtype), torch.randn(n, h, w, generator=generator).to(device)


def ties(saliency):
    return saliency.round()


def constant(saliency):
    return torch.full_like(saliency, -3.0)


def signed_zeros(saliency):
    return torch.where(saliency > 0, 0.0, -0.0).to(saliency)


def one_stands_out(saliency):
    flat = torch.zeros_like(saliency)
    flat[:, -1, -1] = -1e-45  # the smallest float32, and below all others
    return flat


def extremes(saliency):
    return saliency.sign() * torch.finfo(torch.float32).max


@pytest.mark.parametrize("shape", [(3, 3, 7, 5), (1, 1, 1, 1), (2, 3, 32, 32), (1, 4, 1, 37), (1, 10, 13, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_kernel_takes_the_same_pixels(device, shape, layout):
    images, saliency = pictures(*shape, device)
    images = images.to(memory_format=layout)
    for ratio in (0, 0.1, 1):
        got = same_pixels(images, saliency if ratio else ties(saliency), ratio, seed=-5)
        assert got.stride() == images.stride()
    same_pixels(images, ties(saliency), 0.4, seed=2**33 + 7)


@pytest.mark.parametrize("case", [ties, constant, signed_zeros, one_stands_out, extremes])
@pytest.mark.parametrize("ratio", [0.03, 0.5, 0.97])
def test_kernel_edges(device, case, ratio):
    images, saliency = pictures(2, 3, 11, 13, device)
    indices = torch.tensor([49_999, 2**32 + 3], device=device)
    same_pixels(images, case(saliency), ratio, 7, indices)


def test_kernel_of_several_warps(device):
    images, saliency = pictures(1, 2, 64, 50, device)
    same_pixels(images, ties(saliency), 0.3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.bfloat16, torch.float32])
def test_kernel_moves_any_dtype_and_ranks_any_float(device, dtype):
    images, saliency = pictures(2, 3, 8, 8, device, dtype)
    for precision in (torch.float32, torch.bfloat16, torch.float16):
        same_pixels(images.to(memory_format=torch.channels_last), saliency.to(precision), 0.4)


def test_kernel_on_views(device):
    images, saliency = pictures(4, 6, 10, 12, device)
    same_pixels(images[1:3, ::2, 2:7, 3:8], saliency[1:3, 2:7, 3:8], 0.4)
    same_pixels(images.to(memory_format=torch.channels_last)[:, 1:3], saliency, 0.4)
    same_pixels(images[:, :1].expand(4, 3, 10, 12), saliency, 0.4)
    same_pixels(images[:1].expand(4, 6, 10, 12), saliency, 0.4)
    same_pixels(images[:, :, :1, :1].expand(4, 6, 10, 12), saliency, 0.4)
    same_pixels(images.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2), saliency, 0.4)
    same_pixels(images.transpose(2, 3), saliency.transpose(1, 2), 0.4)
    same_pixels(images, saliency, 0.4, indices=torch.arange(8, device=device)[::2])
    same_pixels(images, saliency, 0.4, indices=torch.tensor([5, 0, 2, 9]))  # on the CPU, whatever the images' device


def test_more_pixels_than_a_program_holds_take_the_definition(device):
    images, saliency = pictures(1, 1, 1, LARGEST + 1, device)
    same_pixels(images, saliency, 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_of_kept_pixels_passes(agree, device, dtype):
    images, saliency = pictures(2, 3, 5, 7, device, dtype)
    images = images.to(memory_format=torch.channels_last)
    masked = [lambda x, f=f: f(x, ties(saliency), 0.4, 1) for f in (mask_least_salient, mask_least_salient_ref)]
    agree(*masked, (images,), wrt=(0,), floor=0)


def test_the_saliency_gets_no_gradient(device):
    images, saliency = pictures(2, 3, 5, 7, device)
    with taking("triton"):
        assert not mask_least_salient(images, saliency.requires_grad_(), 0.4, 0).requires_grad
        with torch.no_grad():
            assert not mask_least_salient(images.requires_grad_(), saliency, 0.4, 0).requires_grad


def test_kernel_refuses_bad_input_as_the_definition_does(device):
    images, saliency = pictures(2, 3, 4, 4, device)
    with taking("triton"):
        with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and \(2, 4, 3\)"):
            mask_least_salient(images, saliency[..., :3], 0.1, 0)
        with pytest.raises(ValueError, match=r"0\.\.1, got 10"):
            mask_least_salient(images, saliency, 10, 0)
        with pytest.raises(ValueError, match="one per image"):
            mask_least_salient(images, saliency, 0.1, 0, torch.arange(3, device=device))
        for bad in (float("nan"), float("inf"), -float("inf")):
            broken = saliency.clone()
            broken[1, 3, 3] = bad
            with pytest.raises(ValueError, match="NaN"):
                mask_least_salient(images, broken, 0.1, 0)


def test_torch_compile_sees_it(one_graph, device):
    images, saliency = pictures(2, 3, 4, 4, device)
    one_graph(lambda x: mask_least_salient(x, saliency, 0.4, 3), (images,), wrt=(0,))


def test_operator_is_registered_as_torch_wants(registered, device):
    images, saliency = pictures(2, 3, 4, 4, device)
    registered(_fused, (images.requires_grad_(), saliency, None, 5, _start(3)))
    registered(_fused, (images.detach().mT, saliency, torch.tensor([4, 2], device=device), 5, _start(3)))


@pytest.mark.parametrize(
    "change",
    [
        {"tl.where(saliency == 0, 0.0, saliency).to(": "saliency.to("},
        {"(bits >> 31) & 0x7FFFFFFF": "0"},
        {" ^ 0x80000000)": ")"},
        {"gone = (rank < last) |": "gone = (rank <= last) |"},
        {"inside & (ranks == last), K - below)": "inside & (ranks == last), K)"},
        {"bitcast=True) ^ index.to(": "bitcast=True) ^ n.to("},
        {"at_or_below = tl.sum((inside & (ranks <= last))": "at_or_below = tl.sum((inside & (ranks < last))"},
        {"tl.where(K == 0, -0x80000000, last)": "last"},
    ],
)
def test_a_wrong_kernel_is_noticed(device, mutant, change):
    wrong = mutant("mask_least_salient", change).mask_least_salient
    images, saliency = pictures(2, 2, 8, 8, device)
    indices = torch.tensor([40, 3], device=device)
    with pytest.raises(AssertionError, match="other pixels"):  # noqa: PT012 - any one of these inputs is enough
        for values in (saliency, ties(saliency), signed_zeros(saliency)):
            for ratio in (0, 0.02, 0.4):
                same_pixels(images, values, ratio, 7, indices, operation=wrong)
