"""Images per second of efflib's training loop against the plain loop of the field, and which part of ours pays.

The plain loop is what most public CIFAR code runs: a DataLoader with workers, torchvision transforms image by image,
fp32, `loss.item()` in every step. It gets what costs it least: persistent workers, pinned memory and cuDNN's
autotuner on CUDA. Ours is `efflib.training` itself: uint8 images on the device, augmentation there, losses read once
per epoch. The ablations change precision and memory layout one at a time; `--compile` adds the loop with its network
and loss through `torch.compile` (`fit(compiled=True)`: CUDA graphs on a GPU). All train the same network from the same
weights, with the same optimiser and batch size, on as many synthetic images shaped like CIFAR; nothing is downloaded.
With `--teacher` they distil it (Hinton's loss, T = 4, 0.1 cross-entropy): both loops run the teacher on every batch.

The floor of an epoch is the longer of two times: its FLOPs at the speed of a large matrix product in the same
precision, and the bytes of its layers at the speed of a large copy. Every convolution, linear layer and batch norm is
counted as if it stood alone: its input read and its output written in the forward pass, and in the backward pass the
upstream gradient and the input read and the input's gradient written.

Aims, not results (issue 7): on a CPU with bf16 arithmetic at least 1.3 times the plain loop for VGG8 and 2.5 times
for distilling ResNet56 into ResNet20; on an H200 at least 4 times for the latter. What was measured is in
`results/trainer.csv`, and nowhere else.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks import measure
from benchmarks.measure import COPY, MATMUL, copying, multiplying, references
from efflib import distill
from efflib.data import NORMALISATION, ImageSet
from efflib.models import count_macs, create_model, evaluating, list_models
from efflib.training import Batch, History, Loss, TrainingRecipe, cross_entropy, pick_precision, seeded
from efflib.training.loop import _Run

PLAIN, FLOOR = "plain loop", "floor"
CLASSES, TEMPERATURE, CE_WEIGHT = 10, 4.0, 0.1
MEAN, STD = NORMALISATION["cifar10"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
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
    model: nn.Module,
    data: ImageSet,
    batch_size: int,
    workers: int,
    device: torch.device,
    teacher: nn.Module | None = None,
) -> Callable[[], float]:
    """One epoch of the plain loop as a function; it returns the mean loss of the epoch."""
    model, recipe = model.to(device), recipe_of(batch_size)
    if teacher is not None:
        teacher = teacher.to(device).eval()
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
                loss = plain_loss(model(images), labels, images, teacher)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.item()
        return total / len(loader)

    return epoch


def plain_loss(logits: Tensor, labels: Tensor, images: Tensor, teacher: nn.Module | None) -> Tensor:
    """Cross-entropy, or Hinton's distillation loss as public code writes it."""
    if teacher is None:
        return F.cross_entropy(logits, labels)
    with torch.no_grad():
        wanted = teacher(images)
    divergence = F.kl_div(
        F.log_softmax(logits / TEMPERATURE, dim=1), F.softmax(wanted / TEMPERATURE, dim=1), reduction="batchmean"
    )
    return CE_WEIGHT * F.cross_entropy(logits, labels) + (1 - CE_WEIGHT) * TEMPERATURE**2 * divergence


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
    teacher: nn.Module | None = None,
    compiled: bool = False,
) -> Callable[[], float]:
    """One epoch of efflib.training as a function; it returns the mean loss of the epoch.

    The loop is the one that `fit` runs, entered an epoch at a time so that it can alternate with the plain loop. Its
    test set is one image: what is compared is training.
    """
    memory = LAYOUTS[layout]

    objective = _objective(model, teacher, device, memory)

    def loss(network: nn.Module, batch: Batch) -> Tensor | dict[str, Tensor]:
        return objective(network, replace(batch, images=batch.images.contiguous(memory_format=memory)))

    run = _Run(model, data, data.take([0]), None, recipe_of(batch_size), loss, 0, device, precision, compiled=compiled)
    run.model.to(memory_format=memory)
    history = History()

    def epoch() -> float:
        run.epoch(history.epochs, history, tqdm(disable=True))
        return history.losses["train_loss"][-1]

    return epoch


def _objective(model: nn.Module, teacher: nn.Module | None, device: torch.device, memory: torch.memory_format) -> Loss:
    """What `fit` is given: plain cross-entropy, or the library's own distillation."""
    if teacher is None:
        return cross_entropy
    teacher = teacher.to(device).to(memory_format=memory).eval()
    sample = torch.zeros(2, 3, 32, 32, device=device)
    method = distill.create(
        "kd", model.to(device), teacher, sample, temperature=TEMPERATURE, ce_weight=CE_WEIGHT, kd_weight=1 - CE_WEIGHT
    )
    return distill.Distillation(method, teacher)


def work_of(model: nn.Module, trained: bool) -> tuple[float, float]:
    """(FLOPs, values moved) for one image, layer by layer: forward alone, or both passes."""
    moved = []

    def count(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        forward, backward = inputs[0].numel() + output.numel(), 2 * inputs[0].numel() + output.numel()
        moved.append(forward + backward if trained else forward)

    layers = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    handles = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, layers)]
    with evaluating(model), torch.no_grad():
        model(torch.zeros(1, 3, 32, 32, device=next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    return 2.0 * count_macs(model) * (3 if trained else 1), float(sum(moved))


def network(name: str) -> nn.Module:
    """A network from fixed initial weights."""
    with seeded(0):
        return create_model(name, CLASSES)


def contestants(options: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """The plain loop, then ours: fp32 and the asked precision (once if equal), both layouts; compiled if asked."""
    data, device = synthetic(options.images), options.device

    def teacher() -> nn.Module | None:
        return network(options.teacher) if options.teacher else None

    loops = {PLAIN: plain_loop(network(options.model), data, options.batch_size, options.workers, device, teacher())}
    for precision in _precisions(options):
        for layout in LAYOUTS:
            loops[f"efflib {precision} {layout}"] = our_loop(
                network(options.model), data, options.batch_size, device, precision, layout, teacher()
            )
    if options.compile:
        loops[f"efflib {precision} {layout} compiled"] = our_loop(
            network(options.model), data, options.batch_size, device, precision, layout, teacher(), compiled=True
        )
    return loops


def _precisions(options: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(("fp32", pick_precision(options.precision, options.device))))


def ceilings(options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """The device's speed limits: a large copy, and a large matrix product in each precision that is timed."""
    copied, side = references(options)
    limits: dict[str, Callable[[], object]] = {COPY: copying(copied, options.device)}
    for precision in _precisions(options):
        limits[f"{MATMUL} {precision}"] = multiplying(side, options.device, DTYPES[precision])
    return limits


def floor_rows(options: argparse.Namespace, samples: dict, setting: str, place: measure.Row) -> list[measure.Row]:
    """Images per second that the floor allows in each precision, and the share of it that each of our loops reaches."""
    work = [work_of(network(options.model).to(options.device), trained=True)]
    work += [work_of(network(options.teacher).to(options.device), trained=False)] if options.teacher else []
    flops, values = (sum(parts) for parts in zip(*work))
    copied, side = references(options)
    rows = []
    for precision in _precisions(options):
        size = torch.empty(0, dtype=DTYPES[precision]).element_size()
        floors = [
            max(values * size / (2 * copied) * copy, flops / (2 * side**3) * product)
            for copy, product in zip(samples[COPY], samples[f"{MATMUL} {precision}"], strict=True)
        ]
        name = f"{FLOOR} {precision}"
        per_image = f"{setting} flops={flops:.4g} bytes={values * size:.4g} per image"
        rows.append(measure.row(place, name, per_image, "images/s", [1 / floor for floor in floors]))
        for contestant in (name for name in samples if name.startswith(f"efflib {precision} ")):
            ours = samples[contestant]
            shares = [100 * floor * options.images / spent for floor, spent in zip(floors, ours, strict=True)]
            rows.append(measure.row(place, contestant, per_image, "% of floor", shares))
    return rows


def rows_of(options: argparse.Namespace) -> list[measure.Row]:
    """Images per second of every contestant, how many times faster than the plain loop, and how far from the floor."""
    place = measure.environment(options.device)
    loops, limits = contestants(options), ceilings(options)
    calls = {name: 1 if options.quick else measure.enough_calls(work, options.device) for name, work in limits.items()}
    samples = measure.measure({**loops, **limits}, options.repeats, device=options.device, calls=calls)
    setting = (
        f"model={options.model} teacher={options.teacher or 'none'} batch={options.batch_size} "
        f"images={options.images} workers={options.workers} precision={options.precision}"
    )
    trained = {name: samples[name] for name in loops}
    rates = {name: [options.images / seconds for seconds in values] for name, values in trained.items()}
    rows = [measure.row(place, name, setting, "images/s", values) for name, values in rates.items()]
    ratios = measure.per_round(trained, PLAIN)
    rows += [measure.row(place, name, setting, f"times {PLAIN}", values) for name, values in ratios.items()]
    return rows + floor_rows(options, samples, setting, place)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `python -m benchmarks.trainer`."""
    parser = measure.parser("trainer", __doc__ or "", repeats=5)
    parser.add_argument("--model", choices=list_models(), default="vgg8", metavar="NAME", help="default vgg8")
    parser.add_argument("--teacher", choices=list_models(), metavar="NAME", help="distil this network; default none")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of ours; default auto")
    parser.add_argument("--compile", action="store_true", help="also ours through torch.compile (CUDA graphs)")
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
