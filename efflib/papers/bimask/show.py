"""Live pictures and measurements of BIMask's method for the notebooks, on images whose objects are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from IPython.display import HTML
from torch import Tensor, nn

from efflib.data import NORMALISATION, ImageSet
from efflib.explain import find_layer, localisation, pooling
from efflib.kernels.augment import normalise
from efflib.papers.bimask.method import keep_masks, removed_overlap, saliency_maps
from efflib.papers.pictures import examples
from efflib.papers.pictures import trained_model as trained_model  # pages take it from here
from efflib.report.figures import image_grid
from efflib.report.html import html_table

# The saliency variants of the spec (A1-A4), the default first.
VARIANTS: dict[str, dict[str, Any]] = {
    "gradient at the last convolution (BIMask)": {},
    "the same, largest channel instead of the mean": {"reduce": "max_abs"},
    "gradient x activation": {"method": "grad_x_act"},
    "Grad-CAM, map before the pooling": {"method": "gradcam", "layer": "pooling input"},
    "gradient at the input image": {"method": "input_grad"},
}


def maps_of(model: nn.Module, data: ImageSet, **options: Any) -> Tensor:
    """(N, H, W) saliency of a set, as the recipe computes it."""
    return saliency_maps(model, data, *NORMALISATION[data.name], **options)


def panels(model: nn.Module, data: ImageSet, ratio: float, seed: int = 0, **options: Any) -> list[list[np.ndarray]]:
    """Per image: the image, its saliency, the mask (white is kept), the masked copy."""
    maps = maps_of(model, data, **options)
    masks = keep_masks(maps, ratio, seed, torch.from_numpy(data.indices)).numpy()
    copies = data.images * masks[..., None]
    return [[data.images[n], maps[n].numpy(), masks[n], copies[n]] for n in range(len(data))]


def strip(model: nn.Module, ratio: float, layers: tuple[int, ...] = (-1,), images: int = 5) -> Any:
    """Figure: rendered images down, and per layer the saliency, the mask and the masked copy."""
    data = examples().take(range(images))
    per_layer = [panels(model, data, ratio, layer=layer) for layer in layers]
    rows = [[lines[0][0], *(part for line in lines for part in line[1:])] for lines in zip(*per_layer, strict=True)]
    suffix = [f"\nconv {layer}" if len(layers) > 1 else "" for layer in layers]
    columns = ["image", *(f"{word}{end}" for end in suffix for word in ("saliency", "mask", "masked"))]
    names = [data.classes[label] for label in data.labels]
    return image_grid(rows, columns, names, f"Rendered images with saliency, mask and masked copy at {ratio:.1%}")


def ratio_strip(model: nn.Module, ratios: tuple[float, ...], images: int = 5) -> Any:
    """Figure: rendered images down, saliency and the masked copy at each ratio across."""
    data = examples().take(range(images))
    per_ratio = [panels(model, data, ratio) for ratio in ratios]
    rows = [[*lines[0][:2], *(line[3] for line in lines)] for lines in zip(*per_ratio, strict=True)]
    columns = ["image", "saliency", *(f"{ratio:.0%}" for ratio in ratios)]
    names = [data.classes[label] for label in data.labels]
    return image_grid(rows, columns, names, "Rendered images with saliency and the masked copy at several ratios")


def overlap_table(model: nn.Module, data: ImageSet, ratio: float, layers: tuple[int, ...], seed: int = 0) -> Any:
    """Table: intersection over union of the removed pixels, mean over images, for each pair of layers."""
    indices = torch.from_numpy(data.indices)
    masks = {layer: keep_masks(maps_of(model, data, layer=layer), ratio, seed, indices) for layer in layers}
    chance = ratio / (2 - ratio)
    rows = [
        {"layer": f"conv {a}", **{f"conv {b}": removed_overlap(masks[a], masks[b]) for b in layers}} for a in layers
    ]
    caption = (
        f"Overlap of the removed pixels, {len(data)} rendered images at {ratio:.0%}; unrelated masks: {chance:.3f}"
    )
    return HTML(html_table(rows, caption))


def localise(model: nn.Module, data: ImageSet, ratio: float, seed: int = 0) -> list[dict[str, float | str]]:
    """How well each saliency variant finds the objects, and how much of them the mask removes; random order last."""
    objects = torch.from_numpy(data.masks)
    indices = torch.from_numpy(data.indices)
    rows = [
        _localise(name, maps_of(model, data, **options), objects, ratio, seed, indices)
        for name, options in VARIANTS.items()
    ]
    noise = torch.rand(objects.shape, generator=torch.Generator().manual_seed(seed))
    return [*rows, _localise("random order", noise, objects, ratio, seed, indices)]


def _localise(
    name: str, maps: Tensor, objects: Tensor, ratio: float, seed: int, indices: Tensor
) -> dict[str, float | str]:
    found = localisation(maps, objects)
    removed = ~keep_masks(maps, ratio, seed, indices)
    on_object = (removed & objects).sum() / removed.sum()
    return {
        "saliency": name,
        "peak on the object": found["pointing"],
        "share of saliency on the object": found["inside"],
        "ranking (AUC)": found["auc"],
        "removed pixels on the object": float(on_object),
        "object's share of the image": found["area"],
    }


def closed_form(model: nn.Module, data: ImageSet) -> Tensor:
    """Section 2.3 of the spec: s = 1/(D h w) sum_d |W_cd| |gamma_d| / sqrt(v_d + eps) [u_d > 0], not enlarged.

    Returns:
        (N, h, w), for networks whose last feature map passes one ReLU, global average pooling and one linear layer.
    """
    seen: list[Tensor] = []
    handle = pooling(model).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        images = normalise(torch.from_numpy(data.images), *NORMALISATION[data.name])
        classes = model.to("cpu")(images).argmax(dim=1)
    handle.remove()
    norm = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    gain = norm.weight.detach().abs() / (norm.get_buffer("running_var") + norm.eps).sqrt()
    active = (seen[0] > 0).float()
    D, h, w = active.shape[1:]
    return torch.einsum("nd,d,ndij->nij", head.weight.detach()[classes].abs(), gain, active) / (D * h * w)


def map_size(model: nn.Module, layer: int = -1) -> tuple[int, int]:
    """Height and width of a convolution's output for the 32 px images."""
    sizes: list[tuple[int, int]] = []
    handle = find_layer(model, layer).register_forward_hook(
        lambda module, inputs, out: sizes.append(tuple(out.shape[2:]))
    )
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    handle.remove()
    return sizes[0]
