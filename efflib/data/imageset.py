"""ImageSet, the one thing every data source gives, and stratified choices from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from efflib.data.counter import hash64


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one split, in memory.

    Args:
        name: data set, e.g. "cifar10".
        split: "train", "validation" or "test" ("rendered" for `render_objects`).
        images: uint8 (N, H, W, C).
        labels: int64 (N,), positions in `classes`.
        classes: names of the classes.
        indices: int64 (N,), lasting number of each image within its split; `take` keeps it.
        fingerprint: hash of source bytes, decoder, pixels and labels of the split these images come from.
        variant: what differs from the official distribution, see `efflib.data.load_dataset`.
        masks: bool (N, H, W), the true object pixels, or None.
        boxes: float32 (N, 4), x0 y0 x1 y1 in pixels, x1 and y1 exclusive, or None.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    indices: np.ndarray
    fingerprint: str
    variant: str
    masks: np.ndarray | None = None
    boxes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(f"images are {self.images.dtype} {self.images.shape}, need uint8 (N, H, W, C)")
        N, H, W, _ = self.images.shape
        wanted = {"labels": (N,), "indices": (N,), "masks": (N, H, W), "boxes": (N, 4)}
        for field, shape in wanted.items():
            value = getattr(self, field)
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"{field} have shape {value.shape}, need {shape} to go with images {self.images.shape}"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape))
        return f"ImageSet({self.name} {self.split}: {shape}, {len(self.classes)} classes, {self.variant})"

    def take(self, positions: npt.ArrayLike) -> ImageSet:
        """The images at these positions, in this order, with their lasting indices; the fingerprint stays.

        Args:
            positions: int array or list (M,), 0 .. N-1, or a bool array (N,).

        Raises:
            IndexError: a position outside 0 .. N-1, or something that is no position.
        """
        chosen = np.asarray(positions)
        if chosen.dtype == bool and chosen.shape == (len(self),):
            chosen = np.flatnonzero(chosen)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        bad = chosen.ndim != 1 or chosen.dtype.kind not in "iu"
        if bad or (chosen.size and (chosen.min() < 0 or chosen.max() >= len(self))):
            raise IndexError(f"positions must be whole numbers 0..{len(self) - 1} in one row, got {positions!r}")
        fields = ("images", "labels", "indices", "masks", "boxes")
        return replace(self, **{f: getattr(self, f)[chosen] for f in fields if getattr(self, f) is not None})


def fingerprint(sources: list[str], images: np.ndarray, labels: np.ndarray) -> str:
    """sha256 over what the pixels were made from (digests, decoder), the pixels and the labels."""
    digest = hashlib.sha256()
    for text in (*sources, str(images.shape)):
        digest.update(text.encode() + b"\0")
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def _shares(sizes: np.ndarray, count: int, room: np.ndarray) -> np.ndarray:
    """Split count over classes in proportion to sizes: 1 to room[k] for class k, exactly count in all."""
    ideal = count * sizes / sizes.sum()
    shares = np.clip(np.floor(ideal).astype(np.int64), 1, room)
    while shares.sum() != count:
        step = 1 if shares.sum() < count else -1
        allowed = shares < room if step == 1 else shares > 1
        short = np.where(allowed, step * (ideal - shares), -np.inf)
        shares[np.argmax(short)] += step  # the class furthest from its ideal; the lowest label where they tie
    return shares


def _choose(labels: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Sorted positions: of every class the shares[k] images with the smallest hash of (seed, position)."""
    chosen = []
    for value, share in zip(np.unique(labels), shares):
        members = np.flatnonzero(labels == value)
        chosen.append(members[np.argsort(hash64(seed, members), kind="stable")[:share]])
    return np.sort(np.concatenate(chosen))


def _checked(labels: npt.ArrayLike, count: int, keep: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not labels.size:
        raise ValueError(f"labels have shape {labels.shape}, need one row of at least one label")
    sizes = np.unique(labels, return_counts=True)[1]
    most = len(labels) - keep * len(sizes)
    if not isinstance(count, (int, np.integer)) or not len(sizes) <= count <= most or sizes.min() < 2 * keep:
        raise ValueError(
            f"cannot {what} {count!r} of {len(labels)} images of {len(sizes)} classes (the smallest has "
            f"{sizes.min()}): choose a whole number {len(sizes)}..{most}, one of each class or more per side"
        )
    return labels, sizes


def holdout(labels: npt.ArrayLike, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Set aside images, class by class in proportion.

    Args:
        labels: int (N,).
        count: how many to hold out; classes differ by rounding only.
        seed: any integer; the same one gives the same choice on every machine.

    Returns:
        (kept, held): positions, int64, both sorted, together 0 .. N-1.

    Raises:
        ValueError: count below the number of classes, or so large that a class would have nothing left.
    """
    labels, sizes = _checked(labels, count, 1, "hold out")
    held = _choose(labels, _shares(sizes, int(count), sizes - 1), seed)
    kept = np.setdiff1d(np.arange(len(labels)), held)
    return kept, held


def subset(labels: npt.ArrayLike, count: int, seed: int) -> np.ndarray:
    """Choose images, class by class in proportion.

    Args:
        labels: int (N,).
        count: how many, from the number of classes to N.
        seed: any integer; the same one gives the same choice on every machine.

    Returns:
        Positions, int64 (count,), sorted.

    Raises:
        ValueError: fewer than one image per class, or more than there are.
    """
    labels, sizes = _checked(labels, count, 0, "choose")
    return _choose(labels, _shares(sizes, int(count), sizes), seed)
