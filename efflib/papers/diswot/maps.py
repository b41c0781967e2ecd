"""Maps of trained networks: how alike those of teacher and student are, and how much of them lies inside the head.

It puts numbers to figures 3.8 and 3.9 of the thesis (spec, section 4.4), in the recipe `relevance_maps`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from efflib.data import NORMALISATION, ImageSet, load_dataset
from efflib.explain import grad_cam, localisation, relevance
from efflib.models import count_macs, create_model
from efflib.papers.baselines import SIZES, canary_context
from efflib.papers.distillation import Options
from efflib.papers.diswot.recipes import known_dataset
from efflib.papers.features import labels_of, pixels_of
from efflib.training import seeded
from efflib.trials.recipes import Config, Context, Outcome, recipe

# Where a map is read, and kinds of map -> words for tables.
LAYERS = {"s32": "last map (s32)", "s16": "map before the last stride (s16)", "input": "pixels"}
KINDS = {
    "gradcam": "Grad-CAM",
    "gxa": 'gradient x activation (the thesis\'s "LRP")',
    "lrp": "LRP, propagated through the layers",
}
HEAD = 0.1  # pixels above belong to the head, as fractions of white (spec, section 4.4)
TUMOURS = ("phantom",)  # sets of brain slices whose masks are tumours
# Behind the last map there is but a global average or a flattening, and dense layers: there the rules give gradient
# times activation, in the teacher as well. One stride earlier they do not.
PROPAGATED_AT = "s16"
_PART = 64  # images whose maps are made at once
_PASSES = 9.0  # forward passes' worth: forward and backward for each kind of map, propagation a little more


def maps_of(network: nn.Module, images: Tensor, kind: str, target: Tensor | str, layer: str) -> Tensor:
    """Positive evidence for a class at a layer, upsampled bilinearly to the images.

    Args:
        network: MobileNetV2.
        images: (N, C, H, W), normalised.
        kind: a key of `KINDS`; "lrp" is the composite of epsilon and gamma rules.
        target: "predicted", or classes (N,).
        layer: "s16", "s32" or, but for Grad-CAM, "input".

    Returns:
        (N, H, W) float32.
    """
    if kind == "gradcam":
        return grad_cam(network, images, layer, target)  # type: ignore[arg-type]
    return relevance(network, images, layer, target, "composite" if kind == "lrp" else kind)  # type: ignore[arg-type]


def normalised(data: ImageSet) -> Tensor:
    """The images (N, C, H, W) of a set as the thesis's networks take them."""
    return pixels_of(data, *NORMALISATION[data.name])


# --- agreement --------------------------------------------------------------------------------------------


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of each image's two maps, float64 (N,); NaN where one of them is zero everywhere.

    Args:
        first, second: (N, H, W), not negative.
    """
    return F.cosine_similarity(_scaled(first), _scaled(second), dim=1)


def _scaled(maps: Tensor) -> Tensor:
    """Maps (N, H, W) as rows, over their largest value, float64: tiny ones survive, one that is zero becomes NaN."""
    rows = maps.double().flatten(1)
    return rows / rows.amax(dim=1, keepdim=True)


def zero(maps: Tensor) -> Tensor:
    """bool (N,): the maps (N, H, W) that are zero everywhere."""
    return (maps == 0).flatten(1).all(dim=1)


def likeness(own: Tensor, guide: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Mean cosine of a network's maps with the teacher's, over the images for which neither is zero.

    Args:
        own, guide: the network's and the teacher's maps (N, H, W), not negative.
        labels: classes (N,).

    Returns:
        "cosine"; "other_image", the mean cosine with the teacher's maps of all other images of the class; and
        "beyond_image", the mean difference of the two, over the images that have both. It is 0 for maps that do not
        depend on the image, whatever the teacher's are. None where there is no such image.
    """
    same, other = cosines(own, guide), _with_others(own, guide, labels)
    return {"cosine": _mean(same), "other_image": _mean(other), "beyond_image": _mean(same - other)}


def _with_others(own: Tensor, guide: Tensor, labels: Tensor) -> Tensor:
    """Mean cosine of each image's own map with the guide's of the other images of its class, float64 (N,).

    NaN where either map of the image itself is zero, so that images and guides are the same set, or it has no other.
    """
    found = torch.full((len(own),), torch.nan, dtype=torch.float64)
    for label in labels.unique():
        of_class = torch.nonzero((labels == label) & ~zero(own) & ~zero(guide))[:, 0]
        if len(of_class) > 1:
            a, b = (F.normalize(_scaled(maps[of_class]), dim=1) for maps in (own, guide))
            found[of_class] = (a * (b.sum(dim=0) - b)).sum(dim=1) / (len(of_class) - 1)
    return found


def _mean(values: Tensor) -> float | None:
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else None


# --- head and tumour --------------------------------------------------------------------------------------


def head_of(image: np.ndarray) -> np.ndarray:
    """The pixels of a slice that are head: brighter than a tenth of white, largest component, holes filled.

    Args:
        image: (H, W) uint8.

    Returns:
        (H, W) bool; all False for a black image.
    """
    from scipy.ndimage import binary_fill_holes, label

    parts, count = label(image > 255 * HEAD)
    if count == 0:
        return np.zeros(image.shape, dtype=bool)
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return binary_fill_holes(parts == largest)


def heads(data: ImageSet) -> Tensor:
    """`head_of` each image of a grey set, bool (N, H, W)."""
    return torch.from_numpy(np.stack([head_of(image) for image in data.images[..., 0]]))


def partly(objects: Tensor) -> Tensor:
    """bool (N,): images with object pixels and others, which a share can tell apart."""
    flat = objects.flatten(1)
    return flat.any(dim=1) & ~flat.all(dim=1)


def share_inside(maps: Tensor, objects: Tensor) -> float | None:
    """Share of a map's sum on the object, mean over the maps that are not zero of images with object and background.

    Args:
        maps: (N, H, W), not negative.
        objects: (N, H, W) bool.
    """
    told = partly(objects) & ~zero(maps)
    return localisation(maps[told], objects[told])["inside"] if told.any() else None


def _tumour(maps: Tensor, tumours: Tensor) -> dict[str, float | None]:
    """Pointing game, in which a map that is zero points by chance, and `share_inside` the tumour."""
    there = partly(tumours)
    pointing = localisation(maps[there], tumours[there])["pointing"]
    return {"points_at_tumour": pointing, "inside_tumour": share_inside(maps, tumours)}


# --- the recipe -------------------------------------------------------------------------------------------


class MapsConfig(Config):
    """Two MobileNetV2, the parents "teacher" and "student" with these options, and the test images of a data set.

    Maps are read at `layer` for the true class, propagated ones at `PROPAGATED_AT`; `images` takes the first so many
    test images, None all. Nothing depends on `seed`, which is that of the parents.
    """

    dataset: str
    model_options: Options
    teacher_options: Options
    layer: Literal["s16", "s32"]
    images: int | None = Field(default=None, ge=2)
    seed: int = 0

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str) -> str:
        return known_dataset(value)


def _planned(config: MapsConfig) -> float:
    """Forward FLOPs of both networks, times what the maps take beyond."""
    images = min(config.images or SIZES[config.dataset][1], SIZES[config.dataset][1])
    options = [tuple(sorted(each.items())) for each in (config.model_options, config.teacher_options)]
    return 2.0 * _PASSES * images * sum(_macs(each, config.dataset) for each in options)


@cache
def _macs(options: tuple[tuple[str, Any], ...], dataset: str) -> int:
    _, _, side, channels = SIZES[dataset]
    return count_macs(create_model("mobilenetv2", 4, **dict(options)), side, channels)


def _canary() -> dict[str, float]:
    """Two narrow untrained networks on twelve slices of the phantom."""
    narrow = {"width": 0.35, "depth": 11, "dropout": 0.0}
    config = MapsConfig(
        dataset="phantom",
        model_options={**narrow, "head": "gap"},
        teacher_options={**narrow, "head": "flatten", "image_size": 64},
        layer="s16",
        images=12,
    )
    parents = {}
    for role, options in (("student", config.model_options), ("teacher", config.teacher_options)):
        with seeded(0, f"canary {role}"):
            parents[role] = create_model("mobilenetv2", 4, **options).state_dict()
    found = relevance_maps(config, canary_context("relevance_maps", **parents)).metrics["maps"]
    return {
        f"{kind}.{name}.{metric}": value
        for kind, networks in found.items()
        for name, numbers in networks.items()
        for metric, value in numbers.items()
        if value is not None and metric not in ("zero_maps", "points_at_tumour")  # these jump by whole images
    }


@recipe(
    "relevance_maps",
    version=1,
    config=MapsConfig,
    canary=_canary,
    flops=_planned,
    data=lambda config: [(config.dataset, "test")],
    parents=("teacher", "student"),
    precision="fp32",
)
def relevance_maps(config: MapsConfig, context: Context) -> Outcome:
    """Agreement of the two networks' maps, and where they lie, for each kind of map.

    The metrics are {"maps": {kind: {"student", "teacher", "uniform": {...}}}}: for each network `likeness` (not of the
    teacher with itself), "zero_maps", the share of its maps that are zero, and "inside_head"; where tumours are known
    also "points_at_tumour" and "inside_tumour". "uniform" is a map that prefers nothing: what guessing gives. Shares
    are means over maps that are not zero on images that the object divides; `with_head` counts those for the head.
    """
    test = load_dataset(config.dataset, "test")
    test = test if config.images is None else test.take(range(min(config.images, len(test))))
    labels, inside = labels_of(test), heads(test)
    tumours = torch.from_numpy(np.asarray(test.masks)) if config.dataset in TUMOURS else None
    made = {
        role: _all_maps(options, context.parents[role], test, config.layer, context)
        for role, options in (("student", config.model_options), ("teacher", config.teacher_options))
    }
    metrics = {kind: _compared(made["student"][kind], made["teacher"][kind], labels, inside, tumours) for kind in KINDS}
    counts = {"images": len(test), "with_head": int(partly(inside).sum())}
    return Outcome({"maps": metrics, **counts}, _planned(config))


def _all_maps(
    options: Options, weights: dict[str, Any], test: ImageSet, layer: str, context: Context
) -> dict[str, Tensor]:
    """Kind -> a network's maps of the true classes, float32 (N, H, W) on the CPU; made in double precision in fp64."""
    dtype = torch.float64 if context.precision == "fp64" else torch.float32
    network = create_model("mobilenetv2", len(test.classes), **options)
    network.load_state_dict(weights)
    network.to(context.device, dtype).eval()
    pairs = zip(normalised(test).split(_PART), labels_of(test).split(_PART), strict=True)
    parts = [(images.to(context.device, dtype), labels.to(context.device)) for images, labels in pairs]
    at = {kind: PROPAGATED_AT if kind == "lrp" else layer for kind in KINDS}
    return {kind: torch.cat([maps_of(network, i, kind, k, at[kind]).cpu() for i, k in parts]) for kind in KINDS}


def _compared(own: Tensor, guide: Tensor, labels: Tensor, inside: Tensor, tumours: Tensor | None) -> dict[str, Any]:
    networks = {"student": own, "teacher": guide, "uniform": torch.ones_like(guide)}
    return {
        name: {
            **({} if name == "teacher" else likeness(maps, guide, labels)),
            "zero_maps": float(zero(maps).double().mean()),
            "inside_head": share_inside(maps, inside),
            **({} if tumours is None else _tumour(maps, tumours)),
        }
        for name, maps in networks.items()
    }
