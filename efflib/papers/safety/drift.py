"""The drift check: sizes that follow from the optimiser alone, without data and without a network.

The loss contains gamma * Q, and Q is linear in the bit depths b. As long as no weight is clipped, b receives no other
gradient: the gradient of a channel's b is the constant gamma * inputs / N, with N the scalars of the model (N as in the
released notebooks). Adam divides a gradient by its own size, so whatever gamma is, b falls by the learning rate
per step, and the size of the model is a straight line in the number of steps. What is left is rounding: b is a float32
number, and between 16 and 32 bits the nearest one to 0.001 is 524 units of 2^-19.

`bits_after` repeats torch.optim.Adam and AdamW operation by operation, each correctly rounded to float32. PyTorch
itself fuses some operations and rounds square roots a little differently on different machines; between 16 and 32 bits,
where the published sizes lie, rounding b hides that, and both agree bit by bit (tests and the page compare). Once b is
not positive its gradient is 0, as that of the relu in Q. The clamp is left out: below about eight bits weights are
clipped, the task has a say, and a real run leaves this line.

Spec: section 5 (drift check), sections 2.2 and 2.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

START_BITS = 32.0  # of every channel in the released notebooks
EXPONENT = -8  # of every channel in the released notebooks
GAMMA = 0.1  # weight of Q in the released notebooks
OPTIMISERS = ("adam", "adamw")
_LARGEST = 1e18


@dataclass(frozen=True)
class Layer:
    """A quantised layer as far as its size goes: every output channel has one b for `inputs` weights."""

    name: str
    channels: int
    inputs: int

    @property
    def weights(self) -> int:
        return self.channels * self.inputs

    @property
    def start_width(self) -> int:
        """Two's-complement bits that the codes of freshly drawn weights can need.

        Weights are drawn within +-1/sqrt(inputs) and divided by 2^EXPONENT.
        """
        return code_width(1 / math.sqrt(self.inputs))


@dataclass(frozen=True)
class Network:
    """A network as far as its size goes.

    Args:
        name: as in `efflib.create_model`.
        layers: the quantised ones.
        others: float parameters that are not quantised (classifier, biases, norms, embeddings).
    """

    name: str
    layers: tuple[Layer, ...]
    others: int

    @property
    def weights(self) -> int:
        """Quantised weights: the only ones that the papers' size counts."""
        return sum(layer.weights for layer in self.layers)

    @property
    def channels(self) -> int:
        return sum(layer.channels for layer in self.layers)

    @property
    def groups(self) -> dict[int, int]:
        """Weights per channel -> weights of all layers that have so many: their bit depths share one gradient."""
        found = dict.fromkeys((layer.inputs for layer in self.layers), 0)
        for layer in self.layers:
            found[layer.inputs] += layer.weights
        return found

    @property
    def parameters(self) -> int:
        """Of the float network."""
        return self.weights + self.others

    @property
    def scalars(self) -> int:
        """All that is trained, bit depths and exponents included: the N of Q in the released notebooks."""
        return self.parameters + 2 * self.channels

    @property
    def bytes_per_bit(self) -> float:
        """Bytes that one bit per weight takes."""
        return self.weights / 8

    def gradient(self, inputs: int, gamma: float) -> float:
        """Gradient of gamma * Q with respect to the b of a channel of so many weights, as long as b > 0."""
        return gamma * inputs / self.scalars


_BLOCKS = range(4)
NETWORKS = {
    "mnist_cnn": Network(
        "mnist_cnn",
        (Layer("conv1", 32, 25), Layer("conv2", 32, 800), Layer("conv3", 64, 288), Layer("conv4", 64, 576)),
        others=576 * 10 + 10,
    ),
    "names_decoder": Network(
        "names_decoder",
        (
            *(
                Layer(f"block {i} {name}", channels, inputs)
                for i in _BLOCKS
                for name, channels, inputs in (("qkv", 192, 64), ("proj", 64, 64), ("ff1", 256, 64), ("ff2", 64, 256))
            ),
            Layer("head", 27, 64),
        ),
        others=(27 + 32) * 64 + 4 * (64 + 256 + 64) + 9 * 2 * 64 + 27,  # embeddings, biases, layer norms, head's bias
    ),
}


@dataclass(frozen=True)
class Optimiser:
    """Adam or AdamW with PyTorch's defaults.

    Args:
        name: "adam" (weight decay is added to the gradient) or "adamw" (weight decay shrinks the parameter).
        learning_rate: step size.
        weight_decay: 0 for none.
        betas: decay rates of the two moments.
        eps: added to the denominator; must be positive.

    Raises:
        ValueError: a name that does not exist, or a number outside its range.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if self.name not in OPTIMISERS:
            raise ValueError(f"optimiser {self.name!r}; use one of {', '.join(OPTIMISERS)}.")
        for what, value, lowest in (
            ("learning_rate", self.learning_rate, 0.0),
            ("weight_decay", self.weight_decay, 0.0),
        ):
            if not lowest <= value < math.inf:
                raise ValueError(f"{what}={value}; give a finite number that is not negative.")
        if not np.float32(self.eps) > 0:
            raise ValueError(f"eps={self.eps}; give a positive number that float32 can hold, e.g. 1e-8.")
        if not all(0 <= beta < 1 for beta in self.betas) or len(self.betas) != 2:
            raise ValueError(f"betas={self.betas}; give two numbers from 0 up to, not including, 1.")


# What the released notebooks used for each network.
PUBLISHED = {"mnist_cnn": Optimiser("adam"), "names_decoder": Optimiser("adamw", weight_decay=0.01)}


@dataclass(frozen=True)
class Match:
    """A size beside the nearest one that the drift passes through.

    Args:
        steps: optimiser steps after which the drift is nearest to the wanted size.
        size: bytes then.
        wanted: bytes that were asked for.
        spacing: bytes between that step and the one before it; every size lies within half of it, so that a match says
            something only where it is much nearer.
    """

    steps: int
    size: float
    wanted: float
    spacing: float

    @property
    def off(self) -> float:
        """Simulated less wanted, in bytes."""
        return self.size - self.wanted


# --- the simulation ---------------------------------------------------------------------------------------


def bits_after(
    steps: int,
    gradient: float | Sequence[float],
    optimiser: Optimiser = PUBLISHED["mnist_cnn"],
    initial_bits: float = START_BITS,
) -> np.ndarray:
    """Bit depth after 0, 1, ..., `steps` steps of an optimiser on a given gradient.

    The operations are those of torch.optim's single-tensor Adam in float32, in its order; scalars of Python stay
    float64 until they meet a tensor, as there.

    Args:
        steps: number of steps.
        gradient: of b while b > 0 (it is 0 afterwards): one number, or one for each step.
        optimiser: its kind and settings.
        initial_bits: b at the start.

    Returns:
        (steps + 1,) float32.

    Raises:
        ValueError: a negative number of steps, gradients that are not as many as steps or whose squares float32 cannot
            hold, or a start that is not positive.
    """
    given = _check(steps, gradient, initial_bits)
    single, (beta1, beta2), rate = np.float32, optimiser.betas, optimiser.learning_rate
    decoupled, decay = optimiser.name == "adamw", optimiser.weight_decay
    keep, pull = single(1 - rate * decay), single(decay)
    towards, keep2, add2, eps = single(1 - beta1), single(beta2), single(1 - beta2), single(optimiser.eps)
    zero = mean = square = single(0)
    b = single(initial_bits)
    bits = np.empty(steps + 1, dtype=single)
    bits[0] = b
    for step in range(1, steps + 1):
        g = given[step - 1] if b > 0 else zero
        if decay and decoupled:
            b = b * keep
        elif decay:
            g = g + pull * b
        # torch's lerp switches its formula at one half, so that it ends exactly at its end
        mean = mean + towards * (g - mean) if towards < 0.5 else g - (g - mean) * (single(1) - towards)
        square = square * keep2 + add2 * g * g
        scale = -rate / (1 - beta1**step)
        b = b + single(scale) * mean / (np.sqrt(square) / single((1 - beta2**step) ** 0.5) + eps)
        bits[step] = b
    return bits


def sizes_after(
    network: str,
    steps: int,
    optimiser: Optimiser | None = None,
    initial_bits: float = START_BITS,
    gamma: float | Sequence[float] = GAMMA,
) -> np.ndarray:
    """Size of a network's quantised weights after 0, 1, ..., `steps` steps of pure drift.

    Args:
        network: a name of NETWORKS.
        steps: number of steps.
        optimiser: None takes the one of the released notebook for this network.
        initial_bits: b of every channel at the start.
        gamma: weight of Q in the loss: one number, or one for each step.

    Returns:
        (steps + 1,) float64, bytes: the sum over channels of inputs * max(b, 0) / 8, which is what the paper's code
        reports. Classifier, biases, norms, embeddings, and b and e themselves are not in it.

    Raises:
        ValueError: an unknown network, and as `bits_after`.
    """
    chosen = _network(network)
    given = gamma if isinstance(gamma, (int, float)) else tuple(gamma)
    return np.array(_sizes_after(chosen, steps, optimiser or PUBLISHED[network], float(initial_bits), given))


@cache
def _sizes_after(
    network: Network, steps: int, optimiser: Optimiser, initial_bits: float, gamma: float | tuple[float, ...]
) -> np.ndarray:
    total = np.zeros(steps + 1)
    for inputs, weights in network.groups.items():
        if isinstance(gamma, tuple):
            bits = bits_after(steps, [network.gradient(inputs, each) for each in gamma], optimiser, initial_bits)
        else:
            bits = bits_after(steps, network.gradient(inputs, gamma), optimiser, initial_bits)
        total += weights * np.maximum(bits, 0).astype(np.float64) / 8
    return total


def steps_to(
    size: float,
    network: str,
    optimiser: Optimiser | None = None,
    initial_bits: float = START_BITS,
    gamma: float = GAMMA,
    limit: int = 65_536,
) -> Match:
    """The number of steps after which pure drift is nearest to a size.

    Args:
        size: bytes.
        network, optimiser, initial_bits, gamma: as in `sizes_after`.
        limit: give up beyond this many steps.

    Raises:
        ValueError: a size above the start's, or one that is not reached within `limit` steps.
    """
    steps = min(1024, limit)
    found = sizes_after(network, steps, optimiser, initial_bits, gamma)
    if not 0 <= size <= found[0]:
        raise ValueError(f"size={size:g} bytes; drift from {initial_bits:g} bits passes 0 to {found[0]:,.0f} bytes.")
    while found[-1] > size and steps < limit:
        steps = min(2 * steps, limit)
        found = sizes_after(network, steps, optimiser, initial_bits, gamma)
    if found[-1] > size:
        raise ValueError(
            f"size={size:g} bytes is not reached: after {limit} steps {found[-1]:,.0f} bytes are left. Raise `limit` "
            "or the learning rate."
        )
    nearest = int(np.abs(found - size).argmin())
    spacing = found[nearest - 1] - found[nearest] if nearest else math.nan
    return Match(nearest, float(found[nearest]), float(size), float(spacing))


def q_after(network: str, size: float) -> float:
    """The Q that the released notebooks report at a size: bits over all trained scalars, b and e included."""
    return 8 * size / _network(network).scalars


def _check(steps: int, gradient: float | Sequence[float], initial_bits: float) -> np.ndarray:
    """Gradients as (steps,) float32."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
        raise ValueError(f"steps={steps!r}; give a whole number that is not negative.")
    if not 0 < initial_bits < math.inf:
        raise ValueError(f"initial_bits={initial_bits}; give a positive, finite number.")
    given = np.asarray(gradient, dtype=np.float64)
    if given.shape not in ((), (steps,)):
        raise ValueError(f"gradient of shape {given.shape}: give one number, or one for each of {steps} steps.")
    if not (np.abs(given) < _LARGEST).all():  # false for NaN too
        raise ValueError(f"gradient: give finite numbers below {_LARGEST:g}, whose squares float32 can hold.")
    return np.broadcast_to(given.astype(np.float32), (steps,))


def _network(name: str) -> Network:
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r} here; known: {', '.join(NETWORKS)}.")
    return NETWORKS[name]


# --- what a bit depth means -------------------------------------------------------------------------------


def code_width(weight: float, exponent: float = EXPONENT) -> int:
    """Two's-complement bits for the code of a weight of this size: the bit depth below which it would be clipped.

    Args:
        weight: largest absolute weight of a channel.
        exponent: e of the channel; a code is the weight divided by 2^e, rounded.

    Returns:
        The smallest k with code <= 2^(k-1) - 1; 0 for a code of 0.
    """
    code = round(abs(weight) * 2.0**-exponent)
    return 0 if code == 0 else code.bit_length() + 1


def tight_start_bytes(network: str) -> float:
    """Bytes of the codes of a freshly drawn network if every layer gets `start_width` bits: what is there to store."""
    return sum(layer.weights * layer.start_width for layer in _network(network).layers) / 8
