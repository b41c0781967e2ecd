"""Images per second of efflib's training loop against the plain loop of the field, and which part of ours pays.

The plain loop is what most public CIFAR code runs: a DataLoader with workers, torchvision transforms image by image,
fp32, `loss.item()` in every step. It gets what costs it least: persistent workers, pinned memory and cuDNN's
autotuner on CUDA. Ours is `efflib.training` itself: uint8 images on the device, augmentation there, losses read once
per epoch. The ablations change precision and memory layout one at a time. All train the same network from the same
weights, with the same optimiser and batch size, on as many synthetic images shaped like CIFAR; nothing is downloaded.

Aims, not results (issue 7): on a CPU with bf16 arithmetic at least 1.3 times the plain loop for VGG8 and 2.5 times
for distilling ResNet56 into ResNet20; on an H200 at least 4 times for the latter. What was measured is in
`results/trainer.csv`, and nowhere else.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks import measure
from efflib.data import NORMALISATION, ImageSet
from efflib.models import create_model, list_models
from efflib.training import Batch, History, TrainingRecipe, _Run, pick_precision, seeded

PLAIN = "plain loop"
CLASSES = 10
MEAN, STD = NORMALISATION["cifar10"]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def synthetic(count: int, seed: int = 0) -> ImageSet:
    """Random uint8 images (count, 32, 32, 3) with random labels: they cost what CIFAR's cost."""
    draw = np.random.default_rng(seed)
    return ImageSet(
        name="synthetic",
        split="train",
        images=draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        labels=draw.integers(0, CLASSES, count),
        classes=tuple(map(str, range(CLASSES))),
        indices=np.arange(count),
        fingerprint=f"synthetic/{seed}/{count}",
        variant="embedded",
    )


def recipe_of(batch_size: int) -> TrainingRecipe:
    """The recipe of both loops. The small rate keeps random labels from ever diverging; it costs the same time."""
    return TrainingRecipe(epochs=1, lr=0.001, batch_size=batch_size, normalisation=(MEAN, STD))


class PerImage:
    """A data set as torchvision's CIFAR10 class is one: an image at a time, through PIL and the transforms."""

    def __init__(self, data: ImageSet) -> None:
        from torchvision import transforms

        self.data = data
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data.images[position])), int(self.data.labels[position])


def plain_loop(
    model: nn.Module, data: ImageSet, batch_size: int, workers: int, device: torch.device
) -> Callable[[], float]:
    """One epoch of the plain loop as a function; it returns the mean loss of the epoch."""
    model, recipe = model.to(device), recipe_of(batch_size)
    loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        PerImage(data),  # type: ignore[arg-type]
        batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    optimiser = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )

    def epoch() -> float:
        model.train()
        total = 0.0
        with _autotuned():
            for images, labels in loader:
                images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
                loss = F.cross_entropy(model(images), labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.item()
        return total / len(loader)

    return epoch


@contextmanager
def _autotuned() -> Iterator[None]:
    """cuDNN picks the fastest convolutions, as training code of the field asks; ours does without so far."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def our_loop(
    model: nn.Module,
    data: ImageSet,
    batch_size: int,
    device: torch.device,
    precision: str,
    layout: str = "channels_last",
) -> Callable[[], float]:
    """One epoch of efflib.training as a function; it returns the mean loss of the epoch.

    The loop is the one that `fit` runs, entered an epoch at a time so that it can alternate with the plain loop. Its
    test set is one image: what is compared is training.
    """
    memory = LAYOUTS[layout]

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(network(batch.images.contiguous(memory_format=memory)), batch.targets)

    run = _Run(model, data, data.take([0]), None, recipe_of(batch_size), loss, 0, device, precision)
    run.model.to(memory_format=memory)
    history = History()

    def epoch() -> float:
        run.epoch(history.epochs, history, tqdm(disable=True))
        return history.losses["train_loss"][-1]

    return epoch


def contestants(options: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """The plain loop, then ours: fp32 and the asked precision (once if equal) in both memory layouts."""
    data, device = synthetic(options.images), options.device

    def model() -> nn.Module:
        with seeded(0):
            return create_model(options.model, CLASSES)

    loops = {PLAIN: plain_loop(model(), data, options.batch_size, options.workers, device)}
    for precision in dict.fromkeys(("fp32", pick_precision(options.precision, device))):
        for layout in LAYOUTS:
            loops[f"efflib {precision} {layout}"] = our_loop(
                model(), data, options.batch_size, device, precision, layout
            )
    return loops


def rows_of(options: argparse.Namespace) -> list[measure.Row]:
    """Images per second of every contestant, and how many times faster than the plain loop, round by round."""
    place = measure.environment(options.device)
    samples = measure.measure(contestants(options), options.repeats, device=options.device)
    setting = (
        f"model={options.model} batch={options.batch_size} images={options.images} workers={options.workers} "
        f"precision={options.precision}"
    )
    rates = {name: [options.images / seconds for seconds in values] for name, values in samples.items()}
    rows = [measure.row(place, name, setting, "images/s", values) for name, values in rates.items()]
    ratios = measure.per_round(samples, PLAIN)
    return rows + [measure.row(place, name, setting, f"times {PLAIN}", values) for name, values in ratios.items()]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `python -m benchmarks.trainer`."""
    parser = measure.parser("trainer", __doc__ or "", repeats=5)
    parser.add_argument("--model", choices=list_models(), default="vgg8", metavar="NAME", help="default vgg8")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of ours; default auto")
    parser.add_argument("--batch-size", type=measure.positive, default=64, help="default 64")
    parser.add_argument("--images", type=measure.positive, help="per epoch; default 5,000 on a CPU, 50,000 on CUDA")
    parser.add_argument(
        "--workers",
        type=measure.positive,
        default=min(8, os.cpu_count() or 1),
        help="of the DataLoader; default %(default)s",
    )
    options = measure.parse(parser, argv, images=192, repeats=2)
    options.images = options.images or (50_000 if options.device.type == "cuda" else 5_000)
    measure.report("trainer", rows_of(options), options)


if __name__ == "__main__":
    main()
