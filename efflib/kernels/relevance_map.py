"""Gradient times activation, summed over channels: what DisWOT with "LRP" calls relevance (elsewhere: HiResCAM).

map[n] = relu( sum_c activations[n, c] * gradients[n, c] )
With upstream G and u = G where the sum is above 0, else 0:
d/d activations[n, c] = u[n] * gradients[n, c];   d/d gradients[n, c] = u[n] * activations[n, c]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from efflib.kernels.common import jit, power_of_two_above, takes_triton, tl, triton, widened


def relevance_map(activations: Tensor, gradients: Tensor, relu: bool = True) -> Tensor:
    """Gradient-times-activation map at the feature map's own resolution, not normalised; differentiable twice.

    Args:
        activations: (N, C, h, w) feature map.
        gradients: (N, C, h, w) gradient of the class score with respect to it.
        relu: keep only positive evidence, as in the thesis.

    Returns:
        (N, h, w), dtype of activations; arithmetic in float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes that differ.

    Source: Benzine and Kiouer 2025, Eqs. 2.17 and 2.18; section 2.2 of its spec.
    """
    if takes_triton(activations, gradients):
        check_maps(activations, gradients)
        return _fused(activations, gradients, bool(relu))[0]
    return relevance_map_ref(activations, gradients, relu)


def relevance_map_ref(activations: Tensor, gradients: Tensor, relu: bool = True) -> Tensor:
    """Definition of `relevance_map`."""
    check_maps(activations, gradients)
    summed = (widened(activations) * widened(gradients)).sum(dim=1)
    return (summed.relu() if relu else summed).to(activations.dtype)


def check_maps(activations: Tensor, gradients: Tensor) -> None:
    """Error shared by the maps made of activations and their gradients.

    Raises:
        ValueError: shapes that are not (N, C, h, w), or that differ.
    """
    if activations.shape != gradients.shape or activations.ndim != 4:
        raise ValueError(
            f"activations and gradients must be (N, C, h, w) and equal in shape, "
            f"got {tuple(activations.shape)} and {tuple(gradients.shape)}"
        )


# The Triton path. Kernels see (N, C, P), P = h w pixels, with any strides. A program takes PIXELS pixels of one image
# and adds up its channels block by block, so that both inputs are read once, along whichever axis is contiguous:
# channels in a channels_last map, pixels in one that is not. The gate (one byte per pixel) is kept for the backward
# pass, because the map itself cannot tell: a small positive sum may round to 0 in fp16.


@jit
def _map_kernel(
    activations,  # *(N, C, P), any strides
    gradients,  # *(N, C, P), any strides
    maps,  # *(N, P) contiguous, written
    gate,  # *(N, P) bool, written: where the upstream gradient passes
    a_image,
    a_channel,
    a_pixel,
    g_image,
    g_channel,
    g_pixel,
    C,
    P,
    RELU: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(P, PIXELS)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    p = ((tl.program_id(0) % blocks) * PIXELS + tl.arange(0, PIXELS)).to(tl.int64)  # (PIXELS,)
    c = tl.arange(0, CHANNELS).to(tl.int64)
    a_tile = activations + n * a_image + p[:, None] * a_pixel + c[None, :] * a_channel  # (PIXELS, CHANNELS)
    g_tile = gradients + n * g_image + p[:, None] * g_pixel + c[None, :] * g_channel
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for start in range(0, C, CHANNELS):
        inside = (p < P)[:, None] & (c < C - start)[None, :]
        a = tl.load(a_tile, inside, 0.0).to(tl.float32)
        total += a * tl.load(g_tile, inside, 0.0).to(tl.float32)
        a_tile += CHANNELS * a_channel
        g_tile += CHANNELS * g_channel
    value = tl.sum(total, axis=1)
    # asked this way round NaN passes, as in torch: it must stop the run, not become 0
    closed = (value <= 0) & RELU
    value = tl.where(closed, 0.0, value)
    tl.store(maps + n * P + p, value.to(maps.dtype.element_ty), p < P)
    tl.store(gate + n * P + p, closed == 0, p < P)


@jit
def _gradients_kernel(
    upstream,  # *(N, P) contiguous
    gate,  # *(N, P) bool
    activations,  # *(N, C, P), any strides
    gradients,  # *(N, C, P), any strides
    d_activations,  # *(N, C, P), any strides, written if WANTS_A
    d_gradients,  # *(N, C, P), any strides, written if WANTS_G
    a_image,
    a_channel,
    a_pixel,
    g_image,
    g_channel,
    g_pixel,
    da_image,
    da_channel,
    da_pixel,
    dg_image,
    dg_channel,
    dg_pixel,
    C,
    P,
    WANTS_A: tl.constexpr,
    WANTS_G: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(P, PIXELS)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    p = ((tl.program_id(0) % blocks) * PIXELS + tl.arange(0, PIXELS)).to(tl.int64)  # (PIXELS,)
    c = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)).to(tl.int64)
    inside = (p < P)[:, None] & (c < C)[None, :]
    u = tl.load(upstream + n * P + p, p < P, 0.0).to(tl.float32)
    u = tl.where(tl.load(gate + n * P + p, p < P, 0), u, 0.0)
    if WANTS_A:
        g = tl.load(gradients + n * g_image + p[:, None] * g_pixel + c[None, :] * g_channel, inside, 0.0)
        tile = d_activations + n * da_image + p[:, None] * da_pixel + c[None, :] * da_channel
        tl.store(tile, (u[:, None] * g.to(tl.float32)).to(d_activations.dtype.element_ty), inside)
    if WANTS_G:
        a = tl.load(activations + n * a_image + p[:, None] * a_pixel + c[None, :] * a_channel, inside, 0.0)
        tile = d_gradients + n * dg_image + p[:, None] * dg_pixel + c[None, :] * dg_channel
        tl.store(tile, (u[:, None] * a.to(tl.float32)).to(d_gradients.dtype.element_ty), inside)


@torch.library.custom_op("efflib::relevance_map", mutates_args=())
def _fused(activations: Tensor, gradients: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    """(map, gate), both (N, h, w), by the Triton kernel."""
    N, C, h, w = activations.shape
    maps, gate = room_for_map(activations)
    A, G = pixels(activations), pixels(gradients)
    taken, channels = tile_over_channels(A)
    _map_kernel[(N * triton.cdiv(h * w, taken),)](
        A, G, maps, gate, *A.stride(), *G.stride(), C, h * w, RELU=relu, PIXELS=taken, CHANNELS=channels
    )
    return maps, gate


@torch.library.custom_op("efflib::relevance_map_backward", mutates_args=())
def _fused_backward(
    upstream: Tensor, gate: Tensor, activations: Tensor, gradients: Tensor, wants_a: bool, wants_g: bool
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to activations and gradients; one that is not wanted is empty."""
    N, C, h, w = activations.shape
    dA, dG = room_for_gradient(activations, wants_a), room_for_gradient(gradients, wants_g)
    A, G = pixels(activations), pixels(gradients)
    taken, channels = tile_over_channels(A)
    strides = (*A.stride(), *G.stride(), *dA.stride(), *dG.stride())
    options = {"WANTS_A": wants_a, "WANTS_G": wants_g, "PIXELS": taken, "CHANNELS": channels}
    _gradients_kernel[(N * triton.cdiv(h * w, taken), triton.cdiv(C, channels))](
        upstream.contiguous(), gate, A, G, dA, dG, *strides, C, h * w, **options
    )
    return as_map(dA, h, w), as_map(dG, h, w)


def pixels(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, h w): a view of every map whose rows follow each other, a copy of one cut or turned in
    space. Kernels that took h and w apart could not load four neighbours at once."""
    return x.flatten(2)


def as_map(x: Tensor, h: int, w: int) -> Tensor:
    """(N, C, h w) -> (N, C, h, w); an empty one stays empty."""
    return x.unflatten(2, (h, w)) if x.numel() else x


def room_for_map(activations: Tensor) -> tuple[Tensor, Tensor]:
    """New tensors for a map and its gate, (N, h, w) contiguous."""
    N, _, h, w = activations.shape
    return activations.new_empty(N, h, w), activations.new_empty(N, h, w, dtype=torch.bool)


def room_for_gradient(x: Tensor, wanted: bool) -> Tensor:
    """A new tensor (N, C, h w) in the memory order of x, empty where no gradient is wanted."""
    return torch.empty_like(pixels(x)) if wanted else x.new_empty(0, 0, 0)


PROGRAMS = 528  # four for each of an H200's 132 multiprocessors


def tile_over_channels(x: Tensor) -> tuple[int, int]:
    """(pixels, channels) of the tile that a program moves over the channels of x (N, C, P): 1,024 numbers, 8 for each
    thread of four warps, longer along the contiguous axis; few enough pixels that small maps fill the device."""
    N, C, P = x.shape
    if x.stride(1) <= x.stride(2):
        channels = min(power_of_two_above(C), 256)
        return min(power_of_two_above(P), 1024 // channels), channels
    taken = min(power_of_two_above(P), 128)
    while taken > 16 and N * -(-P // taken) < PROGRAMS:
        taken //= 2
    return taken, min(power_of_two_above(C), 1024 // taken)


@_fused.register_fake
def _(activations: Tensor, gradients: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    return room_for_map(activations)


@_fused_backward.register_fake
def _(
    upstream: Tensor, gate: Tensor, activations: Tensor, gradients: Tensor, wants_a: bool, wants_g: bool
) -> tuple[Tensor, Tensor]:
    h, w = activations.shape[2:]
    dA, dG = room_for_gradient(activations, wants_a), room_for_gradient(gradients, wants_g)
    return as_map(dA, h, w), as_map(dG, h, w)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], *inputs[:2])


def _pull_back(ctx: Any, upstream: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return None, None, None
    wants = ctx.needs_input_grad[:2]
    return (*only_wanted(wants, _fused_backward(upstream, *ctx.saved_tensors, *wants)), None)


def only_wanted(wants: tuple[bool, bool], gradients: tuple[Tensor, Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients that are wanted, None for the others, as autograd expects them."""
    return tuple(gradient if wanted else None for wanted, gradient in zip(wants, gradients, strict=True))


def _keep_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:4])


def _pull_back_twice(ctx: Any, v_a: Tensor | None, v_g: Tensor | None) -> tuple[Tensor | None, ...]:
    """The first gradients are (u g, u A), u = gate * upstream; V of each is what arrives at it. So <V_A, u g> +
    <V_G, u A> has the gradients u V_G for A and u V_A for g, which is the same operator again, at any order."""
    upstream, gate, activations, gradients = ctx.saved_tensors
    terms = [widened(v) * widened(x) for v, x in ((v_a, gradients), (v_g, activations)) if v is not None]
    d_upstream = None
    if terms and ctx.needs_input_grad[0]:
        d_upstream = torch.where(gate, sum(terms[1:], terms[0]).sum(dim=1), 0.0).to(upstream.dtype)
    wants = (v_g is not None and ctx.needs_input_grad[2], v_a is not None and ctx.needs_input_grad[3])
    if not any(wants):
        return d_upstream, None, None, None, None, None
    first, second = activations if v_a is None else v_a, gradients if v_g is None else v_g
    return d_upstream, None, *only_wanted(wants, _fused_backward(upstream, gate, first, second, *wants)), None, None


_fused.register_autograd(_pull_back, setup_context=_keep)
_fused_backward.register_autograd(_pull_back_twice, setup_context=_keep_backward)
