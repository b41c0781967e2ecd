"""A brain-MRI phantom: drawn slices of a head in three planes, with the true pixels of the tumour.

Nothing here comes from a patient. A slice shows scalp, skull, brain with folds, ventricles and the midline, seen from
above (axial), from the side (sagittal) or from the front (coronal), weighted like T1 (bright white matter, dark fluid)
or like T2 (the reverse), under a bias field and noise. The four classes differ in the tumour only:

    glioma      irregular, inside a hemisphere: enhancing rim around a dark core or one dim infiltrating mass, oedema
    meningioma  round, evenly bright, with a broad base on the inside of the skull
    notumor     none
    pituitary   small, round, bright, at the middle of the base, where the normal gland is a bright dot

Plane and contrast say nothing about the class. Axial slices through the base show a pituitary tumour, those through the
ventricles cannot: half of the axial slices of the other classes go through the base, all of those with one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np

from efflib.data.counter import hash64, uniform
from efflib.data.imageset import ImageSet, fingerprint
from efflib.data.objects import boxes_of
from efflib.data.sets import BRAIN_MRI_CLASSES as CLASSES

PLANES = ("axial", "sagittal", "coronal")
RENDERER_VERSION = 1
CHUNK = 64  # slices drawn at once: the working arrays stay in the processor's cache
GLIOMA, MENINGIOMA, PITUITARY = (CLASSES.index(name) for name in ("glioma", "meningioma", "pituitary"))
Array = np.ndarray  # float64 throughout: what two machines round differently then vanishes in whole grey levels


def render_phantom(count: int, seed: int, size: int = 64, first: int = 0) -> ImageSet:
    """Draw slices of the phantom with the true masks and boxes of their tumours.

    Slice i depends on (seed, i, size) only, never on how many are drawn; its class is i mod 4.

    Args:
        count: number of slices N.
        seed: any integer.
        size: height and width in pixels, at least 32.
        first: index of the first slice.

    Returns:
        ImageSet with images (N, size, size, 1), masks (N, size, size): the tumour without its oedema, all False for
        "notumor", boxes (N, 4): (x0, y0, x1, y1) in pixels around the mask, x1 and y1 exclusive, all 0 for "notumor";
        indices count from `first`.

    Raises:
        ValueError: count below 1, size below 32, first below 0.
    """
    if count < 1 or size < 32 or first < 0:
        raise ValueError(f"count={count}, size={size}, first={first}: need count >= 1, size >= 32 and first >= 0")
    indices = np.arange(first, first + count, dtype=np.int64)
    parts = [_render(indices[i : i + CHUNK], seed, size) for i in range(0, count, CHUNK)]
    images, masks = (np.concatenate(part) for part in zip(*parts))
    labels = indices % len(CLASSES)
    return ImageSet(
        name="phantom",
        split="rendered",
        images=images[..., None],
        labels=labels,
        classes=CLASSES,
        indices=indices,
        fingerprint=fingerprint([f"phantom renderer {RENDERER_VERSION}"], images, labels),
        variant="embedded",
        masks=masks,
        boxes=boxes_of(masks) * np.asarray(masks.any((1, 2)))[:, None],
    )


def planes_of(indices: Array, seed: int) -> Array:
    """Planes of slices, as positions in `PLANES`: int64 (N,)."""
    return (uniform(seed, indices, crc32(b"plane")) * len(PLANES)).astype(np.int64)


# --- one chunk of slices --------------------


class _Dice:
    """One number in [low, high) per slice and name, shaped (n, 1, 1) to meet the pixels."""

    def __init__(self, seed: int, indices: Array) -> None:
        self.seed, self.indices = seed, indices

    def __call__(self, name: str, low: float = 0.0, high: float = 1.0) -> Array:
        # Named, not numbered: a new property leaves all others as they were.
        return (low + (high - low) * uniform(self.seed, self.indices, crc32(name.encode())))[:, None, None]

    def side(self, name: str) -> Array:
        return np.where(self(name) < 0.5, -1.0, 1.0)


@dataclass
class _Head:
    """The anatomy of slices in one plane: signed distances in head units, negative inside, (n, H, W).

    Args:
        skin, brain: outline of the head; inside of the skull, which the dura covers.
        white: inside of the cortex.
        fluid: ventricles, cisterns and the fissure between the hemispheres.
        grey: deep nuclei; cerebellum.
        air: sinuses and airways.
        dome: the ellipse (x, y, a, b) that the skull follows where a meningioma may sit.
        arc: range of angles of that, from the x axis towards y, which points down.
        deep: x (to one side of the middle) and y range of a glioma's centre.
        sella: x, y of the pituitary.
        gland: where the slice meets it, bool (n, 1, 1).
    """

    skin: Array
    brain: Array
    white: Array
    fluid: Array
    grey: Array
    air: Array
    dome: tuple[float, float, float, float]
    arc: tuple[float, float]
    deep: tuple[tuple[float, float], tuple[float, float]]
    sella: tuple[float, float]
    gland: Array


class _Pen(NamedTuple):
    """Where slices are drawn: head coordinates (n, H, W), pixels per head unit, x to the side and y downwards."""

    dice: _Dice
    x: Array
    y: Array
    scale: Array


def _render(indices: Array, seed: int, size: int) -> tuple[Array, Array]:
    images, masks = np.empty((len(indices), size, size), np.uint8), np.empty((len(indices), size, size), bool)
    planes = planes_of(indices, seed)
    for plane, draw in enumerate((_axial, _sagittal, _coronal)):
        chosen = planes == plane
        if chosen.any():
            images[chosen], masks[chosen] = _slices(indices[chosen], seed, size, draw)
    return images, masks


def _slices(indices: Array, seed: int, size: int, draw) -> tuple[Array, Array]:
    pen = _place(_Dice(seed, indices), size)
    labels = (indices % len(CLASSES))[:, None, None]
    head = draw(pen, labels)
    tissue = _tissues(pen.dice)
    image, mask = _tumour(pen, head, tissue, _anatomy(pen, head, tissue), labels)
    return _scan(pen.dice, image, seed, indices, size), mask


def _place(dice: _Dice, size: int) -> _Pen:
    """Head coordinates of the pixels: turned, shifted, scaled and gently bent."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    scale, turn = dice("scale", 0.92, 1.02), np.deg2rad(dice("turn", -8, 8))
    x, y = axis[None, None, :] - dice("shift x", -0.05, 0.05), axis[None, :, None] - dice("shift y", -0.05, 0.05)
    x = x * dice.side("facing")  # in sagittal slices the face is at -x of the head, whichever way the picture shows it
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    u, v = (cos * x + sin * y) * dice("wide", 0.95, 1.05), cos * y - sin * x
    bend, a, b = dice("bend", 0, 0.035), dice("bend a", 0, 2 * np.pi), dice("bend b", 0, 2 * np.pi)
    return _Pen(dice, u + bend * np.sin(3 * v + a), v + bend * np.sin(3 * u + b), scale * size / 2)


def _length(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y)  # not np.hypot: slower, and machines round it differently


def _ellipse(
    pen: _Pen, x: float | Array, y: float | Array, a: float | Array, b: float | Array, turn: float = 0
) -> Array:
    """About the signed distance to an ellipse, its axes turned by `turn` radians."""
    dx, dy = pen.x - x, pen.y - y
    if turn:
        dx, dy = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    return (_length(dx / a, dy / b) - 1) * np.minimum(a, b)


def _capsule(pen: _Pen, start: tuple[float, float], end: tuple[float, float], radius: float | Array) -> Array:
    (x0, y0), (x1, y1) = start, end
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((pen.x - x0) * dx + (pen.y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    return _length(pen.x - x0 - along * dx, pen.y - y0 - along * dy) - radius


def _join(*distances: Array) -> Array:
    return np.minimum.reduce(np.broadcast_arrays(*distances))


def _cover(pen: _Pen, distance: Array, soft: float | Array = 1.0) -> Array:
    """How much of each pixel lies inside, 0..1; `soft` is the width of the edge in pixels."""
    return np.clip(0.5 - distance * pen.scale / soft, 0, 1)


# --- anatomy --------------------


def _cortex(pen: _Pen, brain: Array) -> tuple[Array, Array]:
    """Distances to the white matter, below a folded ribbon of cortex, and to the fluid in its folds."""
    dice, f, depth = pen.dice, pen.dice("fold size", 10, 14), pen.dice("fold depth", 0.16, 0.26)
    p, q = dice("fold p", 0, 2 * np.pi), dice("fold q", 0, 2 * np.pi)
    wave = np.sin(f * pen.x + 2 * np.sin(0.5 * f * pen.y + p)) + np.sin(f * pen.y + 2 * np.sin(0.5 * f * pen.x + q))
    away = np.abs(wave) / f  # about the distance to the next fold
    ribbon = np.maximum(away - 0.04, -brain - depth)
    return np.maximum(brain + 0.06, -ribbon), np.maximum(away - 0.012, -brain - depth + 0.04)


def _axial(pen: _Pen, labels: Array) -> _Head:
    dice = pen.dice
    base = (dice("base") < 0.5) | (labels == PITUITARY)
    skin, brain = _ellipse(pen, 0, 0, 0.74, 0.92), _ellipse(pen, 0, 0, 0.63, 0.8)
    white, folds = _cortex(pen, brain)
    open_, twice = dice("ventricles", 0.5, 1.25), pen._replace(x=np.abs(pen.x))
    fissure = np.maximum(twice.x - 0.012, np.where(base, 0.24, 0.36) - np.abs(pen.y))  # not through the middle
    horns = _join(
        _ellipse(twice, 0.03 + 0.05 * open_, -0.18, 0.05 * open_, 0.16, 0.3),
        _ellipse(twice, 0.1 + 0.06 * open_, 0.24, 0.05 * open_, 0.17, -0.35),
        _ellipse(pen, 0, 0.04, 0.02 * open_, 0.12),  # third ventricle
    )
    arms = [_capsule(twice, (0, -0.02), end, 0.028) for end in ((0.0, -0.2), (0.26, -0.06), (0.15, 0.2))]
    cisterns = _join(*arms, _ellipse(pen, 0, 0.28, 0.05, 0.03))
    sylvian = _capsule(twice, (0.42, -0.16), (0.62, -0.24), 0.014)
    nuclei = _ellipse(twice, 0.17, 0.06, 0.08, 0.14)
    hind = _join(_ellipse(twice, 0.05, 0.13, 0.09, 0.1), _ellipse(twice, 0.15, 0.5, 0.2, 0.19))  # midbrain, cerebellum
    return _Head(
        skin, brain, white,
        fluid=_join(folds, fissure, sylvian, np.where(base, cisterns, horns)),
        grey=np.where(base, hind, nuclei),
        air=np.ones((1, 1, 1)),
        dome=(0, 0, 0.63, 0.8), arc=(0, 2 * np.pi), deep=((0.22, 0.36), (-0.4, 0.4)), sella=(0, -0.1), gland=base,
    )  # fmt: skip


def _sagittal(pen: _Pen, labels: Array) -> _Head:
    dice, open_ = pen.dice, pen.dice("ventricles", 0.5, 1.25)
    skin = _join(
        _ellipse(pen, 0.04, -0.16, 0.84, 0.71),
        _capsule(pen, (-0.42, 0.1), (-0.36, 0.62), 0.34),  # face
        _capsule(pen, (-0.74, 0.2), (-0.79, 0.3), 0.07),  # nose
        _capsule(pen, (0.2, 0.2), (0.22, 1.2), 0.36),  # neck
    )
    cerebrum = _ellipse(pen, 0.04, -0.17, 0.73, 0.58)
    floor = pen.y - 0.16 + 0.22 * pen.x - 0.2 * np.clip(pen.x - 0.1, 0, 1)  # base of the skull
    cerebrum = np.maximum(cerebrum, floor)
    stem = _capsule(pen, (0.1, 0.1), (0.2, 0.8), dice("stem", 0.065, 0.085))
    pons, cerebellum = _ellipse(pen, 0.08, 0.3, 0.1, 0.12), _ellipse(pen, 0.42, 0.3, 0.22, 0.19)
    white, folds = _cortex(pen, cerebrum)
    callosum = np.maximum(np.abs(_ellipse(pen, 0.02, -0.05, 0.32, 0.21)) - 0.03, pen.y + 0.02)
    ventricle = np.maximum(_ellipse(pen, 0.03, -0.05, 0.26, 0.13 * open_), pen.y + 0.05)
    tentorium = np.maximum(np.abs(cerebellum) - 0.014, pen.y - 0.45)
    leaves = 0.03 * np.sin(62 * (pen.y - 0.3) + 20 * (pen.x - 0.42)) - 0.01
    return _Head(
        skin, _join(cerebrum, stem, pons, cerebellum),
        white=_join(white, callosum, stem + 0.012, pons + 0.012, np.maximum(cerebellum + 0.02, leaves)),
        fluid=_join(np.maximum(folds, cerebrum), ventricle, _ellipse(pen, 0.22, 0.28, 0.025 * open_, 0.07), tentorium),
        grey=_ellipse(pen, 0.06, 0.03, 0.13, 0.06),  # thalamus
        air=_join(
            _ellipse(pen, -0.71, 0.03, 0.03, 0.07),  # sinuses of forehead and skull base, nose, throat
            _ellipse(pen, -0.3, 0.42, 0.11, 0.07),
            _ellipse(pen, -0.52, 0.5, 0.12, 0.1),
            _capsule(pen, (-0.14, 0.56), (0.0, 0.95), 0.05),
        ),
        dome=(0.04, -0.17, 0.73, 0.58), arc=(np.pi, 2 * np.pi), deep=((-0.38, 0.45), (-0.45, -0.12)),
        sella=(-0.13, 0.27), gland=np.ones_like(labels, bool),
    )  # fmt: skip


def _coronal(pen: _Pen, labels: Array) -> _Head:
    open_, twice = pen.dice("ventricles", 0.5, 1.25), pen._replace(x=np.abs(pen.x))
    skin = _join(_ellipse(pen, 0, -0.14, 0.74, 0.76), _ellipse(pen, 0, 0.35, 0.62, 0.7))
    cerebrum = np.maximum(_ellipse(pen, 0, -0.17, 0.63, 0.62), pen.y - 0.12)
    temporal = _ellipse(twice, 0.37, 0.18, 0.23, 0.2)
    brain = _join(cerebrum, temporal)
    white, folds = _cortex(pen, brain)
    nuclei = _ellipse(twice, 0.2, -0.08, 0.09, 0.11)
    return _Head(
        skin, brain, white,
        fluid=_join(
            folds,
            np.maximum(twice.x - 0.012, pen.y + 0.3),  # between the hemispheres
            _ellipse(twice, 0.04 + 0.06 * open_, -0.2, 0.045 * open_, 0.11, 0.5),
            _ellipse(pen, 0, -0.02, 0.018 * open_, 0.1),  # third ventricle
            _capsule(twice, (0.34, 0.0), (0.6, -0.04), 0.014),  # above the temporal lobes
            _ellipse(pen, 0, 0.15, 0.12, 0.035),  # above the pituitary
        ),
        grey=nuclei,
        air=_join(_ellipse(pen, 0, 0.47, 0.14, 0.08), _ellipse(pen, 0, 0.76, 0.06, 0.12)),
        dome=(0, -0.17, 0.63, 0.62), arc=(0.9 * np.pi, 2.1 * np.pi), deep=((0.2, 0.36), (-0.45, 0.05)),
        sella=(0, 0.27), gland=np.ones_like(labels, bool),
    )  # fmt: skip


def _tissues(dice: _Dice) -> dict[str, Array]:
    """Brightness of each tissue, 0..1: four slices of five are weighted like T1 after contrast agent, one like T2."""
    t2 = dice("weighting") < 0.2
    usual = {
        "fat": (0.65, 0.5), "bone": (0.07, 0.05), "face": (0.36, 0.3), "air": (0.03, 0.03), "fluid": (0.12, 0.72),
        "grey": (0.35, 0.46), "white": (0.5, 0.33), "oedema": (0.26, 0.62), "dim": (0.2, 0.75), "core": (0.1, 0.8),
        "tumour": (0.9, 0.88), "rim": (0.9, 0.5), "vessel": (0.75, 0.08),
    }  # fmt: skip
    spread = {"tumour": 0.1, "rim": 0.1, "dim": 0.07}
    return {
        name: np.where(t2, late, early) + dice(f"tissue {name}", -1, 1) * spread.get(name, 0.04)
        for name, (early, late) in usual.items()
    }


def _anatomy(pen: _Pen, head: _Head, tissue: dict[str, Array]) -> Array:
    """The healthy slice, painted from the outside inwards."""
    dice = pen.dice
    muscle = (
        0.16 * np.sin(dice("face f", 9, 14) * pen.x + 3 * np.sin(5 * pen.y)) * np.sin(dice("face g", 8, 13) * pen.y)
    )
    layers = [
        (head.skin, tissue["fat"]),
        (head.skin + 0.045, tissue["face"] + muscle),
        (head.air, tissue["air"]),
        (np.maximum(head.brain - dice("bone", 0.05, 0.065), head.skin + 0.045), tissue["bone"]),
        (head.brain, tissue["fluid"]),
        (head.brain + 0.02, tissue["grey"]),
        (np.maximum(head.white, head.brain + 0.03), tissue["white"]),
        (np.maximum(head.grey, head.brain + 0.02), tissue["grey"]),
        (np.maximum(head.fluid, head.brain), tissue["fluid"]),
    ]
    image = np.zeros((1, 1, 1))
    for distance, colour in layers:
        image = image + _cover(pen, distance) * (colour - image)
    gland = np.where(head.gland, _length(pen.x - head.sella[0], pen.y - head.sella[1]) - 0.035, 1.0)
    image = image + _cover(pen, gland) * (tissue["tumour"] - image)
    for k in range(3):  # vessels, seen end on
        spot = _length(pen.x - dice(f"vessel {k} x", -0.5, 0.5), pen.y - dice(f"vessel {k} y", -0.6, 0.5))
        here = np.maximum(spot - dice(f"vessel {k} r", 0.0, 0.035), head.brain)
        image = image + _cover(pen, here) * (tissue["vessel"] - image)
    return image


# --- tumours --------------------


def _tumour(pen: _Pen, head: _Head, tissue: dict[str, Array], image: Array, labels: Array) -> tuple[Array, Array]:
    """The slice with its tumour, and the tumour's pixels."""
    dice, there = pen.dice, labels != CLASSES.index("notumor")
    glioma, meningioma = labels == GLIOMA, labels == MENINGIOMA
    x, y, radius = _where(dice, head, labels)
    distance = np.where(there, _blob(pen, x, y, radius, np.where(glioma, 0.32, 0.07)), 1.0)
    limit = np.where(glioma, head.brain + 0.02, np.where(meningioma, head.brain - 0.01, head.skin + 0.1))
    distance = np.maximum(distance, limit)

    swelling = np.where(glioma, dice("oedema", 0.3, 1), (dice("swollen") < 0.3) * dice("oedema", 0.2, 0.7) * meningioma)
    reach = distance - dice("oedema reach", 0.03, 0.12)
    water = np.maximum(reach, head.brain + 0.05)
    image = image + swelling * _cover(pen, water, 5.0) * (tissue["oedema"] - image)

    dim = glioma & (dice("dim") < 0.15)
    patches = 0.12 * np.sin(17 * pen.x + 3 * np.sin(13 * pen.y)) * np.sin(15 * pen.y + dice("patch", 0, 2 * np.pi))
    solid = np.where(glioma, np.where(dim, tissue["dim"], tissue["rim"]), tissue["tumour"])
    colour = solid + np.where(glioma, patches, 0.2 * patches)
    image = image + _cover(pen, distance, np.where(dim, 4.0, 1.3)) * (colour - image)
    core = np.where(glioma & ~dim, distance + radius * dice("rim", 0.25, 0.5), 1.0)
    image = image + _cover(pen, core, 1.5) * (tissue["core"] - image)
    tail = np.maximum(np.abs(head.brain + 0.015) - 0.018, _length(pen.x - x, pen.y - y) - 1.7 * radius)
    image = image + _cover(pen, np.where(meningioma, tail, 1.0)) * (tissue["tumour"] - image)
    return image, distance < 0


def _where(dice: _Dice, head: _Head, labels: Array) -> tuple[Array, Array, Array]:
    """Centre and radius of the tumour of each slice's class (of any class for slices without one)."""
    (x0, x1), (y0, y1) = head.deep
    side = dice.side("half") if x0 > 0 else 1.0
    deep = dice("deep x", x0, x1) * side, dice("deep y", y0, y1), dice("glioma size", 0.2, 0.32)

    size, angle = dice("meningioma size", 0.17, 0.27), dice("angle", *head.arc)
    cx, cy, a, b = head.dome
    nx, ny = np.cos(angle) / a, np.sin(angle) / b  # along the outward normal of the ellipse
    inside = size * dice("inside", 0.5, 0.85) / _length(nx, ny)
    dural = cx + a * np.cos(angle) - inside * nx, cy + b * np.sin(angle) - inside * ny, size

    small = dice("pituitary size", 0.12, 0.19)
    sella = head.sella[0] + dice("sella x", -0.02, 0.02), head.sella[1] - 0.4 * (small - 0.1), small
    kinds = [labels == GLIOMA, labels == MENINGIOMA]
    x, y, radius = (np.select(kinds, [d, m], p) for d, m, p in zip(deep, dural, sella))
    return x, y, radius


def _blob(pen: _Pen, x: Array, y: Array, radius: Array, rough: Array) -> Array:
    """About the signed distance to a disc with a wavy outline; `rough` is the height of the waves in radii."""
    dice, dx, dy = pen.dice, pen.x - x, pen.y - y
    angle, waves = np.arctan2(dy, dx), np.zeros((1, 1, 1))
    for k in (2, 3, 5, 7):
        waves = waves + dice(f"wave {k}", 0.2, 1) * np.cos(k * angle + dice(f"wave turn {k}", 0, 2 * np.pi)) / k**0.5
    return _length(dx, dy) - radius * (1 + rough * waves)


# --- the scanner --------------------


def _scan(dice: _Dice, image: Array, seed: int, indices: Array, size: int) -> Array:
    """Bias field, contrast and noise as in magnitude images (Rician), whole grey levels."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    u, v = axis[None, None, :], axis[None, :, None]
    tilt = dice("bias x", -0.15, 0.15) * u + dice("bias y", -0.15, 0.15) * v
    bias = 1 + tilt + dice("bias r", -0.15, 0.1) * (u * u + v * v)
    signal = dice("gain", 0.8, 1.05) * bias * np.clip(image, 0, 1) ** dice("gamma", 0.85, 1.3)
    real, imaginary = _noise(seed, indices, size)
    strength = dice("noise", 0.01, 0.035)
    seen = _length(signal + strength * real, strength * imaginary)
    return (np.clip(seen, 0, 1) * 255 + 0.5).astype(np.uint8)


def _noise(seed: int, indices: Array, size: int) -> tuple[Array, Array]:
    """Two fields of noise of mean 0 and deviation 1, (n, size, size): sums of four random bytes each."""
    bits = hash64(seed, indices[:, None], crc32(b"noise"), np.arange(size * size)[None])
    parts = bits.astype("<u8").view(np.uint8).reshape(len(indices), size, size, 2, 4)
    normal = (parts.sum(-1, dtype=np.float64) - 510) / (4 * (256**2 - 1) / 12) ** 0.5
    return normal[..., 0], normal[..., 1]
