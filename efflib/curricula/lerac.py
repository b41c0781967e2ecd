"""LeRaC (Croitoru et al.): deep layers start slowly.

Layer j of n starts at its own rate, eta_1(0) >= ... >= eta_n(0), which grows geometrically to the common rate eta
within the first k epochs, iteration by iteration; then all layers follow the recipe:

    eta_j(l) = eta_j(0) c^{(l / k) (log_c eta - log_c eta_j(0))},  0 <= l <= k     (the base c cancels)

mode="formula" (default): layers are the stem, each residual block and the classifier; eta_j(0) falls geometrically
from the recipe's rate to 1e-8. mode="code": the tables of the authors' CIFAR code, whose groups gain a factor of 10 at
the end of each epoch. The recipe's milestones multiply the common rate, also within the first k epochs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn

from efflib.curricula.common import one_of, positive
from efflib.data import ImageSet
from efflib.training import Curriculum, TrainingRecipe


def grown_rate(start: float, rate: float, progress: float, k: float) -> float:
    """eta_j(l): a layer's rate at l / k of its way from `start` to `rate`."""
    return rate if progress >= k else start * (rate / start) ** (progress / k)


@dataclass(frozen=True)
class Decades:
    """How many powers of ten each part starts below the common rate, per stage and block; the rest starts at it."""

    stages: tuple[tuple[int, ...], ...]
    head: int


# As the code computes them: a floating-point comparison makes the floor one decade lower than the configured one, and
# the wide ResNet's blocks beyond (3, 4, 6), a table made for another network, fall through to 1e-6.
TABLES = {
    "resnet18_cifar10": Decades(((1, 2), (3, 4), (5, 5), (5, 5)), 3),
    "resnet18_cifar100": Decades(((1, 2), (3, 4), (5, 6), (6, 6)), 5),
    "wrn_52_2": Decades(((0, 1, 2, *(5,) * 5), (3, 4, 5, 6, *(5,) * 4), (*(7,) * 6, 5, 5)), 5),
}


@dataclass
class LeRaC(Curriculum):
    """Learning rate curriculum.

    Args:
        k: epochs until all layers have the common rate, "formula" only; a fraction of an epoch is possible. BIMask's
            table 4 takes 5 (ResNet18, CIFAR-10), 6 (CIFAR-100), 7 (wide ResNet), of 200 epochs.
        lowest: first rate of the classifier, "formula" only; the stem starts at the recipe's.
        mode: "formula" or "code".
        table: a key of `TABLES`, "code" only.
    """

    k: float = 5.0
    lowest: float = 1e-8
    mode: Literal["formula", "code"] = "formula"
    table: str | None = None

    def __post_init__(self) -> None:
        positive("k", self.k)
        positive("lowest", self.lowest)
        one_of("mode", self.mode, ("formula", "code"))
        if self.mode == "code":
            one_of("table (the initial rates of mode='code')", str(self.table), tuple(TABLES))
        elif self.table is not None:
            raise ValueError(f"table={self.table!r} belongs to mode='code'; mode='formula' has k and lowest")

    @property
    def warmup(self) -> float:
        """Epochs until all layers have the common rate."""
        return self.k if self.mode == "formula" else float(max(_levels(TABLES[str(self.table)])))

    def check(self, model: nn.Module, train: ImageSet, recipe: TrainingRecipe) -> None:
        if self.mode == "formula" and self.lowest > recipe.lr:
            raise ValueError(
                f"lowest={self.lowest} is above the recipe's rate {recipe.lr}: layers could not grow to it"
            )

    def layers(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """The layers, shallow to deep; with mode="code" the groups that start together, fastest first."""
        return [parameters for _, parameters in layers_of(model)] if self.mode == "formula" else self._by_table(model)

    def factors(self, progress: float, lr: float, count: int) -> list[float]:
        """Rate of each layer, relative to the common rate."""
        if self.mode == "code":
            return [10.0 ** min(int(progress) - level, 0) for level in _levels(TABLES[str(self.table)])]
        step = (self.lowest / lr) ** (1 / (count - 1))
        return [grown_rate(step**number, 1.0, progress, self.k) for number in range(count)]

    def _by_table(self, model: nn.Module) -> list[list[nn.Parameter]]:
        table = TABLES[str(self.table)]
        blocks = tuple(len(stage) for name, stage in model.named_children() if re.fullmatch(r"stage\d", name))  # type: ignore[arg-type]
        if blocks != tuple(len(stage) for stage in table.stages):
            raise ValueError(
                f"table {self.table!r} is for stages of {tuple(len(stage) for stage in table.stages)} blocks, "
                f"{type(model).__name__} has {blocks or 'none'}: use mode='formula'"
            )
        groups: dict[int, list[nn.Parameter]] = {level: [] for level in _levels(table)}
        for name, parameter in model.named_parameters():
            groups[_level(name, table)].append(parameter)
        return list(groups.values())


def _levels(table: Decades) -> list[int]:
    return sorted({0, table.head, *(level for stage in table.stages for level in stage)})


def _level(name: str, table: Decades) -> int:
    """Decades below the common rate at which a parameter starts; the stem and a last batch norm start at it."""
    if name.startswith("head."):
        return table.head
    place = re.match(r"stage(\d)\.(\d+)\.", name)
    return table.stages[int(place[1]) - 1][int(place[2])] if place else 0


def layers_of(model: nn.Module) -> list[tuple[str, list[nn.Parameter]]]:
    """Layers of a network as LeRaC counts them, shallow to deep: the stem, each block, the classifier.

    A block is a module of its own kind; outside blocks each convolution or linear layer counts. A batch norm outside
    blocks belongs to what comes before it. The networks here define their layers in forward order.

    Raises:
        ValueError: a parameter that is in no layer, or fewer than two layers.
    """
    found: list[tuple[str, list[nn.Parameter]]] = []
    _collect(model, "", found)
    placed = {id(parameter) for _, parameters in found for parameter in parameters}
    outside = [name for name, parameter in model.named_parameters() if id(parameter) not in placed]
    if outside or len(found) < 2:
        raise ValueError(
            f"LeRaC needs a stack of at least two layers, {type(model).__name__} has {len(found)}"
            + (f", and {', '.join(outside)} in none" if outside else "")
        )
    return found


def _collect(module: nn.Module, path: str, found: list[tuple[str, list[nn.Parameter]]]) -> None:
    for name, child in module.named_children():
        parameters = list(child.parameters())
        if isinstance(child, nn.Sequential | nn.ModuleList):
            _collect(child, f"{path}{name}.", found)
        elif parameters and parameters[0].ndim == 1 and found and not list(child.children()):
            found[-1][1].extend(parameters)
        elif parameters:
            found.append((path + name, parameters))


def shifted(recipe: TrainingRecipe, curriculum: LeRaC) -> TrainingRecipe:
    """The recipe with its milestones moved by LeRaC's warm-up, rounded half up: 30, 60, 90 become 35, 65, 95."""
    later = int(curriculum.warmup + 0.5)
    return recipe.model_copy(update={"milestones": tuple(milestone + later for milestone in recipe.milestones)})
