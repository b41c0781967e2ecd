"""FT: factor transfer: the student's translated factors must equal the teacher's paraphrased ones (Kim et al. 2018).

The paraphraser, an autoencoder on the teacher's last stage, is trained first (`prepare`), the translator with the
student.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.distill.common import Distiller, PrepareContext, Shapes, frozen_eval
from efflib.kernels.attention_loss import energy, same_size
from efflib.models import Features, features


def factor_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean |q_s - q_t|, q the unit-length channel mean of squares of a factor (N, C, h, w); teacher constant.

    Source: RepDistiller's form; the original normalises the flattened factor and has no square.
    """
    student, teacher = same_size(student, teacher)
    return (energy(student) - energy(teacher.detach())).abs().mean()


def encoder(inputs: int, factors: int, norm: bool) -> nn.Sequential:
    """Three 3x3 convolutions inputs -> inputs -> factors -> factors, LeakyReLU 0.1, with or without BN."""
    layers: list[nn.Module] = []
    for a, b in ((inputs, inputs), (inputs, factors), (factors, factors)):
        layers += [nn.Conv2d(a, b, 3, padding=1), *([nn.BatchNorm2d(b)] if norm else []), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


class Paraphraser(nn.Module):
    """Autoencoder of a teacher map: the encoder's output are the factors; the decoder mirrors it."""

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = encoder(channels, factors, norm=False)
        layers: list[nn.Module] = []
        for a, b in ((factors, factors), (factors, channels), (channels, channels)):
            layers += [nn.ConvTranspose2d(a, b, 3, padding=1), nn.LeakyReLU(0.1)]
        self.decoder = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class FT(Distiller):
    """CE + feature_weight factor loss on the last stage.

    Args:
        student, teacher: feature shapes.
        feature_weight: 200 in RepDistiller.
        rate: factors per channel of the teacher, 0.5.
        prepare_epochs, prepare_lr: of the paraphraser, 30 and 0.01 (SGD with momentum 0.9, weight decay 5e-4).
    """

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        feature_weight: float = 200.0,
        rate: float = 0.5,
        prepare_epochs: int = 30,
        prepare_lr: float = 0.01,
    ) -> None:
        super().__init__()
        self.feature_weight, self.prepare_epochs, self.prepare_lr = feature_weight, prepare_epochs, prepare_lr
        channels = teacher.stages[-1][0]
        factors = int(channels * rate)
        self.paraphraser = Paraphraser(channels, factors)
        self.translator = encoder(student.stages[-1][0], factors, norm=True)
        frozen_eval(self.paraphraser)

    def prepare(self, context: PrepareContext) -> None:
        """Train the paraphraser to reconstruct the teacher's last stage, then freeze it."""
        self.paraphraser.to(context.device).train().requires_grad_(True)
        optimiser = torch.optim.SGD(self.paraphraser.parameters(), lr=self.prepare_lr, momentum=0.9, weight_decay=5e-4)
        for epoch in range(self.prepare_epochs):
            for batch in context.batches(epoch, 0):
                with torch.no_grad():
                    target = features(context.teacher, batch.images).stages[-1]
                optimiser.zero_grad()
                F.mse_loss(self.paraphraser(target), target).backward()
                optimiser.step()
        frozen_eval(self.paraphraser)

    def train(self, mode: bool = True) -> FT:
        super().train(mode)
        self.paraphraser.eval()
        return self

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            factors = self.paraphraser.encoder(teacher.stages[-1])
        transfer = factor_loss(self.translator(student.stages[-1]), factors)
        return {"cross_entropy": F.cross_entropy(student.logits, targets), "feature": self.feature_weight * transfer}
