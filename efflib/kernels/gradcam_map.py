"""Grad-CAM's weighted sum: channels weighted by the spatial mean of their gradient.

w[n, c] = mean_hw(gradients[n, c]);   map[n] = relu( sum_c w[n, c] * activations[n, c] )
With upstream G and u = G where the sum is above 0, else 0:
d/d activations[n, c] = w[n, c] u[n];   d/d gradients[n, c] = sum_hw(u[n] activations[n, c]) / (h w), at every pixel
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from efflib.kernels.common import jit, power_of_two_above, takes_triton, tl, triton
from efflib.kernels.relevance_map import (
    PROGRAMS,
    as_map,
    check_maps,
    only_wanted,
    pixels,
    room_for_gradient,
    room_for_map,
    tile_over_channels,
)


def gradcam_map(activations: Tensor, gradients: Tensor, relu: bool = True) -> Tensor:
    """Grad-CAM map at the feature map's own resolution, not normalised; differentiable twice.

    Args:
        activations: (N, C, h, w) feature map.
        gradients: (N, C, h, w) gradient of the class score with respect to it.
        relu: keep only positive evidence, as in the paper.

    Returns:
        (N, h, w), dtype of activations; arithmetic in float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes that differ.

    Source: Selvaraju et al. 2017, Eq. 1 and 2.
    """
    if takes_triton(activations, gradients):
        check_maps(activations, gradients)
        return _fused(activations, gradients, bool(relu))[0]
    return gradcam_map_ref(activations, gradients, relu)


def gradcam_map_ref(activations: Tensor, gradients: Tensor, relu: bool = True) -> Tensor:
    """Definition of `gradcam_map`."""
    check_maps(activations, gradients)
    work = torch.float64 if activations.dtype == torch.float64 else torch.float32
    weights = gradients.to(work).mean(dim=(2, 3), keepdim=True)
    weighted = (weights * activations.to(work)).sum(dim=1)
    return (weighted.relu() if relu else weighted).to(activations.dtype)


# The Triton path: two kernels forward, since every pixel needs the mean over all pixels; each big tensor is read once.
# One kernel backward: it reads the activations once, writing the one gradient as it goes and the other at the end.
# Kernels see (N, C, P), P = h w pixels, with any strides; gate is that of relevance_map.


@jit
def _mean_kernel(
    gradients,  # *(N, C, P), any strides
    weights,  # *(N, C) float32 contiguous, written
    g_image,
    g_channel,
    g_pixel,
    C,
    P,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    blocks = tl.cdiv(C, CHANNELS)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    c = ((tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)).to(tl.int64)  # (CHANNELS,)
    p = tl.arange(0, PIXELS).to(tl.int64)
    tile = gradients + n * g_image + p[:, None] * g_pixel + c[None, :] * g_channel  # (PIXELS, CHANNELS)
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for start in range(0, P, PIXELS):
        total += tl.load(tile, (p < P - start)[:, None] & (c < C)[None, :], 0.0).to(tl.float32)
        tile += PIXELS * g_pixel
    tl.store(weights + n * C + c, tl.sum(total, axis=0) / P, c < C)


@jit
def _map_kernel(
    activations,  # *(N, C, P), any strides
    weights,  # *(N, C) float32 contiguous
    maps,  # *(N, P) contiguous, written
    gate,  # *(N, P) bool, written: where the upstream gradient passes
    a_image,
    a_channel,
    a_pixel,
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
    tile = activations + n * a_image + p[:, None] * a_pixel + c[None, :] * a_channel  # (PIXELS, CHANNELS)
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for start in range(0, C, CHANNELS):
        inside = c < C - start
        w = tl.load(weights + n * C + start + c, inside, 0.0)
        total += w[None, :] * tl.load(tile, (p < P)[:, None] & inside[None, :], 0.0).to(tl.float32)
        tile += CHANNELS * a_channel
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
    weights,  # *(N, C) float32 contiguous
    d_activations,  # *(N, C, P), any strides, written if WANTS_A
    d_gradients,  # *(N, C, P), any strides, written if WANTS_G
    a_image,
    a_channel,
    a_pixel,
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
    blocks = tl.cdiv(C, CHANNELS)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    c = ((tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)).to(tl.int64)  # (CHANNELS,)
    p = tl.arange(0, PIXELS).to(tl.int64)
    w = tl.load(weights + n * C + c, c < C, 0.0)
    a_tile = activations + n * a_image + p[:, None] * a_pixel + c[None, :] * a_channel  # (PIXELS, CHANNELS)
    da_tile = d_activations + n * da_image + p[:, None] * da_pixel + c[None, :] * da_channel
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for start in range(0, P, PIXELS):
        there = p < P - start
        inside = there[:, None] & (c < C)[None, :]
        u = tl.load(upstream + n * P + start + p, there, 0.0).to(tl.float32)
        u = tl.where(tl.load(gate + n * P + start + p, there, 0), u, 0.0)
        if WANTS_A:
            tl.store(da_tile, (u[:, None] * w[None, :]).to(d_activations.dtype.element_ty), inside)
            da_tile += PIXELS * da_pixel
        if WANTS_G:
            total += u[:, None] * tl.load(a_tile, inside, 0.0).to(tl.float32)
            a_tile += PIXELS * a_pixel
    if WANTS_G:
        dw = tl.broadcast_to((tl.sum(total, axis=0) / P)[None, :], (PIXELS, CHANNELS))
        dg_tile = d_gradients + n * dg_image + p[:, None] * dg_pixel + c[None, :] * dg_channel
        for start in range(0, P, PIXELS):
            tl.store(dg_tile, dw.to(d_gradients.dtype.element_ty), (p < P - start)[:, None] & (c < C)[None, :])
            dg_tile += PIXELS * dg_pixel


@torch.library.custom_op("efflib::gradcam_map", mutates_args=())
def _fused(activations: Tensor, gradients: Tensor, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(map, gate, weights): (N, h, w) twice and (N, C), by the Triton kernels."""
    N, C, h, w = activations.shape
    maps, gate = room_for_map(activations)
    weights = activations.new_empty(N, C, dtype=torch.float32)
    A, G = pixels(activations), pixels(gradients)
    taken, channels = tile_over_pixels(G)
    _mean_kernel[(N * triton.cdiv(C, channels),)](G, weights, *G.stride(), C, h * w, PIXELS=taken, CHANNELS=channels)
    taken, channels = tile_over_channels(A)
    _map_kernel[(N * triton.cdiv(h * w, taken),)](
        A, weights, maps, gate, *A.stride(), C, h * w, RELU=relu, PIXELS=taken, CHANNELS=channels
    )
    return maps, gate, weights


@torch.library.custom_op("efflib::gradcam_map_backward", mutates_args=())
def _fused_backward(
    upstream: Tensor,
    gate: Tensor,
    weights: Tensor,
    activations: Tensor,
    gradients: Tensor,
    wants_a: bool,
    wants_g: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to activations and gradients; one that is not wanted is empty.

    weights are the means of gradients, whose own numbers are not read: they are here for what a second derivative
    flows into, and for their memory order.
    """
    N, C, h, w = activations.shape
    dA, dG = room_for_gradient(activations, wants_a), room_for_gradient(gradients, wants_g)
    A = pixels(activations)
    taken, channels = tile_over_pixels(A)
    strides = (*A.stride(), *dA.stride(), *dG.stride())
    options = {"WANTS_A": wants_a, "WANTS_G": wants_g, "PIXELS": taken, "CHANNELS": channels}
    _gradients_kernel[(N * triton.cdiv(C, channels),)](
        upstream.contiguous(), gate, A, weights, dA, dG, *strides, C, h * w, **options
    )
    return as_map(dA, h, w), as_map(dG, h, w)


def tile_over_pixels(x: Tensor) -> tuple[int, int]:
    """(pixels, channels) of the tile that a program moves over the pixels of x (N, C, P): at most 2,048 numbers.

    In a channels_last map 128 contiguous bytes of channels, halved if that leaves too few programs for the device; in
    others as few channels as give enough programs, down to one.
    """
    N, C, P = x.shape
    last = x.stride(1) <= x.stride(2)
    widest = 128 // x.element_size() if last else max(2048 // power_of_two_above(P), 1)
    channels = min(power_of_two_above(C), widest)
    least = max(channels // 2, 1) if last else 1
    while channels > least and N * -(-C // channels) < PROGRAMS:
        channels //= 2
    return min(power_of_two_above(P), 2048 // channels), channels


@_fused.register_fake
def _(activations: Tensor, gradients: Tensor, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    return *room_for_map(activations), activations.new_empty(activations.shape[:2], dtype=torch.float32)


@_fused_backward.register_fake
def _(
    upstream: Tensor,
    gate: Tensor,
    weights: Tensor,
    activations: Tensor,
    gradients: Tensor,
    wants_a: bool,
    wants_g: bool,
) -> tuple[Tensor, Tensor]:
    h, w = activations.shape[2:]
    dA, dG = room_for_gradient(activations, wants_a), room_for_gradient(gradients, wants_g)
    return as_map(dA, h, w), as_map(dG, h, w)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:], *inputs[:2])


def _pull_back(ctx: Any, upstream: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return None, None, None
    wants = ctx.needs_input_grad[:2]
    return (*only_wanted(wants, _fused_backward(upstream, *ctx.saved_tensors, *wants)), None)


def _keep_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:2], *inputs[3:5])


def _pull_back_twice(ctx: Any, v_a: Tensor | None, v_g: Tensor | None) -> tuple[Tensor | None, ...]:
    """The first gradients are (u w, mean_hw(u A)), u = gate * upstream; what arrives at them is (V_A, V_g).

    <V_A, u w> + <V_g, mean_hw(u A)> with w = mean_hw(g) has the gradients u mean_hw(V_g) for A and mean_hw(u V_A) for
    g: the same operator again, at any order.
    """
    upstream, gate, activations, gradients = ctx.saved_tensors
    first, second = activations if v_a is None else v_a, gradients if v_g is None else v_g
    pairs = [(v_a, gradients)] * (v_a is not None) + [(activations, v_g)] * (v_g is not None)
    terms = [x.float() * y.mean(dim=(2, 3), keepdim=True, dtype=torch.float32) for x, y in pairs]
    d_upstream = None
    if terms and ctx.needs_input_grad[0]:
        d_upstream = torch.where(gate, sum(terms[1:], terms[0]).sum(dim=1), 0.0).to(upstream.dtype)
    wants = (v_g is not None and ctx.needs_input_grad[3], v_a is not None and ctx.needs_input_grad[4])
    if not any(wants):
        return d_upstream, None, None, None, None, None, None
    means = second.mean(dim=(2, 3), dtype=torch.float32)
    pulled = _fused_backward(upstream, gate, means, first, second, *wants)
    return d_upstream, None, None, *only_wanted(wants, pulled), None, None


_fused.register_autograd(_pull_back, setup_context=_keep)
_fused_backward.register_autograd(_pull_back_twice, setup_context=_keep_backward)
