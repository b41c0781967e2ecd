"""Rendered pictures: coloured, textured objects on cluttered backgrounds, with the true object pixels.

Ten outlines, drawn as distance fields (so edges are smooth at any size without supersampling). Colour,
texture, position, size and turn vary from picture to picture; only the outline tells the class reliably.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from efflib.data.counter import hash64, uniform
from efflib.data.imageset import ImageSet, fingerprint

CLASSES = ("arrow", "crescent", "cross", "disc", "drop", "heart", "ring", "square", "star", "triangle")
RENDERER_VERSION = 1
Array = np.ndarray
CHUNK = 128  # pictures drawn at once: the working arrays stay in the processor's cache


@dataclass(frozen=True)
class Difficulty:
    """How hard rendered pictures are; every value is checked when the object is made.

    Args:
        clutter: 0 (plain background) to 1 (up to twelve sticks, blobs and arcs behind the object).
        texture: 0 (flat object) to 1 (stripes, checks, dots, blotches); it says nothing about the class.
        contrast: least difference in brightness between object and background, 0 to 0.5.
        colour_overlap: 0 (each class has its own hue) to 1 (hue says nothing about the class).
        scale: least and largest diameter of the object as a fraction of the picture, within (0, 1].
        rotation: largest turn to either side, in degrees.
        occlusion: probability (0 to 1) that a stick crosses the object; hidden pixels leave the mask.
        noise: standard deviation of the pixel noise as a fraction of full brightness, 0 to 0.3.
    """

    clutter: float = 0.2
    texture: float = 0.3
    contrast: float = 0.3
    colour_overlap: float = 0.6
    scale: tuple[float, float] = (0.7, 1.0)
    rotation: float = 12.0
    occlusion: float = 0.1
    noise: float = 0.02

    def __post_init__(self) -> None:
        limits = {"clutter": 1, "texture": 1, "contrast": 0.5, "colour_overlap": 1, "occlusion": 1}
        limits |= {"rotation": 180, "noise": 0.3}
        for name, top in limits.items():
            if not 0 <= getattr(self, name) <= top:
                raise ValueError(f"{name}={getattr(self, name)} is outside 0..{top}")
        low, high = self.scale
        if not 0.2 <= low <= high <= 1:
            raise ValueError(f"scale={self.scale} must be (least, largest) with 0.2 <= least <= largest <= 1")


class _Dice:
    """One number in [low, high) per picture and name, shaped (n, 1, 1) to meet the pixels."""

    def __init__(self, seed: int, indices: np.ndarray) -> None:
        self.seed, self.indices = seed, indices

    def __call__(self, name: str, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        # Named, not numbered: a new property leaves all others as they were.
        number = uniform(self.seed, self.indices, crc32(name.encode()))
        return (low + (high - low) * number).astype(np.float32)[:, None, None]

    def pick(self, name: str, count: int) -> np.ndarray:
        return (self(name) * count).astype(np.int64)[:, 0, 0]


def render_objects(
    count: int, seed: int, size: int = 32, difficulty: Difficulty | None = None, first: int = 0
) -> ImageSet:
    """Draw pictures of ten kinds of objects with their true masks and boxes.

    Picture i depends on (seed, i, size, difficulty) only, never on how many are drawn; its class is i mod 10.

    Args:
        count: number of pictures N.
        seed: any integer.
        size: height and width in pixels, at least 16.
        difficulty: see `Difficulty`; None gives the default.
        first: index of the first picture.

    Returns:
        ImageSet with images (N, size, size, 3), masks (N, size, size): the visible object pixels, boxes
        (N, 4): (x0, y0, x1, y1) in pixels around the mask, x1 and y1 exclusive; indices count from `first`.

    Raises:
        ValueError: count below 1, size below 16, first below 0.
    """
    if count < 1 or size < 16 or first < 0:
        raise ValueError(f"count={count}, size={size}, first={first}: need count >= 1, size >= 16 and first >= 0")
    difficulty = difficulty or Difficulty()
    indices = np.arange(first, first + count, dtype=np.int64)
    parts = [_render(indices[i : i + CHUNK], seed, size, difficulty) for i in range(0, count, CHUNK)]
    images, masks = (np.concatenate(p) for p in zip(*parts))
    labels = indices % len(CLASSES)
    return ImageSet(
        name=f"objects{size}",
        split="rendered",
        images=images,
        labels=labels,
        classes=CLASSES,
        indices=indices,
        fingerprint=fingerprint([f"objects renderer {RENDERER_VERSION}"], images, labels),
        variant="embedded",
        masks=masks,
        boxes=boxes_of(masks),
    )


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Smallest boxes around masks (N, H, W): float32 (N, 4), x0 y0 x1 y1 in pixels, x1 and y1 exclusive."""
    _, H, W = masks.shape
    columns, rows = np.asarray(masks.any(1)), np.asarray(masks.any(2))  # (N, W), (N, H)
    edges = [columns.argmax(1), rows.argmax(1), W - columns[:, ::-1].argmax(1), H - rows[:, ::-1].argmax(1)]
    return np.stack(edges, 1).astype(np.float32)


# --- one chunk of pictures --------------------


def _render(indices: np.ndarray, seed: int, size: int, hard: Difficulty) -> tuple[np.ndarray, np.ndarray]:
    dice = _Dice(seed, indices)
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    y, x = axis[None, :, None], axis[None, None, :]  # picture coordinates, -1..1, y downwards
    half = size / 2  # pixels per unit

    radius, u, v = _place(dice, x, y, hard)
    distance = _outlines(indices % len(CLASSES), u, v) * radius * half  # pixels, negative inside
    cover = np.clip(0.5 - distance, 0, 1)

    paint = _object_colour(dice, indices % len(CLASSES), hard)
    ground = _background(dice, x, y, paint, half, hard)
    surface = _surface(dice, u, v, distance, paint, hard)
    # A soft shadow keeps the object readable on a busy ground.
    shadow = 1 - 0.3 * np.clip(0.5 - (distance - 1.5) / 3, 0, 1)
    image = ground * shadow[..., None] * (1 - cover[..., None]) + surface * cover[..., None]

    hidden = _stick_across(dice, u, v, radius, half, hard)
    stick = _colour(dice, "stick", (0.1, 0.7), (0.15, 0.95))
    image += hidden[..., None] * (stick - image)
    image = image + hard.noise * _noise(seed, indices, size)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), (cover > 0.5) & (hidden < 0.5)


def _place(dice: _Dice, x: Array, y: Array, hard: Difficulty) -> tuple[Array, Array, Array]:
    """Radius in picture units and the object's own coordinates (n, H, W), in which outlines reach about 1."""
    radius = dice("radius", *hard.scale)
    room = 1 - 0.95 * radius  # the object may touch the border, hardly cross it
    cx, cy = room * dice("cx", -1, 1), room * dice("cy", -1, 1)
    turn = np.deg2rad(dice("turn", -hard.rotation, hard.rotation)).astype(np.float32)
    dx, dy = (x - cx) / radius, (y - cy) / radius
    cos, sin = np.cos(turn), np.sin(turn)
    return radius, cos * dx + sin * dy, cos * dy - sin * dx


def _hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """(n, 1, 1) each -> (n, 1, 1, 3) red, green, blue in 0..1."""
    k = (np.array([5, 3, 1], np.float32) + hue[..., None] * 6) % 6
    return value[..., None] * (1 - saturation[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def _colour(dice: _Dice, name: str, saturation: tuple, value: tuple) -> Array:
    return _hsv(dice(f"{name} hue"), dice(f"{name} saturation", *saturation), dice(f"{name} value", *value))


def _brightness(colour: Array) -> Array:
    return colour @ np.array([0.299, 0.587, 0.114], np.float32)


def _object_colour(dice: _Dice, labels: Array, hard: Difficulty) -> Array:
    own = (labels[:, None, None] * 3 % 10).astype(np.float32) / 10  # neighbours in the list get distant hues
    hue = (own + hard.colour_overlap * dice("hue", -0.5, 0.5)) % 1
    return _hsv(hue, dice("saturation", 0.45, 0.95), dice("value", 0.45, 1.0))


def _surface(dice: _Dice, u: Array, v: Array, distance: Array, paint: Array, hard: Difficulty) -> Array:
    """The object's own pixels: two tones in a pattern, lit from one side, darker at the rim."""
    pattern = _pattern(dice, "surface", u, v)
    tone = _hsv(dice("tone hue"), dice("tone saturation", 0.1, 0.9), dice("tone value", 0.1, 1.0))
    mix = hard.texture * dice("tone", 0.5, 1.0) * pattern
    light = 1 + 0.22 * (dice("light x", -1, 1) * u - dice("light y", 0.2, 1) * v)
    rim = 0.65 + 0.35 * np.clip(-distance / 2, 0, 1)
    return (paint + mix[..., None] * (tone - paint)) * (light * rim)[..., None]


def _background(dice: _Dice, x: Array, y: Array, paint: Array, half: float, hard: Difficulty) -> Array:
    """A cloudy, faintly patterned two-coloured ground with clutter, unlike the object in brightness."""
    one, two = (_colour(dice, f"ground {k}", (0.05, 0.65), (0.15, 0.95)) for k in "ab")
    cloud = _cloud(dice, "cloud", x, y, 1.2)
    mix = cloud + 0.5 * (_pattern(dice, "ground", 1.6 * x, 1.6 * y) - 0.5) * hard.texture
    ground = one + np.clip(mix, 0, 1)[..., None] * (two - one)
    for k in range(round(12 * hard.clutter)):
        shape = _clutter(dice, f"clutter {k}", x, y, half)[..., None]
        ground += shape * (_colour(dice, f"clutter {k}", (0.1, 0.95), (0.1, 1.0)) - ground)
    here, there = _brightness(paint), _brightness(ground).mean((1, 2), keepdims=True)
    away = np.where(here > 0.5, -1, 1)  # darker behind a bright object: there is more room on that side
    push = np.where(np.abs(here - there) < hard.contrast, hard.contrast - away * (there - here), 0)
    return np.clip(ground + (away * push)[..., None], 0, 1)


def _clutter(dice: _Dice, name: str, x: Array, y: Array, half: float) -> Array:
    """Cover (n, H, W) of one stick, blob or arc; one in three pictures goes without it."""
    cx, cy, turn = dice(f"{name} x", -1, 1), dice(f"{name} y", -1, 1), dice(f"{name} turn", 0, np.pi)
    dx, dy = x - cx, y - cy
    along, across = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    length, width = dice(f"{name} length", 0.1, 0.7), dice(f"{name} width", 0.03, 0.12)
    kind = dice(f"{name} kind")
    stick = np.hypot(np.maximum(np.abs(along) - length, 0), across) - width
    blob = (np.hypot(along / (4 * width), across / (1.7 * width)) - 1) * 1.7 * width  # never as round as a disc
    arc = np.maximum(np.abs(np.hypot(along, across) - 0.5 - length) - 0.7 * width, 0.3 - along)  # never a whole ring
    distance = np.where(kind < 0.45, stick, np.where(kind < 0.75, blob, arc))
    return np.clip(0.5 - distance * half, 0, 1) * (dice(f"{name} there") < 0.67)


def _stick_across(dice: _Dice, u: Array, v: Array, radius: Array, half: float, hard: Difficulty) -> Array:
    turn = dice("stick turn", 0, np.pi)
    across = np.cos(turn) * v - np.sin(turn) * u - dice("stick offset", -0.45, 0.45)
    distance = (np.abs(across) - dice("stick width", 0.08, 0.16)) * radius * half
    return np.clip(0.5 - distance, 0, 1) * (dice("stick there") < hard.occlusion)


def _cloud(dice: _Dice, name: str, x: Array, y: Array, frequency: float) -> Array:
    """A slowly varying number in 0..1 from four waves, (n, H, W)."""
    total = np.zeros((1, 1, 1), np.float32)
    for k in range(4):
        turn, phase = dice(f"{name} turn {k}", 0, 2 * np.pi), dice(f"{name} phase {k}", 0, 2 * np.pi)
        total = total + np.sin(frequency * (k + 1) * (np.cos(turn) * x + np.sin(turn) * y) + phase)
    return 0.5 + total / 5


def _pattern(dice: _Dice, name: str, u: Array, v: Array) -> Array:
    """Stripes, checks, dots, blotches or nothing, one kind per picture: 0..1, (n, H, W)."""
    kind = dice.pick(f"{name} pattern", 5)
    frequency, phase = dice(f"{name} frequency", 4, 9), dice(f"{name} phase", 0, 2 * np.pi)
    turn = dice(f"{name} pattern turn", 0, np.pi)
    p = (np.cos(turn) * u + np.sin(turn) * v) * frequency + phase
    q = (np.cos(turn) * v - np.sin(turn) * u) * frequency + phase
    out = np.zeros(p.shape, np.float32)
    makers = [
        lambda p, q: 0.5 + 0.5 * np.clip(2 * np.sin(1.5 * p), -1, 1),  # stripes
        lambda p, q: 0.5 + 0.5 * np.clip(3 * np.sin(p) * np.sin(q), -1, 1),  # checks
        lambda p, q: np.clip(1.5 * (np.sin(1.3 * p) + np.sin(1.3 * q)) - 0.8, 0, 1),  # dots
        lambda p, q: 0.5 + 0.3 * np.sin(p + 1.7 * np.sin(0.8 * q)) + 0.2 * np.sin(1.9 * q - p),  # blotches
    ]
    for number, make in enumerate(makers):
        chosen = kind == number
        out[chosen] = make(p[chosen], q[chosen])
    return out


def _noise(seed: int, indices: Array, size: int) -> Array:
    """Noise of mean 0 and deviation 1, (n, size, size, 3): sums of four random bytes each."""
    bits = hash64(seed, indices[:, None], crc32(b"noise"), np.arange(size * size * 3)[None])
    parts = bits.view(np.uint8).reshape(len(indices), size, size, 3, 8)[..., :4]
    return (parts.sum(-1, dtype=np.float32) - 510) / np.float32(147.8)  # sqrt(4 (256^2 - 1) / 12)


# --- outlines: signed distances in the object's own coordinates, v downwards --------------------


def _outlines(labels: Array, u: Array, v: Array) -> Array:
    out = np.empty(u.shape, np.float32)
    for label, name in enumerate(CLASSES):
        chosen = labels == label
        if chosen.any():
            out[chosen] = OUTLINES[name](u[chosen], v[chosen])
    return out


def _polygon(u: Array, v: Array, sides: int, inradius: float) -> Array:
    angle = np.arctan2(u, v)  # 0 points down: a flat side lies at the bottom
    wedge = 2 * np.pi / sides
    return np.hypot(u, v) * np.cos((angle + wedge / 2) % wedge - wedge / 2) - inradius


def _box(u: Array, v: Array, a: float, b: float) -> Array:
    return np.maximum(np.abs(u) - a, np.abs(v) - b)


def _arrow(u: Array, v: Array) -> Array:
    head = np.maximum((np.abs(u) * 0.8 - (v + 0.95) * 0.75) / 1.1, v - 0.05)
    return np.minimum(head, _box(u, v - 0.45, 0.27, 0.5))


def _crescent(u: Array, v: Array) -> Array:
    return np.maximum(np.hypot(u + 0.1, v) - 0.92, 0.85 - np.hypot(u - 0.55, v))


def _cross(u: Array, v: Array) -> Array:
    return np.minimum(_box(u, v, 0.9, 0.29), _box(u, v, 0.29, 0.9))


def _drop(u: Array, v: Array) -> Array:
    ball = np.hypot(u, v - 0.35) - 0.57
    sin = 0.57 / 1.35  # the two straight sides from the tip at -1 touch the ball
    cone = np.maximum(np.abs(u) * np.sqrt(1 - sin**2) - (v + 1) * sin, v - 0.35 + 0.57 * sin)
    return np.minimum(ball, cone)


def _heart(u: Array, v: Array) -> Array:
    a, b = (u + v - 0.1) / np.sqrt(2), (v - u - 0.1) / np.sqrt(2)  # a square on its corner ...
    s = 0.53
    lobes = np.minimum(np.hypot(a + s, b), np.hypot(a, b + s)) - s  # ... and a disc on each upper side
    return np.minimum(_box(a, b, s, s), lobes)


def _star(u: Array, v: Array) -> Array:
    wedge = np.pi / 5
    angle = np.abs((np.arctan2(u, -v) + wedge) % (2 * wedge) - wedge)  # 0 at a tip, wedge at a notch
    p, q = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    ex, ey = 0.42 * np.cos(wedge) - 1, 0.42 * np.sin(wedge)  # from tip (1, 0) to notch
    return ((p - 1) * ey - q * ex) / np.hypot(ex, ey)


OUTLINES = {
    "arrow": _arrow,
    "crescent": _crescent,
    "cross": _cross,
    "disc": lambda u, v: np.hypot(u, v) - 0.85,
    "drop": _drop,
    "heart": _heart,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.7) - 0.22,
    "square": lambda u, v: _box(u, v, 0.74, 0.74),
    "star": _star,
    "triangle": lambda u, v: _polygon(u, v - 0.15, 3, 0.52),
}
