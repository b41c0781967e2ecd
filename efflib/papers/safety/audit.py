"""The audit of the safety-guided self-compression paper: 16 findings, recomputed from printed and published numbers.

Findings 1 to 15 are those of section 6 of the implementation spec; 16 lists what checks out. No number below is typed
from a finding: texts are formatted from computed values, numbers of the running text are read from quoted sentences,
logged numbers of the authors' notebooks come from references.yaml, and sizes that only the optimiser explains from the
drift simulation. Wording is about the printed page and the published code ("as printed", "appears"), never about
intentions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from efflib.papers.safety.drift import (
    EXPONENT,
    GAMMA,
    NETWORKS,
    START_BITS,
    Match,
    Network,
    q_after,
    sizes_after,
    steps_to,
    tight_start_bytes,
)
from efflib.papers.table import PrintedTable, load_printed
from efflib.report.audit import Evidence, Finding, Sentence, exact, half_up, words_of

if TYPE_CHECKING:
    import numpy as np

_HERE = Path(__file__).parent
CNN, DECODER = "mnist_cnn", "names_decoder"
TABLE_OF = {CNN: "table1", DECODER: "table2"}
ROMAN = {CNN: "Table I", DECODER: "Table II"}
SHORT = {CNN: "CNN", DECODER: "decoder"}
METHODS = ("float", "unsafe", "safe")


# --- numbers of the running text --------------------------------------------------------------------------


TEXT = {
    "headline": Sentence(
        "abstract",
        "achieves up to a 2.5% enhancement in test accuracy relative to the original unquantized models while "
        "maintaining 60% of the initial model size",
    ),
    "retained": Sentence(
        "section IV",
        "On average, the safety-driven quantization models retain approximately 60% of the original model size",
    ),
    "sizes": Sentence(
        "section IV",
        "reduced the model size from 326,192 bytes to 214,730 bytes for the convolutional-based vision model and from "
        "831,846 bytes to 505,381 bytes for the attention-based decoder",
    ),
    "performance": Sentence(
        "section IV",
        "test accuracy for the vision model improved from 98.6% to 99.5%, while test loss for the decoder model "
        "decreased from 1.8 to 1.6",
    ),
    "learned": Sentence("section II", "the parameters guiding model quantization are entirely learnable"),
    "requirements": Sentence(
        "section II",
        "dynamically adjusting b_{l,i}, our model achieves a fine-grained control over compression, optimizing the bit "
        "depth based on the preservation and performance requirements at each layer",
    ),
    "attention": Sentence("section II", "we focus on quantizing the attention layers"),
    "heads": Sentence(
        "section III",
        "Quantization was applied selectively to the convolutional layers in the CNN and the attention heads in the "
        "Transformer",
    ),
    "bits": Sentence("section III", "bit depths of 2, 4, 8, and 16 bits were analyzed"),
    "averaged": Sentence(
        "section IV",
        "averaged across a comprehensive set of hyperparameter settings, including variations in layer depth, learning "
        "rates, and bit depths",
    ),
    "layers": Sentence("section II", "N denotes the total number of layers"),
    "maps": Sentence("section II", "refer to the spatial dimensions of the layer's output"),
    "average_depth": Sentence("section II", "The average bit depth Q [14] is introduced as a metric"),
    "share": Sentence("section III", "the preservation set includes 10% of the training images"),
    "restored": Sentence("section III", "pruned weights were restored to their original precision"),
    "increase": Sentence("Algorithm 1", "Increase bit precision"),
    "pruned": Sentence(
        "section II", "prunes redundant weights and removes zeroed-out components (such as kernels or attention heads)"
    ),
    "accelerates": Sentence("Fig. 1", "leading to a significant reduction in training time"),
    "variance_abstract": Sentence("abstract", "but also reduces variance"),
    "variance_introduction": Sentence("section I", "reducing variance between training and test results"),
    "variance_figure1": Sentence("Fig. 1", "preventing any significant increase in variance"),
    "variance_results": Sentence("section IV", "improved generalization and reduced variance"),
    "variance_figure3": Sentence("Fig. 3", "supporting generalization and reducing variance"),
    "variance_conclusion": Sentence("section V", "reducing performance variance between training and testing phases"),
    "reference7": Sentence(
        "references",
        'A. Défossez and G. Synnaeve, "Differentiable model compression via pseudo quantization noise," arXiv preprint '
        "arXiv:2206.07686, 2022",
    ),
    "reference6": Sentence("section I", "quantization-aware training (QAT) [6]"),
}


# --- what a finding may read ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Printed(Evidence):
    """What a finding may read, quoted training logs among it."""

    tables: Mapping[str, PrintedTable]
    logs: Mapping[str, Mapping[str, Any]]

    def score(self, network: str, method: str) -> Decimal:
        """Accuracy in percent, or loss in nats per character."""
        return exact(self.tables[TABLE_OF[network]].cell(method=method).value)

    def size(self, network: str, method: str) -> Decimal:
        """Bytes."""
        return exact(self.tables[f"{TABLE_OF[network]}_bytes"].cell(method=method).value)

    def logged(self, reference: str) -> dict[str, Any]:
        """The one line that a reference quotes: value, bytes, steps of its loop, bits at the start."""
        (line,) = self.references[reference]["values"]
        return line

    def log(self, name: str) -> list[dict[str, float]]:
        """Lines of a quoted training log, by column."""
        log = self.logs[name]
        return [dict(zip(log["columns"], row)) for row in log["rows"]]


@cache
def load() -> _Printed:
    """printed.yaml and references.yaml of this paper, read once."""
    return _Printed.read(_HERE / "references.yaml", load_printed(_HERE / "printed.yaml"))


def findings(table: str | None = None) -> list[Finding]:
    """Findings about this paper, in the order of the implementation spec (section 6).

    Args:
        table: only those about this table or page: table1, table2, figures, drift, pareto.
    """
    printed = load()
    made = [make(printed) for make in _FINDINGS]
    return [finding for finding in made if table is None or table in finding.tables]


# --- the tables against the text --------------------------------------------------------------------------


def _headline(printed: _Printed) -> Finding:
    stated = TEXT["headline"].numbers[0]
    against = {m: printed.score(CNN, "safe") - printed.score(CNN, m) for m in ("float", "unsafe")}
    losses = {m: _relative(printed.score(DECODER, "safe"), printed.score(DECODER, m)) for m in ("float", "unsafe")}
    rows = tuple(
        {
            "safety-driven, against": method,
            "accuracy, CNN (points)": against[method],
            "stated in the abstract": stated if method == "float" else None,
            "loss, decoder (%)": half_up(losses[method]),
        }
        for method in ("float", "unsafe")
    )
    text = (
        f"The abstract states up to {stated} % better test accuracy than the unquantised models. In Table I the "
        f"safety-driven CNN is {against['float']} points above the unquantised one; {against['unsafe']} is its "
        f"distance to the unsafe row. The decoder's loss is {-losses['float']:.1f} % below the unquantised and "
        f"{-losses['unsafe']:.1f} % below the unsafe one; it has no accuracy."
    )
    numbers = {"stated": float(stated), "against_float": float(against["float"])}
    numbers |= {"against_unsafe": float(against["unsafe"])}
    numbers |= {f"loss_against_{method}": float(value) for method, value in losses.items()}
    title = "The 2.5 % of the abstract is the distance to the unsafe row"
    return Finding(
        "safety-1", title, text, "arithmetic", "major", ("table1", "table2"), rows, numbers, words_of(TEXT, "headline")
    )


def _relative(value: Decimal, base: Decimal) -> Decimal:
    """Percent by which a value lies above its base."""
    return 100 * (value - base) / base


def _sixty_percent(printed: _Printed) -> Finding:
    stated = TEXT["retained"].numbers[0]
    shares = {n: 100 * printed.size(n, "safe") / printed.size(n, "float") for n in NETWORKS}
    rows = tuple(
        {
            "network": SHORT[n],
            "unquantised, bytes": int(printed.size(n, "float")),
            "safety-driven, bytes": int(printed.size(n, "safe")),
            "left, %": half_up(share, 2),
            "stated, %": stated,
        }
        for n, share in shares.items()
    )
    mean = fmean(map(float, shares.values()))
    text = (
        f"The text states approximately {stated} % of the original size. By the tables the safety-driven CNN has "
        f"{shares[CNN]:.1f} % and the decoder {shares[DECODER]:.1f} %, {mean:.1f} % on average."
    )
    numbers = {"stated": float(stated), "mean": mean} | {SHORT[n]: float(share) for n, share in shares.items()}
    title = "About 63 %, not 60 %, of the size is left"
    quotes = words_of(TEXT, "headline", "retained")
    return Finding("safety-2", title, text, "arithmetic", "minor", ("table1", "table2"), rows, numbers, quotes)


def _larger(printed: _Printed) -> Finding:
    rows, parts = [], []
    numbers: dict[str, float] = {}
    for n in NETWORKS:
        more = printed.size(n, "safe") - printed.size(n, "unsafe")
        percent = _relative(printed.size(n, "safe"), printed.size(n, "unsafe"))
        rows.append(
            {
                "network": SHORT[n],
                "unsafe, bytes": int(printed.size(n, "unsafe")),
                "safety-driven, bytes": int(printed.size(n, "safe")),
                "more, bytes": int(more),
                "more, %": half_up(percent),
            }
        )
        numbers |= {f"{SHORT[n]}_bytes": float(more), f"{SHORT[n]}_percent": float(percent)}
        parts.append(f"{more:,} bytes ({percent:.1f} %) for the {SHORT[n]}")
    text = (
        f"In both tables the safety-driven model is larger than the unsafe one: by {' and '.join(parts)}. A larger "
        "model of the same kind would be expected to be at least as accurate, and the paper compares no two models of "
        "equal size. We compare at equal bytes."
    )
    title, tables = "The safe models are the larger ones", ("table1", "table2", "pareto")
    return Finding(
        "safety-3", title, text, "text", "major", tables, tuple(rows), numbers, words_of(TEXT, "performance")
    )


# --- sizes that follow from a step count ------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """A published size and the drift that passes nearest to it."""

    network: str
    where: str
    method: str
    steps_stated: int | None
    match: Match


@cache
def published_sizes() -> tuple[Size, ...]:
    """Every published size of a model that started at 32 bits, with its place on the line of the drift.

    The decoder's row without quantisation is not among them: at 32 bits its quantised weights take less than printed.
    """
    printed = load()
    cells = [(n, m) for n in NETWORKS for m in METHODS if (n, m) != (DECODER, "float")]
    found = [Size(n, ROMAN[n], m, None, steps_to(float(printed.size(n, m)), n)) for n, m in cells]
    for name in ("cnn_main", "cnn_earlier"):
        line = printed.logged(name)
        match = steps_to(line["bytes"], CNN)
        found.append(Size(CNN, printed.references[name]["name"], "safe", line["loop"], match))
    return tuple(found)


@dataclass(frozen=True)
class LogLine:
    """A line of the decoder's published log beside the drift."""

    step: int
    logged: int
    simulated: float
    q_logged: float
    q_simulated: float

    @property
    def same(self) -> bool:
        """Size and Q equal to every printed digit."""
        return round(self.simulated) == self.logged and f"{self.q_simulated:.4f}" == f"{self.q_logged:.4f}"


@cache
def log_lines() -> tuple[LogLine, ...]:
    """The decoder's published log, line by line: Q is that before the step, the size that after it."""
    lines = load().log("decoder_main")
    sizes = sizes_after(DECODER, int(lines[-1]["step"]) + 1)
    return tuple(
        LogLine(
            int(line["step"]),
            int(line["bytes"]),
            float(sizes[int(line["step"]) + 1]),
            line["q"],
            q_after(DECODER, float(sizes[int(line["step"])])),
        )
        for line in lines
    )


def _drift(printed: _Printed) -> Finding:
    sizes, lines = published_sizes(), log_lines()
    rows = tuple(
        {
            "network": SHORT[size.network],
            "published in": size.where,
            "row": size.method,
            "published, bytes": f"{size.match.wanted:,.1f}".removesuffix(".0"),
            "drift, bytes": f"{size.match.size:,.2f}",
            "after steps": size.match.steps,
            "steps of the loop": size.steps_stated,
            "apart, bytes": half_up(Decimal(size.match.off), 2),
            "one step, bytes": half_up(Decimal(size.match.spacing), 1),
        }
        for size in sizes
    )
    steps = {(size.network, size.method): size.match.steps for size in sizes if size.where == ROMAN[size.network]}
    apart = {n: steps[n, "unsafe"] - steps[n, "safe"] for n in NETWORKS}
    (end,) = [size for size in sizes if size.where == printed.references["cnn_main"]["name"]]
    loop = printed.logged("cnn_main")["loop"]
    gammas = {gamma: float(sizes_after(CNN, loop, gamma=gamma)[-1]) for gamma in (0.01, 0.05, GAMMA, 1.0, 10.0)}
    alike = [gamma for gamma, size in gammas.items() if size == gammas[GAMMA]]
    same = sum(line.same for line in lines)
    largest = max(abs(size.match.off) for size in sizes if size.where == ROMAN[size.network])
    text = (
        f"The published runs start at {START_BITS:g} bits per weight. There nothing is clipped, the bit depths receive "
        "no gradient but the constant one of the penalty, and Adam turns a constant gradient of any size into the "
        "learning rate. Simulating the optimiser alone, without data and without a network, gives the size and Q of "
        f"{same} of the {len(lines)} log lines of the decoder quoted here to the printed digit, and the CNN's last "
        f"logged size ({end.match.wanted:,.1f} bytes) after {end.match.steps:,} steps ({end.match.size:,.2f}). After "
        f"{loop:,} steps the CNN has {gammas[GAMMA]:,.0f} bytes for gamma {', '.join(f'{g:g}' for g in alike)} alike "
        f"({gammas[0.01]:,.0f} for 0.01); the preservation weight, the batch size and the data do not enter. Read so, "
        f"safe and unsafe models of the tables differ by {apart[CNN]} (CNN) and {apart[DECODER]:,} (decoder) steps. "
        f"The tables' own sizes lie up to {largest:.1f} bytes beside a whole number of steps; the paper says that they "
        "are averages. As every size lies within half a step of one, they are consistent with a step count, not proof "
        "of it."
    )
    numbers: dict[str, float] = {f"steps_{SHORT[n]}_{m}": count for (n, m), count in steps.items()}
    numbers |= {f"apart_{SHORT[n]}": count for n, count in apart.items()}
    numbers |= {"lines": len(lines), "same_lines": same, "end_steps": end.match.steps, "end_off": end.match.off}
    numbers |= {"largest_off": largest, "gammas": len(gammas), "gammas_alike": len(alike)}
    numbers |= {"size_10000": gammas[GAMMA]}
    title = "The sizes follow from the number of steps and the learning rate"
    tables = ("table1", "table2", "figures", "drift", "pareto")
    quotes = words_of(TEXT, "learned", "requirements", "averaged")
    sources = printed.sources("cnn_main", "cnn_earlier", "decoder_main", "main_code")
    return Finding("safety-4", title, text, "statistics", "major", tables, rows, numbers, quotes, sources)


def _counts(network: Network) -> dict[str, int]:
    return {
        "quantised weights": network.weights,
        "float network": network.parameters,
        "with bit depths and exponents": network.scalars,
    }


def _original_size(printed: _Printed) -> Finding:
    rows = tuple(
        {
            "network": SHORT[name],
            "counted": what,
            "scalars": count,
            **{f"bytes at {bits} bits": count * bits // 8 for bits in (32, 16, 8)},
            "printed, bytes": int(printed.size(name, "float")),
        }
        for name, network in NETWORKS.items()
        for what, count in _counts(network).items()
    )
    equal = sum(row["printed, bytes"] in [row[f"bytes at {bits} bits"] for bits in (32, 16, 8)] for row in rows)
    match = steps_to(float(printed.size(CNN, "float")), CNN)
    grid = match.spacing
    bits = float(8 * printed.size(CNN, "float")) / NETWORKS[CNN].weights
    rest = int(printed.size(DECODER, "float")) % 4
    near, rounded = 2 * abs(match.off) / grid, 1 / grid
    text = (
        f"Of {len(rows)} counts of the two networks, at 32, 16 or 8 bits, {equal or 'none'} gives a printed size "
        f"without quantisation. The CNN's {int(printed.size(CNN, 'float')):,} bytes are {bits:.2f} bits for each of "
        f"its {NETWORKS[CNN].weights:,} convolution weights, the size that a quantised run passes after {match.steps} "
        f"steps ({match.size:,.2f} bytes). Steps are {grid:.1f} bytes apart there, so that a whole number chosen at "
        f"random equals a rounded size of the line with a chance of {100 * rounded:.0f} % and lies as near to it as "
        f"this one with {100 * near:.1f} %. The decoder's {int(printed.size(DECODER, 'float')):,} bytes are not "
        f"divisible by 4 (remainder {rest}), so they are no count of float32 numbers; what they count is open, but it "
        f"is more than the quantised weights, {4 * NETWORKS[DECODER].weights:,} bytes at 32 bits, that the other rows "
        "appear to count."
    )
    numbers = {"equal": equal, "steps": match.steps, "off": match.off, "grid": grid, "bits": bits, "remainder": rest}
    numbers |= {"chance_percent": 100 * near, "chance_rounded_percent": 100 * rounded}
    numbers |= {
        f"{SHORT[n]}_{what.replace(' ', '_')}": 4 * c for n in NETWORKS for what, c in _counts(NETWORKS[n]).items()
    }
    title = "The sizes without quantisation are not those of the float networks"
    return Finding(
        "safety-5",
        title,
        text,
        "baselines",
        "major",
        ("table1", "table2", "drift"),
        rows,
        numbers,
        words_of(TEXT, "sizes"),
        printed.sources("main_code"),
    )


def _attention_only(printed: _Printed) -> Finding:
    decoder = NETWORKS[DECODER]
    weights = sum(layer.weights for layer in decoder.layers if layer.name.endswith(("qkv", "proj")))
    least = {
        "float decoder of the code": 4 * decoder.parameters - 4 * weights,
        "printed size": int(printed.size(DECODER, "float")) - 4 * weights,
    }
    rows = tuple(
        {
            "start from": what,
            "attention at 0 bits, bytes": size,
            "unsafe as printed": int(printed.size(DECODER, "unsafe")),
            "safe as printed": int(printed.size(DECODER, "safe")),
        }
        for what, size in least.items()
    )
    above = min(least.values()) > max(printed.size(DECODER, method) for method in ("unsafe", "safe"))
    text = (
        f"The text says that only attention layers are quantised. They hold {weights:,} weights, {4 * weights:,} "
        f"bytes: even at zero bits the decoder would keep {least['float decoder of the code']:,} bytes "
        f"({least['printed size']:,} from the printed size), {'more' if above else 'not more'} than both compressed "
        f"sizes of Table II ({printed.size(DECODER, 'safe'):,} and {printed.size(DECODER, 'unsafe'):,}). The published "
        "code quantises feed-forward layers and the head too; so do we, with attention alone as an option."
    )
    numbers = {"weights": weights, "bytes": 4 * weights, "above": above, "left": least["float decoder of the code"]}
    numbers |= {"left_of_printed": least["printed size"]}
    title = "Table II is impossible if only attention is quantised"
    quotes, sources = words_of(TEXT, "attention", "heads"), printed.sources("main_code")
    return Finding("safety-6", title, text, "text", "major", ("table2", "pareto"), rows, numbers, quotes, sources)


def _averaged(printed: _Printed) -> Finding:
    stated = [int(number) for number in TEXT["bits"].numbers]
    rows = tuple(
        {
            "bits at the start": bits,
            **{f"{SHORT[n]}, bytes": int(NETWORKS[n].bytes_per_bit * bits) for n in NETWORKS},
        }
        for bits in stated
    )
    most = {n: max(int(row[f"{SHORT[n]}, bytes"]) for row in rows) for n in NETWORKS}
    means = {n: fmean(int(row[f"{SHORT[n]}, bytes"]) for row in rows) for n in NETWORKS}
    least = {n: min(printed.size(n, method) for method in METHODS) for n in NETWORKS}
    below = sum(most[n] < least[n] for n in NETWORKS)
    text = (
        f"Results are said to be averages over starts of {', '.join(map(str, stated[:-1]))} and {stated[-1]} bits. A "
        f"start at {stated[-1]} bits already takes {most[CNN]:,} (CNN) and {most[DECODER]:,} (decoder) bytes, below "
        f"every size of {'both' if below == len(most) else below} tables ({least[CNN]:,} and {least[DECODER]:,} at "
        "least); the mean "
        f"of these starts is {means[CNN]:,.0f} and {means[DECODER]:,.0f}. Counted as in the published code, the tables "
        "cannot contain runs that started so. We start at 32 bits to repeat the tables, and at 8 and 2 beside them."
    )
    numbers = {f"most_{SHORT[n]}": float(most[n]) for n in NETWORKS} | {"below": below}
    numbers |= {f"mean_{SHORT[n]}": means[n] for n in NETWORKS}
    title = "Starts of 2 to 16 bits are smaller than every printed size"
    return Finding(
        "safety-7",
        title,
        text,
        "statistics",
        "major",
        ("table1", "table2", "drift", "pareto"),
        rows,
        numbers,
        words_of(TEXT, "bits", "averaged"),
        printed.sources("main_code"),
    )


# --- equations --------------------------------------------------------------------------------------------

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


def _equations(printed: _Printed) -> Finding:
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


# --- the preservation sets --------------------------------------------------------------------------------


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


def _preserved_images(printed: _Printed) -> Finding:
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


def _names(printed: _Printed) -> Finding:
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


# --- restoration, pruning, other published runs -----------------------------------------------------------


def write_through_view() -> str:
    """What PyTorch says when a trained bit depth is written through a view of it, as the notebooks' restoration does.

    Returns:
        The error's first sentence, or "" if the write succeeds.
    """
    import torch

    bits = torch.nn.Parameter(torch.full((4, 1, 1, 1), -1.0))
    try:
        bits.view(-1)[torch.tensor([0])] = 2.0
    except RuntimeError as error:
        return str(error).partition(".")[0]
    return ""


def _restoration(printed: _Printed) -> Finding:
    fact = printed.facts["restoration_code"]
    ends = {n: float(8 * sizes_after(n, 10_000)[-1]) / NETWORKS[n].weights for n in NETWORKS}
    least = {n: float(8 * min(printed.size(n, m) for m in METHODS)) / NETWORKS[n].weights for n in NETWORKS}
    needed = next(n for n in range(1, 100) if int(fact["fraction"] * n) > 0)
    said = write_through_view()
    rows = tuple(
        {
            "network": SHORT[n],
            "bits after the loop's 10,000 steps": half_up(Decimal(ends[n]), 2),
            "bits at the smallest printed size": half_up(Decimal(least[n]), 2),
        }
        for n in NETWORKS
    )
    text = (
        "The paper's safety mechanism gives bits back where the preservation set suffers. In the published notebooks "
        f"it could not act: it looks for channels with b <= 0, while the bit depths end at {ends[CNN]:.1f} (CNN) and "
        f"{ends[DECODER]:.1f} (decoder); it restores int({fact['fraction']:g} n) of n such channels, none for fewer "
        f"than {needed}; and it writes through a view of a trained parameter, "
        + (f'which PyTorch refuses ("{said}")' if said else "which this version of PyTorch allows")
        + f". An older notebook restores int({fact['fraction']:g} x {fact['layers']}) = "
        f"{int(fact['fraction'] * fact['layers'])} layers. Only an older script for another decoder could act; no "
        "output of it is in the repository. Nothing is removed physically in any notebook, so that the shorter steps "
        "of Fig. 1(b) must have another origin. We implement both and log every event."
    )
    numbers = {f"bits_{SHORT[n]}": ends[n] for n in NETWORKS} | {"needed": needed, "refused": bool(said)}
    numbers |= {f"least_{SHORT[n]}": least[n] for n in NETWORKS}
    numbers |= {"layers_restored": int(fact["fraction"] * fact["layers"])}
    title = "Restoration and removal appear not to have acted in the published runs"
    quotes = words_of(TEXT, "restored", "increase", "pruned", "accelerates")
    sources = printed.sources("restoration_code", "main_code")
    tables = ("table1", "table2", "figures")
    return Finding("safety-11", title, text, "text", "major", tables, rows, numbers, quotes, sources)


def _other_runs(printed: _Printed) -> Finding:
    names = ("cnn_two_bits_unsafe", "self_compression_demo", "cnn_earlier", "cnn_main")
    rows = [
        {
            "published in": ROMAN[CNN],
            "method": method,
            "accuracy, %": printed.score(CNN, method),
            "bytes": f"{printed.size(CNN, method):,.0f}",
        }
        for method in METHODS
    ]
    for name in names:
        line = printed.logged(name)
        rows.append(
            {
                "published in": f"{printed.references[name]['name']} ({line['initial_bits']} bits at the start)",
                "method": line["method"],
                "accuracy, %": Decimal(f"{line['value']:.2f}"),
                "bytes": f"{line['bytes']:,.0f}",
            }
        )
    unsafe = printed.logged("cnn_two_bits_unsafe")
    ratio = float(printed.size(CNN, "unsafe")) / unsafe["bytes"]
    better = exact(unsafe["value"]) - printed.score(CNN, "unsafe")
    sizes = printed.facts["readme"]["sizes"]
    ours = {m: 100 * sizes[m] / sizes["float"] for m in ("unsafe", "safe")}
    theirs = {m: 100 * float(printed.size(CNN, m) / printed.size(CNN, "float")) for m in ("unsafe", "safe")}
    text = (
        f"Table I has the unsafe method at {printed.score(CNN, 'unsafe'):.1f} % and "
        f"{printed.size(CNN, 'unsafe'):,} bytes. The authors' own notebook that starts at two bits reaches "
        f"{unsafe['value']:.2f} % ({better:+.2f} points) with {unsafe['bytes']:,.0f} bytes, {ratio:.1f} times less. "
        f"The repository's README prints the three accuracies of Table I beside other sizes, {sizes['float']}, "
        f"{sizes['unsafe']} and {sizes['safe']} bytes: {ours['unsafe']:.0f} and {ours['safe']:.0f} % of the first, "
        f"where Table I has {theirs['unsafe']:.0f} and {theirs['safe']:.0f} %."
    )
    numbers = {"ratio": ratio, "better": float(better), "readme_unsafe": ours["unsafe"], "readme_safe": ours["safe"]}
    title = "The authors' own two-bit run is eleven times smaller, and more accurate"
    sources = printed.sources(*names, "readme")
    tables = ("table1", "pareto")
    return Finding("safety-12", title, text, "baselines", "major", tables, tuple(rows), numbers, (), sources)


def _variance(printed: _Printed) -> Finding:
    spread = [name for name in TEXT if name.startswith("variance")]
    stated = printed.score(CNN, "float")
    published = [printed.logged(name)["value"] for name in ("cnn_main", "cnn_earlier")]
    misses = [100 - float(stated), *(100 - value for value in published)]
    runs = [table.runs for table in printed.tables.values()]
    rows = tuple({"where": TEXT[name].where, "as printed": TEXT[name].words} for name in spread)
    text = (
        f"Less variance is claimed in {len(spread)} parts of the paper, but no number of runs, no seed, no deviation "
        f"and no train-test gap is given ({sum(run is not None for run in runs)} of {len(runs)} columns state runs). "
        f"The float CNN's {stated} % is low for this network on MNIST: in two published logs of it, at more than 20 "
        f"bits per weight, where quantisation changes next to nothing, it reaches {published[0]:.2f} and "
        f"{published[1]:.2f} %, {misses[0] / misses[1]:.1f} and {misses[0] / misses[2]:.1f} times fewer errors. Those "
        "runs saw test images in training (safety-9). We train the float network for the same number of steps, with "
        "several seeds."
    )
    numbers = {"places": len(spread), "runs_stated": sum(run is not None for run in runs), "float": float(stated)}
    numbers |= {"errors_ratio": misses[0] / misses[1]}
    title, tables = (
        "Variance is claimed without a number, and the float accuracy is low",
        ("table1", "table2", "figures"),
    )
    sources = printed.sources("cnn_main", "cnn_earlier")
    return Finding("safety-13", title, text, "statistics", "notable", tables, rows, numbers, (), sources)


def _reported_loss(printed: _Printed) -> Finding:
    gamma = printed.facts["main_code"]["gamma"]
    rows = []
    for name in ("cnn_main", "cnn_earlier"):
        line = printed.logged(name)
        q = q_after(CNN, line["bytes"])
        rows.append(
            {
                "published in": printed.references[name]["name"],
                "bytes": f"{line['bytes']:,.1f}",
                "Q": f"{q:.3f}",
                "gamma Q": f"{gamma * q:.3f}",
                "logged loss": f"{line['loss']:.2f}",
                "left for everything else": f"{line['loss'] - gamma * q:.3f}",
            }
        )
    main = printed.logged("cnn_main")
    q = q_after(CNN, main["bytes"])
    text = (
        f"The loss that the CNN's notebook logs at the end is {main['loss']:.2f}. {main['bytes']:,.1f} bytes mean Q = "
        f"{q:.3f}, and gamma Q = {gamma * q:.3f} is all of it: {main['loss'] - gamma * q:.3f} is left for "
        "cross-entropy and preservation together. A falling curve of this loss shows the drift, not learning."
    )
    numbers = {"q": q, "penalty": gamma * q, "loss": main["loss"], "rest": main["loss"] - gamma * q}
    title, sources = "The logged loss is the penalty", printed.sources("cnn_main", "cnn_earlier", "main_code")
    tables = ("table1", "figures", "drift")
    return Finding("safety-14", title, text, "text", "minor", tables, tuple(rows), numbers, (), sources)


def _references(printed: _Printed) -> Finding:
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


# --- what checks out --------------------------------------------------------------------------------------


def _repeated(printed: _Printed) -> Iterator[tuple[str, Decimal, Decimal]]:
    """Where, stated in the text, printed in a table."""
    places = {
        "sizes": [(printed.size, n, m) for n in NETWORKS for m in ("float", "safe")],
        "performance": [(printed.score, n, m) for n in NETWORKS for m in ("float", "safe")],
    }
    for name, cells in places.items():
        for stated, (read, network, method) in zip(TEXT[name].numbers, cells):
            yield f"{SHORT[network]}, {method}", stated, read(network, method)


def _checked(printed: _Printed) -> Finding:
    repeated = list(_repeated(printed))
    rows = tuple({"cell": cell, "in the text": stated, "in the table": table} for cell, stated, table in repeated)
    equal = sum(stated == table for _, stated, table in repeated)
    cnn = NETWORKS[CNN]
    start = q_after(DECODER, NETWORKS[DECODER].bytes_per_bit * START_BITS)
    logged = printed.log("decoder_main")[0]["q"]
    tight = tight_start_bytes(CNN)
    text = (
        f"{equal} of {len(repeated)} numbers that the text repeats are those of the tables. The first logged Q of the "
        f"decoder, {logged:.4f}, is what {NETWORKS[DECODER].weights:,} weights of {START_BITS:g} bits over "
        f"{NETWORKS[DECODER].scalars:,} trained scalars give ({start:.4f}): the networks of the published code are "
        f"those that we build. Sizes are nominal: the codes of the CNN's freshly drawn weights fit into {tight:,.0f} "
        f"bytes ({8 * tight / cnn.weights:.2f} bits per weight), whatever its {START_BITS:g} bits."
    )
    numbers = {"repeated": len(repeated), "equal": equal, "q_logged": logged, "q": start, "tight": tight}
    title, tables = "What checks out: repeated numbers, the networks", ("table1", "table2", "drift")
    sources = printed.sources("decoder_main", "main_code")
    quotes = words_of(TEXT, "sizes", "performance")
    return Finding("safety-16", title, text, "arithmetic", "minor", tables, rows, numbers, quotes, sources)


_FINDINGS = (
    _headline,
    _sixty_percent,
    _larger,
    _drift,
    _original_size,
    _attention_only,
    _averaged,
    _equations,
    _preserved_images,
    _names,
    _restoration,
    _other_runs,
    _variance,
    _reported_loss,
    _references,
    _checked,
)
