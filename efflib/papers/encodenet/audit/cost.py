"""Finding 16, cost: training of an EncodeNet, its baseline and a distilled run, counted on the networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from efflib.papers.encodenet.audit.counting import decoder_macs_of, difference_deviation, macs_of
from efflib.papers.encodenet.audit.evidence import DATASETS, MODELS, TEXT, TRAINING, Printed
from efflib.report.audit import Finding, words_of

_STAGE2_EPOCHS = 100  # not stated in the paper: our choice (spec, section 4.3)
_COSTED = (*MODELS, "resnet32", "resnet50")


@dataclass(frozen=True)
class Cost:
    """PFLOP (1e15) of the stages of one EncodeNet at the paper's epochs; a backward pass counts as two forward ones."""

    baseline: float
    autoencoder: float
    frozen: float
    finetuned: float

    @property
    def extra(self) -> float:
        """Autoencoder and frozen second stage, relative to the baseline's training."""
        return (self.autoencoder + self.frozen) / self.baseline


@cache
def cost(model: str) -> Cost:
    """Training cost of an EncodeNet: 50,000 images, epochs as printed, 100 for the second stage."""
    (plain,), (converting,) = TEXT["baseline_epochs"].numbers, TEXT["autoencoder_epochs"].numbers
    classifier, whole = macs_of(model), macs_of(model) + decoder_macs_of(model)
    return Cost(
        _pflop(3 * classifier, int(plain)),
        _pflop(3 * whole, int(converting)),
        _pflop(classifier, _STAGE2_EPOCHS),
        _pflop(3 * classifier, _STAGE2_EPOCHS),
    )


def _pflop(macs: int, epochs: int) -> float:
    """MACs per image, two FLOPs each, over the epochs of a run."""
    return 2 * macs * TRAINING * epochs / 1e15


def budget(printed: Printed) -> Finding:
    costs = {model: cost(model) for model in _COSTED}
    rows = tuple(
        {
            "model": model,
            "baseline, PFLOP": own.baseline,
            "autoencoder, PFLOP": own.autoencoder,
            "second stage, frozen": own.frozen,
            "second stage, fine-tuned": own.finetuned,
            "extra / baseline": own.extra,
        }
        for model, own in costs.items()
    )
    fact = printed.facts["peer_recipes"]
    epochs = int(sum(n for name in ("baseline_epochs", "autoencoder_epochs") for n in TEXT[name].numbers))
    extra = [own.extra for own in costs.values()]
    distilled = {student: _distilled(student, fact["distillation_epochs"]) for student in ("resnet32", "vgg8")}
    gains = [_gain_in_deviations(printed, m, d) for m in MODELS for d in DATASETS]
    text = (
        f"EncodeNet trains for {epochs} epochs before its second stage, of unstated length; the distillation recipes "
        f"have {fact['distillation_epochs']} epochs, those of the attention modules {fact['attention_epochs']}. "
        f"Counted on the networks, with a decoder of our choice and {_STAGE2_EPOCHS} epochs for the second stage, "
        f"EncodeNet costs {1 + min(extra):.1f} to {1 + max(extra):.1f} times its baseline's training, and no baseline "
        f"is trained as long. (With the teacher's training included, KD costs {distilled['resnet32']:.0f} PFLOP for "
        f"ResNet32 and {distilled['vgg8']:.0f} for VGG8, EncodeNet with its baseline {_total(costs['resnet32']):.0f} "
        f"and {_total(costs['vgg8']):.0f}, its baseline's 300 epochs included.) Neither a number of runs nor a "
        "deviation is given, so every number appears to be one run. Gains of Table 2 below two standard deviations "
        "from the choice of test images alone, before any from initial weights: "
        f"{sum(g < 2 for g in gains)} of {len(gains)}."
    )
    numbers = {
        "epochs": epochs,
        "distillation_epochs": fact["distillation_epochs"],
        "attention_epochs": fact["attention_epochs"],
    }
    numbers |= {"smallest_total": 1 + min(extra), "largest_total": 1 + max(extra)}
    numbers |= {f"{model}_{name}": getattr(own, name) for model, own in costs.items() for name in _STAGES}
    numbers |= {f"kd_with_teacher_{student}": value for student, value in distilled.items()}
    numbers |= {"gains_below_two": sum(g < 2 for g in gains), "largest_gain": max(gains)}
    title, tables = "Nothing is compared at equal training, and no deviation is given", ("table2", "table4", "table5")
    quotes, sources = words_of(TEXT, "baseline_epochs", "autoencoder_epochs"), printed.sources("peer_recipes")
    return Finding("encodenet-16", title, text, "statistics", "major", tables, rows, numbers, quotes, sources)


_STAGES = ("baseline", "autoencoder", "frozen", "finetuned", "extra")


def _total(own: Cost) -> float:
    return own.baseline + own.autoencoder + own.frozen


def _distilled(student: str, epochs: int) -> float:
    """KD of a pair of Table 4 with its teacher's training, PFLOP."""
    teacher = {"resnet32": "resnet110", "vgg8": "vgg16"}[student]
    return _pflop(3 * macs_of(student) + macs_of(teacher), epochs) + _pflop(3 * macs_of(teacher), epochs)


def _gain_in_deviations(printed: Printed, model: str, dataset: str) -> float:
    keys = {"model": model, "dataset": dataset}
    before, after = (float(printed.value("table2", method=m, **keys)) for m in ("baseline", "encodenet"))
    return (after - before) / difference_deviation(before, after)
