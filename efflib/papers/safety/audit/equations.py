"""Findings 8 and 15, equations against code, and references."""

from __future__ import annotations

import math
import re

from efflib.papers.safety.audit.evidence import CNN, TEXT, Printed
from efflib.papers.safety.drift import EXPONENT, GAMMA, NETWORKS, START_BITS
from efflib.report.audit import Finding, words_of

# Height and width of the output of each convolution, for a 28-pixel image without padding.
_MAPS = {"conv1": 24, "conv2": 20, "conv3": 8, "conv4": 6}
_KERNELS = {"conv1": 5, "conv2": 5, "conv3": 3, "conv4": 3}


def zero_bit_weight(rounding: str, exponent: int = EXPONENT) -> float:
    """What equation 1 makes of every weight of a channel with b = 0: both its bounds are then -1/2.

    Args:
        rounding: "floor", as printed, or "round" (half to even), as in the method that it extends.
        exponent: e of the channel.
    """
    bound = -(2.0**-1)
    return 2.0**exponent * (math.floor(bound) if rounding == "floor" else round(bound))


def equations(printed: Printed) -> Finding:
    cnn = NETWORKS[CNN]
    maps = sum(
        layer.channels * layer.inputs * _MAPS[layer.name] ** 2 // _KERNELS[layer.name] ** 2 for layer in cnn.layers
    )
    penalty = GAMMA * START_BITS * cnn.weights / len(cnn.layers)
    floor, rounded = zero_bit_weight("floor"), zero_bit_weight("round")
    terms = printed.facts["main_code"]["l1_terms"]
    rows = (
        {
            "equation": "1",
            "as printed": "rounds down",
            "published notebooks": "round to nearest",
            "what the printed form gives": f"every weight of a zero-bit channel is {floor:g}, never 0",
        },
        {
            "equation": "2",
            "as printed": "alpha times the L1 norms",
            "published notebooks": "no such term" if not terms else "present",
            "what the printed form gives": "no value of alpha, gamma or lambda is stated",
        },
        {
            "equation": "3",
            "as printed": "N is the number of layers",
            "published notebooks": f"N = {cnn.scalars:,}, all trained scalars",
            "what the printed form gives": f"gamma Q is {penalty:,.0f} at the start",
        },
        {
            "equation": "4",
            "as printed": "H and W of the output map",
            "published notebooks": "height and width of the kernel",
            "what the printed form gives": f"{4 * maps:,} bytes at 32 bits",
        },
    )
    text = (
        "Equation 1 prints floor brackets; a channel of zero bits would then hold "
        f"{floor:g} instead of {abs(rounded):g} and could never be removed; the cited method rounds to nearest, and so "
        "do the published notebooks. Equation 3 divides by the number of layers, which would make the penalty start at "
        f"{penalty:,.0f} beside a cross-entropy of about 2.3; the code divides by the number of trained scalars. N "
        "also counts samples in equation 2. Equation 4 speaks of the output map, which would give the CNN "
        f"{4 * maps:,} bytes at 32 bits; with kernels it has {4 * cnn.weights:,}. The average bit depth is credited to "
        "reference [14], a study of network size; it comes from [12]. The L1 term of equation 2 is in no notebook."
    )
    numbers = {"floor": floor, "round": rounded, "penalty": penalty, "maps": 4 * maps, "kernels": 4 * cnn.weights}
    title = "Four equations differ from the code that they describe"
    quotes = words_of(TEXT, "layers", "maps", "average_depth")
    sources = printed.sources("main_code", "self_compressing")
    return Finding("safety-8", title, text, "formulas", "notable", ("table1", "table2"), rows, numbers, quotes, sources)


def references(printed: Printed) -> Finding:
    cited = printed.facts["cited_7"]
    (number,) = re.findall(r"arXiv:(\d+\.\d+)", TEXT["reference7"].words)
    authors = len(re.findall(r"[A-Z]\. [A-Z]", TEXT["reference7"].words))
    text = (
        f"Reference [7] is given as arXiv:{number} by {authors} authors; the paper of that title is "
        f"arXiv:{cited['number']} by {cited['authors']}. Reference [6], cited for quantisation-aware training, is the "
        "paper on estimating gradients through stochastic neurons. What restoration restores is told in three ways: "
        "the original precision (section III), an increase (Algorithm 1), and "
        f"{printed.facts['restoration_code']['restored_bits']} bits in the code."
    )
    numbers = {"same_number": number == cited["number"], "authors": authors, "authors_true": cited["authors"]}
    title = "References [6] and [7], and three rules of restoration"
    quotes = words_of(TEXT, "reference7", "reference6", "restored", "increase")
    sources = printed.sources("cited_7", "restoration_code")
    return Finding("safety-15", title, text, "formulas", "minor", ("table1", "table2"), (), numbers, quotes, sources)
