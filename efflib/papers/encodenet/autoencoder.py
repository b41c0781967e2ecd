"""The converting autoencoder: a classifier's feature layers, a decoder, and the codebook that it is trained towards."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.kernels.augment import normalise
from efflib.models import evaluating, features
from efflib.models.decoder import Decoder
from efflib.papers.encodenet.codebook import Codebook
from efflib.training import Batch


class ConvertingAutoencoder(nn.Module):
    """Encoder f (all layers of a classifier before its pooling), decoder g, and the codes as buffers.

    As a classifier it tells how near its output lies to the codes of each class, so that `fit` can follow how often
    the nearest representative is one of the right class.

    Args:
        classifier: a network of `create_model`; its head takes no part.
        codebook: codes and their classes.
        bottleneck: "map" or "pooled", see `Decoder`.
        width: of the decoder.

    Source: EncodeNet, section 3.1.
    """

    codes: Tensor
    classes: Tensor

    def __init__(self, classifier: nn.Module, codebook: Codebook, bottleneck: str = "map", width: float = 1.0) -> None:
        super().__init__()
        self.classifier, self.bottleneck = classifier, bottleneck
        channels, side = codebook.images.shape[1], codebook.images.shape[3]
        self.decoder = decoder_for(classifier, side, channels, bottleneck, width)
        self.register_buffer("codes", codebook.images.flatten(1))
        self.register_buffer("classes", codebook.classes)

    def decode(self, x: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) -> converted images (N, C, H, W) in [0, 1]."""
        found = features(self.classifier, x)
        return self.decoder(found.pooled if self.bottleneck == "pooled" else found.stages[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes): minus the squared distance of the output to the nearest code of each class, per value."""
        return nearness(self.decode(x).flatten(1).to(self.codes.dtype), self.codes, self.classes)


def decoder_for(
    classifier: nn.Module, side: int, channels: int, bottleneck: str = "map", width: float = 1.0
) -> Decoder:
    """The decoder that fits a classifier's last feature map for images (channels, side, side)."""
    with torch.no_grad(), evaluating(classifier):
        last = features(classifier, torch.zeros(1, channels, side, side)).stages[-1]
    return Decoder(last.shape[1], last.shape[3], side, bottleneck, width, channels)


def nearness(outputs: Tensor, codes: Tensor, classes: Tensor) -> Tensor:
    """Minus the mean squared difference to the nearest code of each class.

    Args:
        outputs: (N, D). codes: (M, D). classes: (M,) class of each code.

    Returns:
        (N, number of classes).
    """
    with torch.autocast(outputs.device.type, enabled=False):
        apart = torch.cdist(outputs, codes).square() / codes.shape[1]
    nearest = apart.new_full((len(apart), int(classes.max()) + 1), float("inf"))
    return -nearest.scatter_reduce(1, classes.expand_as(apart), apart, "amin")


class ConversionLoss(nn.Module):
    """Mean squared error to the target, over batch, channels and pixels (spec, section 2.5).

    The target is never augmented: the code of the image's (class, cluster), looked up by the image's position in the
    training set. With "identity" it is the very view that the encoder sees, before normalisation.

    Args:
        model: gives the codes and the parameters.
        assignment: (N,) code of each training image; `Batch.indices` must count from 0.
        target: "codes" or "identity".
        mean, std: normalisation that the images passed.
        encoder_lr: of the encoder, relative to the recipe's rate; 1 for an encoder from scratch.
    """

    assignment: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: ConvertingAutoencoder,
        assignment: Tensor,
        target: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        encoder_lr: float = 1.0,
    ) -> None:
        super().__init__()
        self._encoder = [model.classifier]  # in a list: the model is no part of its loss
        self.target, self.encoder_lr = target, encoder_lr
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.register_buffer("assignment", assignment, persistent=False)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """A slower encoder where it starts from the baseline: the decoder's rate would destroy its features early."""
        if self.encoder_lr == 1:
            return []
        return [{"params": list(self._encoder[0].parameters()), "lr_factor": self.encoder_lr}]

    def forward(self, model: ConvertingAutoencoder, batch: Batch) -> dict[str, Tensor]:
        output = model.decode(batch.images)
        return {"mse": F.mse_loss(output.to(batch.images.dtype), self._wanted(model, batch))}

    def _wanted(self, model: ConvertingAutoencoder, batch: Batch) -> Tensor:
        if self.target == "identity":
            return batch.images * self.std + self.mean
        codes = model.codes[self.assignment[batch.indices]]
        return codes.reshape(batch.images.shape).to(batch.images.dtype)


@torch.no_grad()
def converted(
    model: ConvertingAutoencoder, images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], precision: str
) -> Tensor:
    """Outputs (N, C, H, W) in [0, 1] for uint8 images (N, H, W, C), in eval mode; float32, float64 for a float64 model.

    The model must be in eval mode.
    """
    dtype = next(model.parameters()).dtype
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return model.decode(normalise(images, mean, std).to(dtype)).to(dtype)
