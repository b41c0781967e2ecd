"""Small networks of the safety paper's two kinds, quantised, some with dead channels, that the tests share."""

from __future__ import annotations

import types

import pytest
import torch

from efflib.models import create_model, recalibrate_batch_norm
from efflib.quantize import quantize_model, quantized_layers
from efflib.training import seeded


def build(name, quantised=True, bits=4.0, exponent="minmax", seed=0, **options):
    """A narrow network with weights of this seed: convolutions of 8 and 16 channels, or 4 heads of 4."""
    with seeded(seed):
        classes = {"mnist_cnn": 10, "names_decoder": 27}[name]
        model = create_model(name, classes, **{"width": 0.25, **options})
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases start at 0: others find a forgotten one
                parameter.data.add_(0.3 * torch.randn_like(parameter))
    return quantize_model(model, bits, exponent) if quantised else model


def inputs(model, count=20, seed=1):
    """Images or windows of tokens for one of these networks."""
    generator = torch.Generator().manual_seed(seed)
    if hasattr(model, "tokens"):
        return torch.randint(0, 27, (count, 16), generator=generator)
    return torch.randn((count, 1, 28, 28), generator=generator)


def outputs(model, x=None):
    """Logits in eval mode."""
    model.eval()
    with torch.no_grad():
        return model(inputs(model) if x is None else x)


def kill(model, dead):
    """Set the bits of these channels (lists by layer) a little below 0, and let batch norm see it."""
    layers = quantized_layers(model)
    with torch.no_grad():
        for name, channels in dead.items():
            layers[name].bits[channels] = -0.004
    if hasattr(model, "norms"):
        recalibrate_batch_norm(model, inputs(model, 60, seed=2).split(20))
    return model


CNN_DEAD = {"conv1": [0, 5], "conv2": [7], "conv3": [1, 2, 15], "conv4": [0, 3, 14]}
# Rows of qkv: 16 of q, 16 of k, 16 of v, 4 per head. Head 3 loses all its values.
DECODER_DEAD = {
    "blocks.0.qkv": [1, 18, 33, 44, 45, 46, 47],
    "blocks.1.qkv": [*range(16), 40],
    "blocks.2.ff1": [0, 9, 63],
    "blocks.2.proj": [2, 3],
    "blocks.3.ff2": [5],
    "head": [26],
}


@pytest.fixture
def cnn():
    return build("mnist_cnn")


@pytest.fixture
def decoder():
    return build("names_decoder")


@pytest.fixture
def dead_cnn(cnn):
    return kill(cnn, CNN_DEAD)


@pytest.fixture
def dead_decoder(decoder):
    return kill(decoder, DECODER_DEAD)


@pytest.fixture(scope="session")
def nets():
    """The builders above, for test modules (which cannot import a conftest by name)."""
    return types.SimpleNamespace(
        build=build, inputs=inputs, outputs=outputs, kill=kill, cnn_dead=CNN_DEAD, decoder_dead=DECODER_DEAD
    )
