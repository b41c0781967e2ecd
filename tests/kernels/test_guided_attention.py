"""The Triton path of guided_attention against its definition, both against float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from efflib.kernels.common import taking
from efflib.kernels.guided_attention import (
    LARGEST,
    SCORES,
    _fused,
    _fused_backward,
    guided_attention,
    guided_attention_ref,
)

FLOATS = (torch.float32, torch.bfloat16)


def tokens(B, d, L, device, dtype=torch.float32, spread=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = spread * torch.randn(3, B, d, L, generator=generator, dtype=torch.float64)
    return tuple(drawn.to(device, dtype))  # teacher, student, value


def both(**options):
    return partial(guided_attention, **options), partial(guided_attention_ref, **options)


@pytest.mark.parametrize(("dtype", "transposed"), [(FLOATS[0], False), (FLOATS[0], True), (FLOATS[1], False)])
@pytest.mark.parametrize("shape", [(2, 16, 16), (2, 7, 37), (1, 70, 5), (2, 1, 1), (1, 19, 1), (1, 3, 80)])
def test_agrees_with_float64(agree, device, dtype, transposed, shape):
    q, k, _ = tokens(*shape, device, dtype)
    agree(*both(spatial_transpose=transposed), (q, k), wrt=(0, 1))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("transposed", [False, True])
def test_value_and_learnable_scale(agree, device, score, transposed):
    def spread(attend):
        return lambda q, k, v, t: attend(q, k, score, transposed, v, t)

    inputs = (*tokens(2, 5, 9, device), torch.tensor(1.7, device=device))
    agree(spread(guided_attention), spread(guided_attention_ref), inputs, wrt=(0, 1, 2, 3), floor=16)
    agree(*both(score=score, spatial_transpose=transposed, scale=-0.6), inputs[:2], wrt=(0, 1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_scale_of_one_entry(agree, device, dtype):
    q, k, _ = tokens(2, 5, 9, device)
    scale = torch.tensor([0.8], device=device, dtype=dtype)
    attend = [lambda q, k, t, f=f: f(q, k, "l2", scale=t) for f in (guided_attention, guided_attention_ref)]
    agree(*attend, (q, k, scale), wrt=(0, 1, 2), floor=16)


def same(device):
    q, _, _ = tokens(2, 6, 10, device)
    return q, q.clone()


def zeros(device):
    q, k, _ = tokens(2, 6, 10, device)
    q[:, 2], k[:, :, 3] = 0, 0
    return q, k


def constant(device):
    return torch.full((2, 6, 10), 2.0, device=device), torch.full((2, 6, 10), -3.0, device=device)


def saturated(device):
    return tokens(2, 6, 10, device, spread=30.0)[:2]


def channels_last(device):
    return tuple(
        x.to(memory_format=torch.channels_last).flatten(2) for x in torch.stack(same(device)).unflatten(3, (5, 2))
    )


def every_other(device):
    q, k, _ = tokens(4, 12, 20, device)
    return q[::2, ::2, ::2], k[::2, 1::2, 10:]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("case", [same, zeros, constant, saturated, channels_last, every_other])
def test_edges(agree, device, case, score):
    q, k = case(device)
    # A softmax hands on the rounding of its logits: as many units of the last place as the largest logit is large.
    largest = float((q @ k.mT).abs().max())
    agree(*both(score=score), (q, k), wrt=(0, 1), floor=max(16, largest))


def test_layouts_are_kept(device):
    q, k = channels_last(device)
    with taking("triton"):
        out = guided_attention(q, k.requires_grad_())
        (slope,) = torch.autograd.grad(out.sum(), k)
    assert k.stride(1) == 1 and out.stride() == slope.stride() == k.stride()


def test_dtypes_are_the_students_and_each_inputs_own(device):
    q, k, v = tokens(2, 5, 9, device)
    q, k, v = q.requires_grad_(), k.bfloat16().requires_grad_(), v.half().requires_grad_()
    for score in SCORES:
        with taking("triton"):
            out = guided_attention(q, k, score, value=v)
        plain = guided_attention_ref(q, k, score, value=v)
        assert out.dtype == plain.dtype == torch.bfloat16 and torch.allclose(out, plain, atol=2e-2)
        slopes = torch.autograd.grad(out.sum(), (q, k, v))
        assert [x.dtype for x in slopes] == [torch.float32, torch.bfloat16, torch.float16]


def test_autocast_does_not_round_the_products(device):
    q, k, _ = (x.requires_grad_() for x in tokens(2, 6, 10, device))
    results = []
    with taking("triton"):
        for on in (False, True):
            with torch.autocast(device, torch.bfloat16, enabled=on):
                out = guided_attention(q, k, "l2")
                results.append((out, *torch.autograd.grad(out.square().sum(), (q, k))))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_no_grad_needs_no_backward_and_a_teacher_may_be_frozen(device):
    q, k, _ = tokens(2, 6, 10, device)
    with taking("triton"):
        guided_attention(q, k.requires_grad_()).sum().backward()
        with torch.no_grad():
            assert not guided_attention(q, k).requires_grad
    assert q.grad is None and k.grad.abs().sum() > 0


@pytest.mark.parametrize(("d", "L"), [(LARGEST[0] + 1, 1), (129, 128)])
def test_beyond_the_largest_the_definition_is_taken(device, d, L):
    q, k, _ = tokens(1, d, L, device)
    with taking("triton"):
        assert torch.equal(guided_attention(q, k), guided_attention_ref(q, k))
        per_image = torch.ones(1, 1, 1, device=device)
        assert torch.equal(guided_attention(q, k, scale=per_image), guided_attention_ref(q, k))


def test_bad_input_is_refused_as_by_the_definition(device):
    q, k, v = tokens(2, 3, 4, device)
    with taking("triton"):
        with pytest.raises(ValueError, match="'cosine'"):
            guided_attention(q, k, "cosine")
        with pytest.raises(ValueError, match=r"\(2, 3, 4\), \(2, 3, 2\)"):
            guided_attention(q, k[..., :2])
        with pytest.raises(ValueError, match=r"\(2, 2, 4\)"):
            guided_attention(q, k, value=v[:, :2])


def test_torch_compile_sees_it(one_graph, device):
    scale = torch.tensor(0.7, device=device)
    one_graph(
        lambda q, k, v, t: guided_attention(q, k, "l2", True, v, t), (*tokens(2, 5, 9, device), scale), (0, 1, 2, 3)
    )


def test_operators_are_registered_as_torch_wants(registered, device):
    q, k, v = tokens(2, 5, 9, device)
    scale = torch.tensor(0.7, device=device)
    registered(_fused, (q.requires_grad_(), k.requires_grad_(), v, scale.requires_grad_(), 0.3, 0.5, True))
    registered(_fused_backward, (v, q.detach(), k.detach(), v, scale.detach(), 0.3, 0.5, False))
    registered(_fused_backward, (v, q.detach(), k.detach(), v, None, 0.3, 0.5, True))


@pytest.mark.parametrize(
    "change",
    [
        {"scores = s_c * t * _scores": "scores = s_c * _scores"},
        {"total = total * tl.exp(top - higher) +": "total = total +"},
        {"scores - top_s, 0.0)) / total_s": "scores - top_s, 0.0))"},
        {"_scores(key, query, e, m,": "_scores(query, key, e, m,"},
        {"slope - tl.sum(weight * slope, axis=1)[:, None]": "slope"},
        {"tl.store(slopes + place, s * t * slope": "tl.store(slopes + place, t * slope"},
        {"dq.baddbmm_(k, slopes.mT)": "dq.baddbmm_(k, slopes)"},
        {"spatial if transposed else spatial.mT)": "spatial.mT)"},
        {"s * tl.sum(slope * centred, axis=1)": "tl.sum(slope * centred, axis=1)"},
    ],
)
def test_a_wrong_kernel_is_noticed(agree, device, mutant, change):
    wrong = mutant("guided_attention", change)
    inputs = (*tokens(2, 35, 35, device), torch.tensor(1.3, device=device))
    attend = [
        lambda q, k, v, t, f=f: f(q, k, "sqrt", True, v, t) for f in (wrong.guided_attention, guided_attention_ref)
    ]
    with pytest.raises(AssertionError, match="is off by"):
        agree(*attend, inputs, wrt=(0, 1, 2, 3), floor=16)
