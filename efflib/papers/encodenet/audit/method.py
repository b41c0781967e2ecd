"""Findings 17, 18 and 20 to 22, the method: what it imports, its freezing, choices left open, and entropies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from efflib.models import parameters_of
from efflib.papers.encodenet.audit.counting import forward
from efflib.papers.encodenet.audit.evidence import TEXT, Printed
from efflib.report.audit import Finding, words_of

# --- what the method imports, and its freezing ------------------------------------------------------------


def pretrained_network(printed: Printed) -> Finding:
    fact = printed.facts["vgg16"]
    whole, convolutions = vgg16_parameters(fact)
    teachers = {m: parameters_of(m, 100) for m in ("vgg16", "resnet110")}
    ratio = convolutions / max(teachers.values())
    text = (
        "EncodeNet is said to need no large teacher. Its clusters come from a VGG16 that was trained on ImageNet, an "
        f"external network of {whole / 1e6:.0f} M parameters ({convolutions / 1e6:.1f} M in the layers used), while "
        f"the teachers of Table 4 have {' and '.join(f'{n / 1e6:.1f}' for n in teachers.values())} M. With three "
        "clusters per class, its sub-labels bring knowledge from another data set into the training; the peers have "
        "none of it."
    )
    numbers = {"parameters": whole, "convolutions": convolutions, "of_largest_teacher": ratio}
    numbers |= {f"teacher_{m}": n for m, n in teachers.items()}
    title = "The clusters come from a network pretrained on ImageNet"
    quotes = (
        *words_of(TEXT, "no_teacher"),
        "we extracted important features of the input image using a VGG-16 [36] model trained on ImageNet",
    )
    sources = printed.sources("vgg16")
    return Finding("encodenet-17", title, text, "text", "notable", ("table2", "table4"), (), numbers, quotes, sources)


def vgg16_parameters(shape: Mapping[str, Any]) -> tuple[int, int]:
    """(all parameters, those of the convolutions) of the ImageNet VGG16 for images of 224 pixels.

    Args:
        shape: convolutions per block, widths of the blocks, units of the linear layers.
    """
    inputs, convolutions = 3, 0
    for count, width in zip(shape["convolutions"], shape["widths"]):
        for _ in range(count):
            convolutions += 9 * inputs * width + width
            inputs = width
    side = 224 // 2 ** len(shape["widths"])
    units = [side * side * inputs, *shape["hidden"]]
    return convolutions + sum(a * b + b for a, b in pairwise(units)), convolutions


def identity_target(printed: Printed) -> Finding:
    values = {t: printed.value("table3", target=t) for t in ("identity", "class", "cluster")}
    base = printed.value("table3", method="baseline")
    rows: list[dict[str, Any]] = [{"target": t, "accuracy": v, "gain": v - base} for t, v in values.items()]
    whole, classes = parameters_of("resnet18", 10), 10
    head = (forward("resnet18")[1] + 1) * classes  # a linear layer with bias
    prior = "-".join(str(number) for number in TEXT["prior"].numbers)
    text = (
        "With its input as target, an autoencoder sees no label. If its encoder is then frozen, as the text says, "
        f"labels reach the {head:,} parameters of the linear layer only, {100 * head / whole:.3f} % of ResNet18's "
        f"{whole:,}. We expect a linear layer on features of a reconstruction to stay far below "
        f"{rows[0]['accuracy']:.2f} % (and measure it), yet this row is only {-rows[0]['gain']:.2f} points below the "
        "fully trained baseline. (The targets of the other two rows are codes of the label, so that a frozen encoder "
        f"is plausible there; with such targets the prior work's autoencoder is said to have reached {prior} % on "
        "CIFAR-10.) The number is easy to explain if the encoder was fine-tuned, as the code of the prior work does, "
        "which freezes nothing; or if it started from the trained baseline and moved little. We run the literal "
        "reading and these."
    )
    numbers = {f"gain_{row['target']}": float(row["gain"]) for row in rows}
    numbers |= {"head": head, "all": whole, "share": 100 * head / whole}
    title = "The identity row does not fit a frozen encoder"
    quotes, sources = words_of(TEXT, "freezing", "identity", "prior", "retrained"), printed.sources("prior_code")
    return Finding("encodenet-18", title, text, "formulas", "major", ("table3",), tuple(rows), numbers, quotes, sources)


# --- descriptions of the method ---------------------------------------------------------------------------


def selection(printed: Printed) -> Finding:
    fact = printed.facts["prior_code"]
    text = (
        "The paper does not say from which epoch its accuracies are, nor on which images its choices were made. In the "
        "code of the prior work the test set serves as validation data, the MNIST script keeps the autoencoder with "
        "the best test accuracy, and the entropy threshold for easy images is a typed constant "
        f"({fact['entropy_threshold']:.3f}). No code of this paper was found. We report the last epoch, and the best "
        "one beside it."
    )
    numbers = {"entropy_threshold": fact["entropy_threshold"]}
    title, tables = "How epochs and thresholds were selected is unknown", ("table2", "table3", "table4", "table5")
    sources = printed.sources("prior_code", "later_code")
    return Finding("encodenet-20", title, text, "statistics", "notable", tables, (), numbers, sources=sources)


def vgg16_maps(shape: Mapping[str, Any], side: int = 32) -> list[tuple[str, int, int]]:
    """(kind, channels, side) of the output of every convolution and pooling of VGG16, in order."""
    maps = []
    for count, width in zip(shape["convolutions"], shape["widths"]):
        maps += [("convolution", width, side)] * count
        side //= 2
        maps.append(("pooling", width, side))
    return maps


def unstated(printed: Printed) -> Finding:
    maps = vgg16_maps(printed.facts["vgg16"])
    (place, *_) = TEXT["layer"].numbers
    readings_of_13 = {
        "13th layer": maps[int(place) - 1],
        "13th convolution": [m for m in maps if m[0] == "convolution"][int(place) - 1],
        "last pooling": maps[-1],
    }
    rows = tuple({"reading": name, "output": f"{w} x {s} x {s}"} for name, (_, w, s) in readings_of_13.items())
    text = (
        f"A 512 x 1 x 1 map of a 32-pixel image is the output of VGG16's last pooling, layer {len(maps)}. Layer "
        f"{place} gives {rows[0]['output']}, convolution {place} {rows[1]['output']}. Not stated: the number of "
        "clusters on CIFAR-100; the decoder's layers; optimiser, rate, batch size and augmentation of the autoencoder, "
        "and whether it starts from the baseline's weights; epochs and rate of the second stage; whether a "
        "representative must be classified correctly; whether Table 1 is about training or test images. k-means is "
        "called the best of three techniques without numbers."
    )
    numbers = {"layers": len(maps), "stated": float(place)}
    numbers |= {name.replace(" ", "_"): side for name, (_, _, side) in readings_of_13.items()}
    title, tables = "A layer that does not fit its shape, and choices left open", ("table1", "table2", "table3")
    quotes, sources = words_of(TEXT, "layer", "best_clustering"), printed.sources("vgg16")
    return Finding("encodenet-21", title, text, "formulas", "notable", tables, rows, numbers, quotes, sources)


def entropies(gap: float, classes: int = 10) -> dict[str, float]:
    """Entropy in nats of a softmax whose largest logit leads all others by `gap`: exact, and in two float32 ways.

    Returns:
        "float64" from log-probabilities; "float32" as -sum p ln p; "float32, 0 ln 0 = 0" as scipy's entropy has it.
    """
    import numpy as np
    from scipy.special import entr, log_softmax

    logits = np.zeros(classes)
    logits[0] = gap
    logs = log_softmax(logits)
    powers = np.exp((logits - gap).astype(np.float32))
    shares = powers / powers.sum()
    with np.errstate(divide="ignore", invalid="ignore"):  # that is the point
        plain = float(-(shares * np.log(shares)).sum())
    return {
        "float64": float(-(np.exp(logs) * logs).sum()),
        "float32": plain,
        "float32, 0 ln 0 = 0": float(entr(shares).sum()),
    }


def entropy_in_single_precision(printed: Printed) -> Finding:
    gaps = (10, 30, 120)
    found = {gap: entropies(gap) for gap in gaps}
    rows = tuple(
        {"lead of the largest logit": gap, **{name: f"{value:.4g}" for name, value in own.items()}}
        for gap, own in found.items()
    )
    middle = found[gaps[1]]
    error = 100 * (middle["float64"] - middle["float32"]) / middle["float64"]
    text = (
        "A representative is the image of lowest entropy, so the ranking matters where a trained network is most "
        f"certain, and there single precision fails. With ten classes and a lead of {gaps[1]} in the largest logit "
        f"the entropy comes out {error:.1f} % too small ({middle['float32']:.4g} for {middle['float64']:.4g} nats); "
        f"with a lead of {gaps[2]} the plain formula is not a number, and with 0 ln 0 = 0 it is exactly 0, so that "
        "all such images tie and the first one is taken. The paper does not say how it computes the entropy or breaks "
        "ties. We use float64, from logits of a float32 network (bf16 in the recorded runs of scale tiny), and a "
        "stated order."
    )
    numbers = {"error": error, "exact_30": middle["float64"], "single_30": middle["float32"]}
    numbers |= {
        "not_a_number_120": math.isnan(found[gaps[2]]["float32"]),
        "zero_120": found[gaps[2]]["float32, 0 ln 0 = 0"] == 0,
    }
    title, tables = "The lowest entropies cannot be ranked in single precision", ("table1", "table3")
    return Finding("encodenet-22", title, text, "formulas", "minor", tables, rows, numbers, words_of(TEXT, "entropy"))
