"""The recipe `bimask`: fine-tune a trained baseline on originals and masked copies, and its controls."""

from __future__ import annotations

from typing import Any, Literal

import torch

from efflib.kernels.mask_least_salient import removed_count
from efflib.papers.baselines import (
    CANARY_SETTINGS,
    ClassifierConfig,
    canary_context,
    canary_numbers,
    data_read,
    inherited_model,
    new_model,
    planned_flops,
    split,
    trained,
)
from efflib.papers.bimask.method import (
    Method,
    arm_masks,
    keep_masks,
    removed_overlap,
    saliency_maps,
    training_set,
)
from efflib.training import TrainingRecipe, milestones, normalisation
from efflib.trials.recipes import Context, Outcome, recipe


def ft_default(epochs: int = 30, lr: float = 0.01, **like: Any) -> TrainingRecipe:
    """Fine-tuning preset `ft_default` of the spec (section 4.3): lr 0.01, drops after 15 and 23 of 30 epochs of 2N.

    The paper prints no fine-tuning settings; other lengths keep the proportions. `like` passes on what a fine-tune
    takes from its baseline (weight decay, augmentation, normalisation).
    """
    return TrainingRecipe(epochs=epochs, lr=lr, milestones=milestones(epochs, (15 / 30, 23 / 30)), **like)


class BimaskConfig(ClassifierConfig):
    """A fine-tune of a trained network: of a trial `baseline`, or of a curriculum's in the controls of table 4.

    `training.epochs` are passes over the arm's own set (2N, or N masked).
    `masking_ratio` is the removed fraction; None for `original_only`, which masks nothing. `conv_index` counts the
    convolutions from the end. The other options are the ambiguities A1-A4 of the spec.
    """

    method: Method
    masking_ratio: float | None = None
    conv_index: int = -1
    saliency: Literal["layer_grad", "input_grad", "grad_x_act", "gradcam"] = "layer_grad"
    reduce: Literal["mean_abs", "max_abs", "abs_sum"] = "mean_abs"
    score: Literal["logit", "logprob", "prob"] = "logit"
    target: Literal["predicted", "true"] = "predicted"

    def model_post_init(self, context: object) -> None:
        if (self.method == "original_only") != (self.masking_ratio is None):
            raise ValueError(
                f"masking_ratio={self.masking_ratio} with method={self.method!r}: only original_only has none"
            )
        if self.masking_ratio is not None and not 0 <= self.masking_ratio < 1:
            raise ValueError(f"masking_ratio={self.masking_ratio}: the removed fraction must lie in [0, 1)")


def _flops(config: BimaskConfig) -> float:
    return planned_flops(config, copies=1 if config.method == "masked_only" else 2)


def _canary() -> dict[str, float]:
    """One BIMask fine-tune of an untrained small network on 160 digits."""
    config = BimaskConfig(**CANARY_SETTINGS, method="bimask", masking_ratio=0.1)
    parent = new_model(config).state_dict()
    return canary_numbers(bimask(config, canary_context("bimask", baseline=parent)), config)


@recipe(
    "bimask",
    version=1,
    config=BimaskConfig,
    canary=_canary,
    flops=_flops,
    data=data_read,
    parents=("baseline",),
)
def bimask(config: BimaskConfig, context: Context) -> Outcome:
    """Masks from the baseline of the same seed, once, on raw images; then fine-tune all weights (Algorithm 1)."""
    train, validation, test = split(config)
    model = inherited_model(config, context.parents["baseline"], context.precision)
    masks, about = _masks(config, model, train, context.device)
    arm = training_set(train, masks, config.method)
    return trained(config, context, model, arm, validation, test, masks=about)


def _masks(config: BimaskConfig, model, train, device: str) -> tuple[torch.Tensor | None, dict[str, float]]:
    """The arm's masks, and what the record tells about them."""
    if config.masking_ratio is None:
        return None, {}
    indices = torch.from_numpy(train.indices)
    maps = _maps(config, model, train, device, config.conv_index)
    masks = arm_masks(config.method, maps, config.masking_ratio, config.seed, indices)
    about: dict[str, float] = {"removed_pixels": removed_count(config.masking_ratio, *maps.shape[1:])}
    if masks is not None and config.conv_index != -1:
        last = keep_masks(_maps(config, model, train, device, -1), config.masking_ratio, config.seed, indices)
        about["overlap_with_last_layer"] = removed_overlap(masks, last)
    return masks, about


def _maps(config: BimaskConfig, model, train, device: str, layer: int) -> torch.Tensor:
    mean, std = normalisation(config.training, train)
    options: dict[str, Any] = {
        "method": config.saliency,
        "reduce": config.reduce,
        "score": config.score,
        "target": config.target,
    }
    return saliency_maps(model, train, mean, std, device, layer=layer, **options)
