"""What the safety chapter shows of one run: what is preserved, which channels go, what the packed file holds."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython.display import HTML
from torch import Tensor, nn

from efflib.data import NORMALISATION, embedded_names
from efflib.models import evaluating
from efflib.papers.safety.preservation import bigram_scores
from efflib.papers.safety.recipes import CODE_SHARE, new_model
from efflib.papers.safety.scene import Scene, page_table
from efflib.papers.safety.selection import REASONS, Scores, Selection, score_images, select
from efflib.quantize import (
    PackedFileError,
    Removal,
    load_packed,
    load_packed_into,
    quantized_layers,
    remove_dead,
    save_packed,
    soft_bytes,
    tight_bytes,
    tighten,
)
from efflib.report.figures import image_grid
from efflib.report.html import html_table, sentence

# --- the preservation set ---------------------------------------------------------------------------------

WHY = {
    "evidence": "evidence\nspread widest",
    "uncertain": "uncertain\nsmallest margin",
    "diverse": "diverse\nnear a centroid",
}


@dataclass(frozen=True)
class Preserved:
    """Scores of the training images by the float network, and the images chosen by them."""

    scores: Scores
    chosen: Selection

    def places(self, reason: str) -> np.ndarray:
        """Positions of the images chosen for a reason, in order of choice."""
        return self.chosen.positions[[why == reason for why in self.chosen.reasons]]


def preserved(shown: Scene) -> Preserved:
    """The preservation set, as the recorded run chose it."""
    settings = shown.settings
    layers: Any = shown.twin.quantizable
    scores = score_images(shown.twin, shown.train, *NORMALISATION[settings.dataset], layers[-1])
    count = int(CODE_SHARE * len(shown.train) + 0.5)
    return Preserved(scores, select(scores, count, len(shown.train.classes), settings.seed))


def preserved_strip(shown: Scene, found: Preserved, images: int = 8) -> Any:
    """Figure: the first preserved images of each kind; the last line has images that were not chosen."""
    others = np.setdiff1d(np.arange(len(shown.train)), found.chosen.positions)
    lines = {WHY[reason]: found.places(reason)[:images] for reason in REASONS} | {"not chosen": others[:images]}
    rows = [[_rgb(shown.train.images[place]) for place in places] for places in lines.values()]
    counts = ", ".join(f"{reason} {count}" for reason, count in found.chosen.counts().items())
    alt = f"Digits of the preservation set by reason ({counts} images), and digits that were not chosen"
    return image_grid(rows, [""] * images, list(lines), alt)


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.broadcast_to(image.reshape(*image.shape[:2], -1)[:, :, :1], (*image.shape[:2], 3))


def preserved_table(shown: Scene, found: Preserved) -> Any:
    """Table: what tells the chosen images from the others."""
    places = {reason: found.places(reason) for reason in REASONS}
    places |= {"the whole set": found.chosen.positions, "all training images": np.arange(len(shown.train))}
    right = found.scores.prediction.numpy() == shown.train.labels
    rows = [
        {
            "images": name,
            "how many": len(where),
            "mean spread of the evidence": f"{found.scores.spread.numpy()[where].mean():.2f}",
            "mean margin": f"{found.scores.margin.numpy()[where].mean():.3f}",
            "float network right": f"{100 * right[where].mean():.1f} %",
            "different digits": len(set(shown.train.labels[where].tolist())),
        }
        for name, where in places.items()
    ]
    return page_table(rows, "Preserved training images, by the reason they were chosen for", "preserved")


def names_table(shown: int = 8) -> Any:
    """Table: the training names with the lowest bigram scores, and those with the highest."""
    names = embedded_names().split().train.names
    scores = bigram_scores(names)
    order = np.argsort(scores, kind="stable")
    pairs = bigram_probabilities(names)
    rows = []
    for what, places in (("preserved first", order[:shown]), ("last of all", order[::-1][:shown])):
        for place in places:
            name = names[place]
            rarest = min((name[i : i + 2] for i in range(len(name) - 1)), key=lambda pair: pairs[pair])
            rows.append(
                {"": what, "name": name, "score": f"{scores[place]:.4f}"}
                | {"rarest pair": rarest, "probability of its second letter": f"{pairs[rarest]:.4f}"}
            )
    return page_table(rows, f"Lowest and highest scores of {len(names):,} embedded training names", "bigrams")


def bigram_probabilities(names: Sequence[str]) -> dict[str, float]:
    """Pair of letters -> probability of the second one given the first, counted inside the names."""
    counts: dict[str, int] = {}
    firsts: dict[str, int] = {}
    for name in names:
        for i in range(len(name) - 1):
            counts[name[i : i + 2]] = counts.get(name[i : i + 2], 0) + 1
            firsts[name[i]] = firsts.get(name[i], 0) + 1
    return {pair: count / firsts[pair[0]] for pair, count in counts.items()}


def events_table(metrics: Mapping[str, Any], most: int = 12) -> Any:
    """Table: the first restorations of a run that was noted as often as it was checked."""
    events = metrics["events"]
    if not events:
        return sentence(f"None of the {metrics['checks']:g} checks of this run found a violation.")
    curves = metrics["curves"]
    later = dict(zip(curves["step"], curves["preservation"][1:], strict=False))  # step -> score at the next note
    rows = [
        {
            "step": event["step"],
            "layer": event["layer"],
            "channels": ", ".join(map(str, event["channels"])),
            "bits before": _bits_text(event["before"]),
            "bits after": _bits_text(event["after"]),
            "preserved images right": f"{event['score']:.1f} %",
            "at the next note": f"{later[event['step']]:.1f} %" if event["step"] in later else "",
        }
        for event in events[:most]
    ]
    caption = (
        f"Restorations of this page's run, the first {len(rows)} of {len(events)}: {metrics['violations_restored']:g} "
        f"of {metrics['checks']:g} checks restored bits, {metrics['mean_bits_given_back']:.2f} in the mean"
    )
    return page_table(rows, caption, "events")


def _bits_text(bits: Sequence[float]) -> str:
    return ", ".join(f"{max(b, 0.0):.2f}" for b in bits)


# --- removal ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Removed:
    """before: the network with its dead channels. after: the same without them. removal: what went. forced: channels
    that were put to 0 bits by hand, because none had died."""

    before: nn.Module
    after: nn.Module
    removal: Removal
    forced: dict[str, int]


def removed(shown: Scene) -> Removed:
    """Take the dead channels out of the compressed network.

    Where none died, the weakest of conv3 is put to 0 bits first.
    """
    before = copy.deepcopy(shown.compressed)
    layers, forced = quantized_layers(before), {}
    if all(bool(layer.alive().all()) for layer in layers.values()):
        weakest = int(layers["conv3"].bits.detach().flatten().argmin())
        layers["conv3"].bits.data[weakest] = 0.0
        forced = {"conv3": weakest}
    shown.task.recalibrate(before)  # else batch norm would turn a dead channel into a constant
    after = copy.deepcopy(before)
    return Removed(before, after, remove_dead(after), forced)


def removed_table(shown: Scene, found: Removed) -> Any:
    """Table: channels and weights of each layer before and after removal, and whether the logits stayed."""
    gone = found.removal.removed
    small = quantized_layers(found.after)
    rows = [
        {
            "layer": name,
            "channels": layer.weight.shape[0],
            "dead": ", ".join(map(str, gone.get(name, []))) or "none",
            "left": small[name].weight.shape[0],
            "weights": f"{layer.weight.numel():,}",
            "weights left": f"{small[name].weight.numel():,}",
        }
        for name, layer in quantized_layers(found.before).items()
    ]
    x = shown.task.test.x
    apart = float((logits(found.before, x) - logits(found.after, x)).abs().max())
    by_hand_ = "; one channel was put to 0 bits by hand, since none had died" if found.forced else ""
    caption = (
        f"Dead channels removed{by_hand_}. Logits of {len(x)} test images "
        f"{'stay' if apart < 1e-5 else 'DO NOT stay'} within 0.00001"
    )
    return page_table(rows, caption, "removed")


@torch.no_grad()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    """In eval mode."""
    with evaluating(model):
        return model(x)


# --- the packed file --------------------------------------------------------------------------------------


def packed_tables(shown: Scene, found: Removed, images: int = 100) -> Any:
    """Tables: parts of the compressed network's file beside the accounting; checks of what is read back and refused."""
    small = copy.deepcopy(found.after)
    tighten(small)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.packed"
        parts = save_packed(small, path)
        content = path.read_bytes()
        fresh = load_packed_into(new_model(shown.settings), path)
        again = [torch.from_numpy(layer.weight) for layer in load_packed(path).layers]
        refused = [_refused(path, *each) for each in _damaged(content)]
    whole = 4 * sum(parameter.numel() for parameter in new_model(shown.settings).parameters())
    rows = [
        {
            "part": "header with length and checksum",
            "bytes": f"{parts.total - parts.payload - parts.side - parts.rest:,}",
        },
        {"part": "codes", "bytes": f"{parts.payload:,}"},
        {"part": "shapes, bitmaps, widths and steps of the channels", "bytes": f"{parts.side:,}"},
        {"part": "all other numbers: classifier, batch norm", "bytes": f"{parts.rest:,}"},
        {"part": "whole file", "bytes": f"{parts.total:,}"},
        {"part": "for comparison: the float network", "bytes": f"{whole:,}"},
        {
            "part": "soft size, which counts bits of the quantised weights only",
            "bytes": f"{soft_bytes(found.before):,.0f}",
        },
    ]
    layers = quantized_layers(small).values()
    same = all(torch.equal(layer.quantized_weight().detach(), read) for layer, read in zip(layers, again, strict=True))
    x = shown.task.test.x[:images]
    checks = [
        {"check": "bytes on disk are the sum of the parts", "holds": len(content) == parts.total},
        {"check": "codes take what the accounting says (tight bytes)", "holds": parts.payload == tight_bytes(small)},
        {"check": "every quantised weight is read back bit by bit", "holds": same},
        {
            "check": f"logits of {images} test images are identical, network read back against network written",
            "holds": torch.equal(logits(small, x), logits(fresh, x)),
        },
    ]
    return HTML(
        html_table(rows, "The packed file of this page's compressed network", "safety-packed-parts")
        + html_table(checks, "Written and read back", "safety-packed-checks")
        + html_table(refused, "What the reader says to a file that is not as it was written", "safety-packed-refused")
    )


def _damaged(content: bytes) -> list[tuple[str, bytes]]:
    """Files that must be refused: what was done, and their bytes."""

    def flipped(place: int) -> bytes:
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return [
        ("one bit flipped in the first byte", flipped(0)),
        ("one bit flipped in the version", flipped(4)),
        ("one bit flipped in the middle", flipped(len(content) // 2)),
        ("one bit flipped in the last byte", flipped(len(content) - 1)),
        ("the last byte missing", content[:-1]),
    ]


def _refused(path: Path, what: str, content: bytes) -> dict[str, str]:
    path.write_bytes(content)
    try:
        load_packed(path)
    except PackedFileError as problem:
        return {"file": what, "answer": str(problem).partition("cannot be used: ")[2]}
    return {"file": what, "answer": "ACCEPTED"}
