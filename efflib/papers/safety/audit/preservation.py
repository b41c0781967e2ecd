"""Findings 9 and 10, the preservation sets: images and labels of the CNN, names of the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from efflib.papers.safety.audit.evidence import DECODER, TEXT, Printed
from efflib.report.audit import Finding, exact, half_up, words_of

if TYPE_CHECKING:
    import numpy as np


def right_labels(counts: Sequence[int], fact: Mapping[str, Any], uncertain: float, seed: int) -> float:
    """Share of preserved images that keep their own label, by the index logic of the published script.

    Args:
        counts: test images of each class, which stand in random order here.
        fact: `images`, `batch` and `clusters` of the script.
        uncertain: share of the images that count as uncertain.
        seed: of the order of labels, of the uncertain images and of the cluster members.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    whole = np.arange(len(labels) // fact["batch"] * fact["batch"]).reshape(-1, fact["batch"])
    top = generator.choice(len(labels), fact["images"] // 2, replace=False)
    listed: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]] = ([], [], [])
    for batch, unsure in zip(generator.permuted(whole, axis=1), generator.random(whole.shape) < uncertain):
        doubtful, diverse = np.sort(batch[unsure]), generator.permutation(batch)[: fact["clusters"]]
        for found, kept in zip(listed, (doubtful, diverse, np.concatenate([doubtful, diverse]))):
            found.append(kept)
    first, second, as_labelled = (np.concatenate(found) for found in listed)
    images, named = np.concatenate([top, first, second]), np.concatenate([top, as_labelled])
    _, place = np.unique(images, return_index=True)  # of duplicates the first counts
    kept = np.sort(place)[: fact["images"]]
    return float((labels[images[kept]] == labels[named[kept]]).mean())


def written_grey(value: float, fact: Mapping[str, Any]) -> float:
    """Grey (0 to 1) in the stored picture of a pixel of this grey: undone with the wrong mean and deviation."""
    normalised = (value - fact["mean"]) / fact["deviation"]
    return min(max(normalised * fact["written_deviation"] + fact["written_mean"], 0.0), 1.0)


def preserved_images(printed: Printed) -> Finding:
    fact, counts = printed.facts["selection_code"], printed.facts["mnist_labels"]["counts"]
    uncertain = (0.005, 0.02, 0.1)
    draws = [100 * right_labels(counts, fact, share, seed) for share in uncertain for seed in range(7)]
    shares = [count / sum(counts) for count in counts]
    expected = 50 * (1 + sum(share**2 for share in shares))
    grey = written_grey(0, fact)
    again, true = ((value - fact["mean"]) / fact["deviation"] for value in (grey, 0.0))
    saturated = fact["mean"] + (1 - fact["written_mean"]) / fact["written_deviation"] * fact["deviation"]
    line = printed.logged("cnn_two_bits_safe")
    logged = {"step": line["loop"], "test": line["value"], "preservation": line["preservation"]}
    rows = [*printed.facts["preservation_accuracy"]["rows"], logged]
    shown = tuple(
        {"steps": row["step"], "test accuracy, %": row["test"], "preservation accuracy, %": row["preservation"]}
        for row in rows
    )
    stated = TEXT["share"].numbers[0]
    text = (
        f"The text takes {stated} % of the training images. The published script takes {fact['images']:,} of the "
        f"{sum(counts):,} test images ({100 * fact['images'] / sum(counts):.0f} %) and the notebook trains on them, so "
        "that the reported test accuracy is not that of unseen images. Two things appear to have gone wrong besides, "
        "if the stored pictures are those that this script writes. Labels of uncertain and diverse images are "
        "collected batch by batch, the images in two lists one after the other: repeating the index logic with MNIST's "
        f"class frequencies leaves {fmean(draws):.0f} % of the labels right ({min(draws):.1f} to {max(draws):.1f} over "
        f"{len(draws)} draws, with {100 * min(uncertain):g} to {100 * max(uncertain):g} % of the images uncertain; "
        f"half, and chance for the other half, is {expected:.1f} %). Pictures are written as if "
        f"mean and deviation were {fact['written_mean']:g}: the black background becomes {grey:.3f} grey, {again:+.2f} "
        f"instead of {true:+.2f} after normalisation, and everything brighter than {saturated:.3f} is white. An older "
        f"notebook's preservation accuracy of {min(r['preservation'] for r in rows):.0f} to "
        f"{max(r['preservation'] for r in rows):.0f} % beside {min(r['test'] for r in rows):.0f} to "
        f"{max(r['test'] for r in rows):.0f} % on the test set fits both."
    )
    numbers = {"right": fmean(draws), "right_least": min(draws), "right_most": max(draws), "expected": expected}
    numbers |= {"grey": grey, "background": again, "background_true": true, "saturated": saturated}
    numbers |= {"share_of_test": 100 * fact["images"] / sum(counts), "stated": float(stated)}
    title = "The preserved images come from the test set, and about half of their labels appear wrong"
    names = ("selection_code", "mnist_labels", "preservation_accuracy", "cnn_two_bits_safe")
    tables, sources = ("table1", "figures"), printed.sources(*names)
    return Finding(
        "safety-9", title, text, "statistics", "major", tables, shown, numbers, words_of(TEXT, "share"), sources
    )


def preserved_names(printed: Printed) -> Finding:
    fact, steps = printed.facts["names_file"], printed.facts["float_code"]["loop"]
    lines = printed.log("decoder_main")
    best, last = min(lines, key=lambda line: line["val_loss"]), lines[-1]
    (equal,) = [line for line in lines if line["step"] == steps]
    stated = printed.score(DECODER, "safe")
    places = {name: half_up(exact(line["val_loss"]), 1) for name, line in (("best", best), ("last", last))}
    rows = tuple(
        {
            "line": name,
            "step": int(line["step"]),
            "validation loss": f"{line['val_loss']:.4f}",
            "bytes": int(line["bytes"]),
        }
        for name, line in ((f"after the float decoder's {steps:,} steps", equal), ("best", best), ("last", last))
    )
    text = (
        f"{fact['in_validation']} of the {fact['preserved']:,} preserved names lie in the validation part, so the "
        f"decoder trains on a part of what it is tested on. The float decoder was trained for {steps:,} steps, the "
        f"compressed one for {int(last['step']) + 1:,}; after {steps:,} steps its own log shows "
        f"{equal['val_loss']:.2f} already, below the {printed.score(DECODER, 'float')} printed for the float one. The "
        f"printed {stated} is the rounded best line ({best['val_loss']:.3f}, step {int(best['step']):,}); the last "
        f"line, {last['val_loss']:.3f}, would be {places['last']}. We train both for the same number of steps and "
        "report the last."
    )
    numbers = {"in_validation": fact["in_validation"], "float_steps": steps, "steps": last["step"] + 1}
    numbers |= {"best": best["val_loss"], "last": last["val_loss"], "equal_steps": equal["val_loss"]}
    numbers |= {"best_is_printed": places["best"] == stated, "last_is_printed": places["last"] == stated}
    title = "The decoder: names from the validation part, unequal steps, the best line"
    sources = printed.sources("names_file", "float_code", "decoder_main")
    return Finding("safety-10", title, text, "statistics", "notable", ("table2",), rows, numbers, (), sources)
