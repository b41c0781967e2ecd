"""RP KD: review, then preview; logits; and a correction of the student's own response (PKGD spec, section 4.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from efflib.distill.common import Distiller, Shapes, levels, same_number_of_levels, warmup
from efflib.distill.reviewkd import Chain, middle_of, review_chain
from efflib.kernels import hcl_loss
from efflib.kernels.common import widened
from efflib.kernels.kd_loss import check_logits, softened_kl
from efflib.models import Features


def response_loss(logits: Tensor, targets: Tensor, temperature: float = 4.0, detach: bool = True) -> Tensor:
    """T^2 KL(z' -> z), z' = z with the true class raised by the largest logit.

    Args:
        logits: (N, C) of the student.
        targets: (N,) int64.
        temperature: T > 0.
        detach: treat z' as a constant (the published code does not).

    Source: RP KD's released code; the paper of PKGD compares with it.
    """
    student = widened(logits)
    raised = student + F.one_hot(targets, student.shape[1]) * student.amax(dim=1, keepdim=True)
    if detach:
        return softened_kl(student, raised, temperature)
    log_p, log_q = (F.log_softmax(z / temperature, dim=1) for z in (student, raised))
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


class ReviewPreview(nn.Module):
    """The student's levels through the review chain, then through the preview chain; teacher shapes out."""

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        self.review = review_chain(student, teacher)
        channels = tuple(C for C, _, _ in teacher.levels)
        self.preview = Chain(channels, middle_of(student), teacher.levels, deep_first=False)

    def forward(self, student: Features) -> list[Tensor]:
        return self.preview(self.review(levels(student)))


class RPKD(Distiller):
    """CE + KL + feature_weight warm-up HCL + rc_weight response correction.

    Args:
        student, teacher: feature shapes.
        feature_weight: as ReviewKD's.
        kd_weight, temperature: of the KL on logits.
        rc_weight: 0.2; the published factor 0.1 (1 + best test accuracy / teacher's) looks at the test set.
        rc_code: leave z' attached, as the published code.
        warmup_epochs: of the feature loss.
    """

    teacher_preactivation = True

    def __init__(
        self,
        student: Shapes,
        teacher: Shapes,
        *,
        feature_weight: float = 1.0,
        kd_weight: float = 1.0,
        temperature: float = 4.0,
        rc_weight: float = 0.2,
        rc_code: bool = False,
        warmup_epochs: float = 20,
    ) -> None:
        super().__init__()
        same_number_of_levels("rpkd", student, teacher)
        self.feature_weight, self.kd_weight, self.temperature = feature_weight, kd_weight, temperature
        self.rc_weight, self.rc_code, self.warmup_epochs = rc_weight, rc_code, warmup_epochs
        self.chains = ReviewPreview(student, teacher)

    def forward(
        self, student: Features, teacher: Features, targets: Tensor, indices: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        check_logits(student.logits, teacher.logits, self.temperature)
        kl = softened_kl(widened(student.logits), widened(teacher.logits), self.temperature)
        context = hcl_loss(self.chains(student), levels(teacher))
        response = response_loss(student.logits, targets, self.temperature, detach=not self.rc_code)
        return {
            "cross_entropy": F.cross_entropy(student.logits, targets),
            "kd": self.kd_weight * kl,
            "feature": self.feature_weight * warmup(progress, self.warmup_epochs) * context,
            "response": self.rc_weight * response,
        }
