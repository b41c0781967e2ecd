"""Claims of the safety paper (and ours about it) as comparisons, fixed before any result existed.

The wording and the statistics follow section 5 of the implementation spec. Every difference is paired by seed: the
runs of one seed share initial weights and the order of their batches. A cell is {model, dataset, method}; in our own
setting (preset `default`) the methods are `default_unsafe` and `default_safe`, with a key gamma.

Metrics: ``last``, test accuracy in percent or validation loss in nats per character after the last step; bytes by four
measures (``soft_bytes`` is what the paper reports); ``train`` and ``preservation`` in the unit of ``last``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from efflib.papers.table import Claim, claims_of
from efflib.report.verdict import Comparison, paired, shift

CNN, DECODER = ("mnist_cnn", "mnist"), ("names_decoder", "names")
NEAR = 0.5  # percent: how far soft sizes may lie from the optimiser's drift
RATIO = {CNN: 0.66, DECODER: 0.61}  # the printed size of the safe model over that of the float one
GAIN = {"float": 0.9, "unsafe": 2.5}  # points that table I prints for the safe CNN over the others

Network = tuple[str, str]


# --- table I: the CNN -------------------------------------------------------------------------------------


def safe_beats_float(results: Any) -> list[Comparison]:
    """C1: accuracy(safe) > accuracy(float) (table I: 99.5 against 98.6)."""
    return [_less(results, CNN, "safe", "float")]


def safe_beats_unsafe(results: Any) -> list[Comparison]:
    """C2: accuracy(safe) > accuracy(unsafe) (table I: 99.5 against 97.0), at sizes that differ by 2 %."""
    return [_less(results, CNN, "safe", "unsafe")]


def printed_gains(results: Any) -> list[Comparison]:
    """The printed sizes of both gains: at least 0.9 points over float and 2.5 over unsafe."""
    made = []
    for other, points in GAIN.items():
        found = _less(results, CNN, "safe", other)
        made.append(Comparison(f"{found.label} - {points:g}", shift(found.samples or {}, -points)))
    return made


def safe_is_smaller(results: Any) -> list[Comparison]:
    """C3: soft bytes(safe) <= 0.66 bytes(float) (table I)."""
    return [_smaller(results, CNN)]


def less_overfitting(results: Any) -> list[Comparison]:
    """C4: train-test gap of safe < gap of unsafe ("reduces variance", abstract and conclusion, without a figure)."""
    gaps = [
        paired(_metric(results, CNN, method, "train"), _metric(results, CNN, method, "last"))
        for method in ("safe", "unsafe")
    ]
    return [Comparison("train - test: safe - unsafe", paired(*gaps), "<")]


def selected_beats_random(results: Any) -> list[Comparison]:
    """C6: the selected preservation set > as many random images."""
    return [_less(results, CNN, "safe", "safe_random")]


def safe_beats_more_data(results: Any) -> list[Comparison]:
    """Ours: safe > the same run with 64 more ordinary training images per step in place of preserved ones."""
    return [_less(results, CNN, "safe", "extra_batch")]


def unsafe_equals_float(results: Any) -> list[Comparison]:
    """Ours: at 32 bits quantisation does nothing: |accuracy(unsafe) - accuracy(float)| < 0.5 points."""
    found = _less(results, CNN, "unsafe", "float")
    return _within(found, 0.5)


def sizes_are_the_drift(network: Network) -> Callable[[Any], list[Comparison]]:
    """Ours: soft bytes of safe and unsafe lie within 0.5 % of what the optimiser alone gives after as many steps."""

    def comparisons(results: Any) -> list[Comparison]:
        made = []
        for method in ("unsafe", "safe"):
            samples = {
                seed: 100 * (size / _drift(results, network, method, seed) - 1)
                for seed, size in _metric(results, network, method, "soft_bytes").items()
            }
            made += _within(Comparison(f"{method}: soft bytes over drift - 1, in %", samples), NEAR)
        return made

    return comparisons


def tightening_is_free(network: Network) -> Callable[[Any], list[Comparison]]:
    """Ours: whole bits that hold the codes of the safe run give the same result at less than half of its soft size."""

    def comparisons(results: Any) -> list[Comparison]:
        tight, soft = (_metric(results, network, "safe", name) for name in ("tight_bytes", "soft_bytes"))
        share = {seed: tight[seed] / soft[seed] - 0.5 for seed in tight.keys() & soft.keys()}
        after, before = (_metric(results, network, "safe", name) for name in ("tightened_test", "last"))
        same = Comparison("after tightening - before", paired(after, before))
        return [Comparison("tight bytes / soft bytes - 0.5", share, "<"), *_within(same, 0.05)]

    return comparisons


# --- table II: the decoder --------------------------------------------------------------------------------


def loss_below_float(results: Any) -> list[Comparison]:
    """D1: loss(safe) < loss(float) (table II: 1.6 against 1.8)."""
    return [_less(results, DECODER, "safe", "float", "<")]


def loss_below_unsafe(results: Any) -> list[Comparison]:
    """D2: loss(safe) < loss(unsafe) (table II: 1.6 against 1.9)."""
    return [_less(results, DECODER, "safe", "unsafe", "<")]


def larger_than_unsafe(results: Any) -> list[Comparison]:
    """D3, second half: soft bytes(safe) > soft bytes(unsafe) (table II: 505,381 against 425,865)."""
    sizes = [_metric(results, DECODER, method, "soft_bytes") for method in ("safe", "unsafe")]
    return [Comparison("soft bytes: safe - unsafe", paired(*sizes))]


def decoder_is_smaller(results: Any) -> list[Comparison]:
    """D3, first half: soft bytes(safe) <= 0.61 bytes(float) (table II)."""
    return [_smaller(results, DECODER)]


def longer_training_explains(results: Any) -> list[Comparison]:
    """Ours: the float decoder improves from 5,000 to 10,000 steps, as the published runs differ in length."""
    return [_less(results, DECODER, "float", "float_half", "<")]


def decoder_equals_float(results: Any) -> list[Comparison]:
    """Ours: at 32 bits quantisation does nothing: |loss(unsafe) - loss(float)| < 0.05 nats at equal length."""
    return _within(_less(results, DECODER, "unsafe", "float"), 0.05)


# --- arithmetic -------------------------------------------------------------------------------------------


def _metric(results: Any, network: Network, method: str, metric: str) -> dict[int, float]:
    model, dataset = network
    return results.samples(metric=metric, model=model, dataset=dataset, method=method)


def _less(results: Any, network: Network, one: str, other: str, side: str = ">") -> Comparison:
    arms = [_metric(results, network, method, "last") for method in (one, other)]
    return Comparison(f"{one} - {other}", paired(*arms), side)


def _smaller(results: Any, network: Network) -> Comparison:
    safe, whole = (_metric(results, network, method, "soft_bytes") for method in ("safe", "float"))
    ratio = {seed: safe[seed] / whole[seed] - RATIO[network] for seed in safe.keys() & whole.keys()}
    return Comparison(f"soft bytes: safe / float - {RATIO[network]:g}", ratio, "<")


def _within(found: Comparison, bound: float) -> list[Comparison]:
    samples = found.samples or {}
    return [
        Comparison(f"{found.label} {side} {edge:g}", shift(samples, -edge), side)
        for side, edge in ((">", -bound), ("<", bound))
    ]


def _drift(results: Any, network: Network, method: str, seed: int) -> float:
    """Bytes that the optimiser alone gives after the steps of this run."""
    from efflib.papers.safety.drift import sizes_after

    matching = results.matching(model=network[0], dataset=network[1], method=method)
    (entry,) = [e for e in matching if e.seed == seed]
    return float(sizes_after(network[0], entry.trial.settings.steps)[-1])


# --- the list ---------------------------------------------------------------------------------------------

_CNN, _DECODER = "CNN, MNIST, published setting", "decoder, names, published setting"

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "table1": claims_of(
        "safety", "table1",
        ("a", "The safe model is more accurate than the float model.", "paper", _CNN, safe_beats_float, "small"),
        ("b", "The safe model is more accurate than the unsafe one.", "paper", _CNN, safe_beats_unsafe, "small"),
        ("c", "It is so by 0.9 points over float and by 2.5 over unsafe.", "paper", _CNN, printed_gains, "paper"),
        ("d", "The gap between training and test accuracy is smaller than the unsafe model's.", "paper", _CNN,
         less_overfitting, "small"),
        ("e", "The selected preservation set is better than as many random images.", "paper", _CNN,
         selected_beats_random, "small"),
        ("f", "Preserved images are better than as many more ordinary ones per step.", "ours", _CNN,
         safe_beats_more_data, "small"),
        ("g", "In this setting quantisation does nothing: unsafe is within 0.5 points of float.", "ours", _CNN,
         unsafe_equals_float, "small"),
        ("h", "Tightening the safe model to whole bits halves its size and changes no result.", "ours", _CNN,
         tightening_is_free(CNN), "small"),
    ),
    "table1_bytes": claims_of(
        "safety", "table1_bytes",
        ("a", "The safe model takes at most 66 % of the float model's bytes.", "paper", _CNN, safe_is_smaller, "paper"),
        ("b", "Both sizes are within 0.5 % of what the optimiser alone gives after as many steps.", "ours", _CNN,
         sizes_are_the_drift(CNN), "tiny"),
    ),
    "table2": claims_of(
        "safety", "table2",
        ("a", "The safe model has a lower loss than the float model.", "paper", _DECODER, loss_below_float, "small"),
        ("b", "The safe model has a lower loss than the unsafe one.", "paper", _DECODER, loss_below_unsafe, "small"),
        ("c", "The float model gains from being trained as long as the compressed one.", "ours", _DECODER,
         longer_training_explains, "paper"),
        ("d", "In this setting quantisation does nothing: unsafe is within 0.05 nats of float.", "ours", _DECODER,
         decoder_equals_float, "small"),
        ("e", "Tightening the safe model to whole bits halves its size and changes no result.", "ours", _DECODER,
         tightening_is_free(DECODER), "small"),
    ),
    "table2_bytes": claims_of(
        "safety", "table2_bytes",
        ("a", "The safe model takes at most 61 % of the float model's bytes.", "paper", _DECODER, decoder_is_smaller,
         "paper"),
        ("b", "The safe model is larger than the unsafe one.", "paper", _DECODER, larger_than_unsafe, "paper"),
        ("c", "Both sizes are within 0.5 % of what the optimiser alone gives after as many steps.", "ours", _DECODER,
         sizes_are_the_drift(DECODER), "tiny"),
    ),
}  # fmt: skip
