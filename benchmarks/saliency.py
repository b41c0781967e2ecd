"""Seconds to make BIMask's masks for 1,000 images: ours in batches against captum image by image.

The quantity is the gradient of the predicted class's logit with respect to the raw output of the last convolution.
In captum that is `LayerGradientXActivation` with `multiply_by_inputs=False`, given the predicted class, which costs
it a forward pass of its own; captum in batches and ours without the backward pass show where the difference comes
from. Before anything is timed both must give the same maps (float64, so that rounding cannot hide a difference).

Aim, not a result (issue 7): at least 5 times faster than captum image by image, ResNet20 on a CPU. The forward pass
alone is the floor. What was measured is in `results/saliency.csv`, and nowhere else.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import measure
from benchmarks.trainer import CLASSES, MEAN, STD, synthetic
from efflib.data import ImageSet
from efflib.explain import find_layer
from efflib.kernels.augment import normalise
from efflib.models import create_model, list_models
from efflib.papers.bimask.method import keep_masks, saliency_maps
from efflib.training import seeded

OURS, CAPTUM, CAPTUM_BATCHED, FLOOR = "efflib", "captum, image by image", "captum, batched", "forward pass alone"
RATIO = 0.05


def network(name: str, device: torch.device) -> nn.Module:
    """A network in eval mode whose batch norms have seen images, as those of a trained one have."""
    with seeded(0):
        model = create_model(name, CLASSES).to(device)
    with torch.no_grad():
        for _ in range(20):
            model(normalise(torch.from_numpy(synthetic(32).images).to(device), MEAN, STD))
    return model.eval()


def batches(model: nn.Module, data: ImageSet, size: int, device: torch.device) -> list[Tensor]:
    """The images, normalised on the device, cut into batches (B, 3, 32, 32)."""
    dtype = next(model.parameters()).dtype
    parts = torch.from_numpy(data.images).split(size)
    return [normalise(part.to(device), MEAN, STD).to(dtype) for part in parts]


def our_maps(model: nn.Module, data: ImageSet, size: int, device: torch.device) -> Tensor:
    """(N, H, W) saliency as BIMask's recipe computes it."""
    return saliency_maps(model, data, MEAN, STD, device, batch_size=size)


def captum_maps(model: nn.Module, data: ImageSet, size: int, device: torch.device) -> Tensor:
    """(N, H, W) saliency as captum's users compute it, `size` images at a time; read back once, at the end."""
    from captum.attr import LayerGradientXActivation

    attribution = LayerGradientXActivation(model, find_layer(model, -1), multiply_by_inputs=False)
    maps = []
    for images in batches(model, data, size, device):
        with torch.no_grad():
            predicted = model(images).argmax(dim=1)
        gradient = attribution.attribute(images, predicted).detach()
        coarse = gradient.abs().mean(dim=1, keepdim=True)
        maps.append(F.interpolate(coarse, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0])
    return torch.cat(maps).cpu()


def forward_alone(model: nn.Module, data: ImageSet, size: int, device: torch.device) -> Tensor:
    """(N,) predicted classes: the one forward pass that every way needs."""
    with torch.no_grad():
        return torch.cat([model(images).argmax(dim=1) for images in batches(model, data, size, device)]).cpu()


def check_equal(model: nn.Module, data: ImageSet, device: torch.device, size: int = 4) -> float:
    """Largest relative difference between our maps and captum's in float64.

    Raises:
        ValueError: they are not the same quantity, so that a comparison of times would mean nothing.
    """
    exact = copy.deepcopy(model).double()
    ours, theirs = our_maps(exact, data, size, device), captum_maps(exact, data, 1, device)
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    if not difference < 1e-10:
        raise ValueError(f"our saliency differs from captum's by {difference:.2g} of its maximum: timing stopped")
    return difference


def contestants(model: nn.Module, data: ImageSet, size: int, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Three ways to the same masks, and the floor. The step from map to mask is the same function for all."""
    indices = torch.from_numpy(data.indices)

    def masks(maps: Callable[..., Tensor], images_at_once: int) -> Tensor:
        return keep_masks(maps(model, data, images_at_once, device), RATIO, 0, indices)

    return {
        OURS: lambda: masks(our_maps, size),
        CAPTUM: lambda: masks(captum_maps, 1),
        CAPTUM_BATCHED: lambda: masks(captum_maps, size),
        FLOOR: lambda: forward_alone(model, data, size, device),
    }


def rows_of(options: argparse.Namespace) -> list[measure.Row]:
    """Seconds per 1,000 images, and how many times faster than captum image by image, round by round."""
    place = measure.environment(options.device, ("captum",))
    data, model = synthetic(options.images), network(options.model, options.device)
    check_equal(model, data.take(range(min(8, len(data)))), options.device)
    ways = contestants(model, data, options.batch_size, options.device)
    samples = measure.measure(ways, options.repeats, device=options.device)
    setting = f"model={options.model} images={options.images} batch={options.batch_size} ratio={RATIO} precision=fp32"
    per_1000 = {name: [1000 * seconds / options.images for seconds in values] for name, values in samples.items()}
    rows = [measure.row(place, name, setting, "s/1000 images", values) for name, values in per_1000.items()]
    ratios = measure.per_round(samples, CAPTUM)
    return rows + [measure.row(place, name, setting, f"times {CAPTUM}", values) for name, values in ratios.items()]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `python -m benchmarks.saliency`."""
    parser = measure.parser("saliency", __doc__ or "", repeats=5)
    parser.add_argument("--model", choices=list_models(), default="resnet20", metavar="NAME", help="default resnet20")
    parser.add_argument("--images", type=measure.positive, default=1_000, help="default 1,000")
    parser.add_argument("--batch-size", type=measure.positive, default=250, help="default 250")
    options = measure.parse(parser, argv, images=32, batch_size=16, repeats=2)
    measure.report("saliency", rows_of(options), options)


if __name__ == "__main__":
    main()
