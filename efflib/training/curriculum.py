"""The hooks by which a curriculum changes a run of `fit`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from efflib.data import ImageSet
from efflib.training.recipe import TrainingRecipe


class Curriculum:
    """What may decide about order, images, rates or feature maps of a run of `fit`; this one decides nothing.

    `efflib.curricula` has those of the papers; each overrides the hooks that it needs. `progress` counts epochs, as in
    Batch. What a hook does follows from its arguments and the options alone, never from what was called before, so that
    a resumed run repeats an unbroken one; and `repr` tells the options, because a checkpoint belongs to them too.
    """

    def check(self, model: nn.Module, train: ImageSet, recipe: TrainingRecipe) -> None:
        """Called once, before anything is trained.

        Raises:
            ValueError: this curriculum cannot train this network on these images; says what could be done.
        """

    def attached(self, model: nn.Module) -> AbstractContextManager[None]:
        """Around training and the evaluations between its epochs: may put hooks on the network, takes them off."""
        return nullcontext()

    def step(self, progress: float) -> None:
        """Before each batch."""

    def layers(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """Parameters that get rates of their own, as groups; the others follow the recipe."""
        return []

    def factors(self, progress: float, lr: float, count: int) -> list[float]:
        """What the recipe's rate, `lr` at first, is multiplied by in each of the `count` groups of `layers`."""
        return []

    def order(self, order: Tensor, recipe: TrainingRecipe, seed: int, epoch: int) -> Tensor:
        """Positions (N,) in the training set from which an epoch's batches are cut; `order` is the usual one."""
        return order

    def pixels(self, images: Tensor, progress: float, epochs: int) -> Tensor:
        """Training images (B, H, W, C) uint8, before crop, flip and normalisation."""
        return images

    def images(self, images: Tensor, progress: float, epochs: int) -> Tensor:
        """Training images (B, C, H, W) as the network is to see them, normalised; of any size."""
        return images

    def compute_factor(self, side: int) -> float:
        """Cost of an epoch relative to an ordinary one, for images of `side` pixels."""
        return 1.0
