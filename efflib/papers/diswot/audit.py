"""The audit of the DisWOT thesis: 19 findings, recomputed from printed numbers and from the networks themselves.

Findings 1 to 18 are those of section 6 of the implementation spec; 19 lists what checks out. No number below is typed
from a finding: texts are formatted from computed values, numbers of the running text are read from quoted sentences,
counts come from built networks and facts about the data from references.yaml. Wording is about the printed page ("as
printed", "appears"), never about intentions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from efflib.papers.diswot.costs import Cost, cost, formula_parameters, literal_macs, memory_access, recorded
from efflib.papers.diswot.scores import bound
from efflib.papers.diswot.space import ROLES, STUDENTS, TEACHER
from efflib.papers.safety.audit import Sentence
from efflib.papers.table import PrintedCell, PrintedTable, load_printed
from efflib.report.audit import Finding, exact, half_up

_HERE = Path(__file__).parent
BEST = ROLES["Best"]
BATCH = 32  # Table 3.2
METHODS = {
    "baseline": "CE only",
    "kd": "KD",
    "gradcam_l2": "Grad-CAM + L2",
    "gradcam_cosine": "Grad-CAM + cosine",
    "lrp_l2": "LRP + L2",
    "lrp_cosine": "LRP + cosine",
}
CITED = ("hinton", "gradcam", "gradcam_maps", "contrastive", "iqbal", "elazab")


# --- words of the thesis ----------------------------------------------------------------------------------

TEXT = {
    "headline": Sentence(
        "abstract",
        "Our best student model achieved 95.35% classification accuracy, while reducing over 85% of the parameters in "
        "the teacher model",
    ),
    "split": Sentence(
        "section 3.4", "The model is trained on a dataset consisting of 5,170 training images and 1,370 testing images"
    ),
    "total": Sentence("section 3.2", "The dataset includes a total of approximately 7,000 images"),
    "validation": Sentence("section 3.4", "This teacher achieves 98.02% validation accuracy"),
    "fewest": Sentence(
        "section 3.6",
        "with the student having the lowest score achieving the highest test accuracy and the fewest parameters",
    ),
    "space": Sentence("section 3.5.1", "three student models from the search space that contain 16 student’s variants"),
    "inverse": Sentence(
        "section 3.5.1",
        "the results show a clear inverse correlation between the DisWOT score and the final test performance of "
        "student models",
    ),
    "untrained": Sentence(
        "section 2.4", "carefully designed similarity metrics computed from randomly initialized networks"
    ),
    "without_training": Sentence("section 2.4", "DisWOT selects the best student model without training"),
    "each_trained": Sentence(
        "section 2.3", "each variant is trained individually using the KD framework described previously"
    ),
    "teacher_size": Sentence(
        "section 4.5.4 (so numbered)",
        "It contains approximately 18.35 million parameters, with 644.8M FLOPs and 322.4M MACs",
    ),
    "student_size": Sentence(
        "section 4.5.4 (so numbered)", "with only 2.62 million parameters, 613.4M FLOPs, and 306.7M MACs"
    ),
    "half": Sentence("section 3.3.2", "MACs are equivalent to roughly half the FLOPs for CNNs"),
    "backwards": Sentence(
        "section 2.6.1", "LRP iterates the final output score of the model backwards through the network"
    ),
    "resolution": Sentence(
        "section 2.6.1", "Provides higher spatial resolution and is class-specific, compared to Grad-CAM"
    ),
    "range": Sentence("section 2.6.2", "The result lies in the range $[0,2]$"),
    "norm": Sentence("section 2.4.1.1", "stands for the L2 norm"),
    "squared": Sentence("section 2.5.2", "L2 loss (squared Euclidean distance)"),
    "invariant": Sentence(
        "section 2.6.2",
        "The key benefit of cosine similarity compared to L2 is that cosine similarity is invariant to the magnitude "
        "of "
        "the vector",
    ),
    "overfitting": Sentence(
        "section 3.5.3",
        "Model 2 despite using the same configuration and a longer training duration (30 epochs) experienced a sharp "
        "decline in test accuracy (43.26%), indicating instability and overfitting over extended training",
    ),
    "modest": Sentence(
        "section 3.5.3",
        "Introducing Layer-Wise Relevance Propagation (LRP) in Model 3 led to a modest improvement in test accuracy",
    ),
    "decrease": Sentence("Table 3.4", "a slight decrease in the accuracy"),
    "marginal": Sentence("section 3.5.2", "The standard KD achieves only marginal improvement, reaching (84.59%)"),
    "start": Sentence(
        "section 3.5.2", "beginning at 87.96% and reaching 91.24% accuracy by the tenth epoch"
    ),
    "ten_epochs": Sentence("section 3.5.2", "analyzing the performance of each approach over 10 epochs"),
    "losses": Sentence("section 3.5.2", "decreasing and converging the values gradually around (0.41) in the epoch 10"),
    "total_loss": Sentence(
        "section 3.5.2",
        "a consistently lower validation loss throughout the training process, stabilizing around (0.08 and 0.1)",
    ),
    "outperforms": Sentence(
        "section 3.5.5",
        "our approach not only outperforms their method in terms of accuracy (95.35% vs. 95.3%) but also significantly "
        "reduces the model size (2.25M vs. 3.2M parameters)",
    ),
    "structure": Sentence("General Introduction", "Chapter 3: Presents experimental results"),
    "chapter": Sentence("section 2.4.2", "as will be shown in Chapter 4 of Experimental results"),
    "section": Sentence(
        "chapter 3", "4.5.4 Measuring the lightweighting ratio between teacher and student model"
    ),
    "figure": Sentence(
        "section 3.5.3", "(figure 4.8) shows attention maps across axial, sagittal, and coronal views"
    ),
    "above": Sentence(
        "section 2.6.2", "as explained Section 3.2 above, L2 loss is sensitive to the scale of activations"
    ),
    "equations": Sentence("section 3.5.2", "(refer to Equations 2.6 and 2.7)"),
    "class": Sentence("section 2.6.3", "softened probability for class 3 from teacher logits"),
    "hinton": Sentence("section 2.2", "a model compression technique proposed by Hinton et al. (2015) [80]"),
    "hinton_listed": Sentence("references", '[80] R. Jafari et al., "FedBrain-Distill'),
    "gradcam": Sentence("section 2.4.1.1", "Semantic information is extracted using Grad-CAM [82]"),
    "gradcam_listed": Sentence(
        "references", '[82] B. Zhou et al., "Learning deep features for discriminative localization,"'
    ),
    "gradcam_maps": Sentence("section 2.5.1", "The Grad-CAM [83] maps were not reliable"),
    "gradcam_maps_listed": Sentence(
        "references",
        '[83] J. T. Springenberg, A. Dosovitskiy, T. Brox, and M. Riedmiller, "Striving for simplicity: The all '
        'convolutional net,"',
    ),
    "contrastive": Sentence("section 1.6.4", "(Contrastive KD) [72]"),
    "contrastive_listed": Sentence(
        "references", '[72] H. Touvron et al., "Training data-efficient image transformers & distillation,"'
    ),
    "iqbal": Sentence("Table 3.8", "Iqbal et al. [77]"),
    "iqbal_listed": Sentence(
        "references", '[77] I. Elazab et al., "Lightweight CNNs with knowledge distillation for brain tumor detection,"'
    ),
    "elazab": Sentence("Table 3.8", "Elazab et al. [78]"),
    "elazab_listed": Sentence(
        "references",
        '[78] E. Alrashedy et al., "Knowledge distillation and pruning for brain tumor classification,"',
    ),
}  # fmt: skip

# Equations as printed, in LaTeX.
EQUATIONS = {
    "1.8": r"\text{Cost}_{\text{depthwise separable}} \approx "
    r"\frac{1}{N} \cdot \text{Cost}_{\text{standard convolution}}",
    "2.9": r"L_{Sem} = \|M_T - M_S\|_2",
    "2.13": r"DisWOT_{score} = \operatorname{argmin}(L_{sem} + L_{rel})",
    "2.15": r"\alpha + \beta + \gamma + \delta = 1",
    "2.16": r"L_{l2} = \|M_T - M_S\|_2^2",
    "3.2": r"Accuracy = \frac{TP + FN}{TP + FN + TN + FP}",
    "3.8": r"Parameters = (k^2 \times C_{in} \times C_{out}) + C_{out}",
    "3.10": r"R_T = \frac{\tilde{A}_T \cdot \tilde{A}_T^T}{\|\tilde{A}_T \cdot \tilde{A}_T^T\|_2}",
    "3.11": r"R_S = \frac{A_S \cdot A_S^T}{\|A_S \cdot A_S^T\|_2}",
}


def _words(*names: str) -> tuple[str, ...]:
    return tuple(TEXT[name].words for name in names)


def _equations_as_printed(*numbers: str) -> tuple[str, ...]:
    return tuple(f"${EQUATIONS[number]}$ ({number})" for number in numbers)


# --- what a finding may read ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Printed:
    """Printed tables and quoted facts."""

    tables: dict[str, PrintedTable]
    facts: dict[str, dict[str, Any]]

    def value(self, table: str, **keys: Any) -> Decimal:
        return exact(self.tables[table].cell(**keys).value)

    def role(self, table: str, role: str) -> Decimal:
        """Of Table 3.3, whose rows are named by quality."""
        (cell,) = (c for c in self.tables[table].cells if c.printed["role"] == role)
        return exact(cell.value)

    def sources(self, *names: str) -> tuple[str, ...]:
        """Where the named facts come from."""
        return tuple(self.facts[name]["source"] for name in names)

    @property
    def test_images(self) -> int:
        return sum(self.facts["kaggle_split"]["test"].values())

    @property
    def train_images(self) -> int:
        return sum(self.facts["kaggle_split"]["train"].values())


@cache
def load() -> _Printed:
    """Read printed.yaml and references.yaml of this paper once."""
    import yaml

    raw = yaml.safe_load((_HERE / "references.yaml").read_text(encoding="utf-8"))
    return _Printed(load_printed(_HERE / "printed.yaml"), {fact["id"]: fact for fact in raw["facts"]})


def findings(table: str | None = None) -> list[Finding]:
    """Findings about this paper, in the order of the implementation spec (section 6).

    Builds networks to count parameters and operations; the first call takes seconds, later ones do not.

    Args:
        table: only those about this table or page, e.g. table3_3.
    """
    printed = load()
    made = [make(printed) for make in _FINDINGS]
    return [finding for finding in made if table is None or table in finding.tables]


# --- arithmetic of accuracies -----------------------------------------------------------------------------


def counts_for(printed: Decimal, images: int) -> range:
    """How many of so many images may be right for a share in [0, 1] as printed, whichever way halves were rounded."""
    half = Decimal(5).scaleb(int(printed.as_tuple().exponent) - 1)
    least = max(0, math.ceil((printed - half) * images))
    return range(least, min(images, math.floor((printed + half) * images)) + 1)


def percent_counts(percent: Decimal, images: int) -> range:
    """As `counts_for`, for an accuracy in percent with two decimals."""
    return counts_for((percent / 100).quantize(Decimal("0.0001")), images)


def wilson(correct: int, images: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson interval of an accuracy, in percent."""
    from scipy.stats import binomtest

    found = binomtest(correct, images).proportion_ci(level, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def _accuracies(printed: _Printed) -> dict[Decimal, str]:
    """Every test accuracy that the thesis reports for its own networks, in percent, and the first place of each."""
    found: dict[Decimal, str] = {}
    for table in ("table3_3", "table3_4", "table3_5", "table3_6"):
        factor = 100 if printed.tables[table].unit == "fraction" else 1
        for cell in printed.tables[table].numbers:
            found.setdefault((factor * exact(cell.value)).normalize(), table)
    return found


def _report_counts(printed: _Printed, model: str) -> dict[str, range]:
    """Class -> how many test images of it may be right, by the recall that Table 3.7 prints for a model."""
    table, classes = printed.tables["table3_7"], printed.facts["kaggle_split"]["test"]
    shares = {name: table.cell(model=model, **{"class": name}, measure="recall").value for name in classes}
    return {name: counts_for(Decimal(f"{shares[name]:.2f}"), classes[name]) for name in classes}


def _swapped(printed: _Printed) -> Finding:
    names = {"teacher": TEACHER.name, "student": BEST}
    reports = {role: _report_counts(printed, name) for role, name in names.items()}
    stated = {role: printed.value("table3_6", model=name) for role, name in names.items()}
    correct = {role: _correct(printed, value) for role, value in stated.items()}
    ranges = {role: [sum(found[end] for found in own.values()) for end in (0, -1)] for role, own in reports.items()}
    fits = {(role, other): ranges[role][0] <= correct[other] <= ranges[role][1] for role in names for other in names}
    swapped = [fits[role, other] for role in names for other in names] == [False, True, True, False]
    better = sum(max(reports["student"][c]) > max(reports["teacher"][c]) for c in reports["student"])
    rows = tuple(
        {
            "report printed for the": role,
            "correct images by its recalls": f"{least:,} to {most:,}",
            "accuracy by its recalls, %": f"{_percent(printed, least):.1f} to {_percent(printed, most):.1f}",
            **{f"{other} in Table 3.6, %": value for other, value in stated.items()},
        }
        for role, (least, most) in ranges.items()
    )
    text = (
        f"With the class sizes of the test set, the recalls printed for the teacher mean {ranges['teacher'][0]:,} to "
        f"{ranges['teacher'][1]:,} correct images, those printed for the student {ranges['student'][0]:,} to "
        f"{ranges['student'][1]:,}. Table 3.6 has {correct['teacher']:,} (teacher) and {correct['student']:,} "
        "(student): "
        + ("each report fits the other network only, and the two labels appear to be swapped. " if swapped else "")
        + f"As printed, the student's recall is the higher one in {better} of {len(reports['student'])} classes."
    )
    numbers = {f"{role}_{end}": count for role, own in ranges.items() for end, count in zip(("least", "most"), own)}
    numbers |= {f"{role}_correct": count for role, count in correct.items()}
    numbers |= {"student_better": better, "swapped": swapped}
    title = "The two reports of Table 3.7 appear to have each other's label"
    tables, sources = ("table3_7", "table3_6"), printed.sources("kaggle_split")
    return Finding("diswot-1", title, text, "text", "major", tables, rows, numbers, (), sources)


def _correct(printed: _Printed, percent: Decimal) -> int:
    """The number of correct test images that comes nearest to an accuracy."""
    return int(half_up(percent * printed.test_images / 100, 0))


def _percent(printed: _Printed, correct: int) -> float:
    return 100 * correct / printed.test_images


@cache
def sizes_that_fit(accuracies: tuple[Decimal, ...], low: int = 1000, high: int = 2000) -> dict[int, int]:
    """Test-set size -> how many of the accuracies (percent) a whole number of correct images gives."""
    return {n: sum(bool(percent_counts(value, n)) for value in accuracies) for n in range(low, high + 1)}


def _split(printed: _Printed) -> Finding:
    stated_train, stated_test = map(int, TEXT["split"].numbers)
    (total,) = map(int, TEXT["total"].numbers)
    accuracies = _accuracies(printed)
    n = printed.test_images
    fits = sizes_that_fit(tuple(accuracies))
    most = max(fits.values())
    best = [size for size, count in fits.items() if count == most]
    rows = tuple(
        {
            "accuracy, %": value,
            "first in": place.replace("_", ".").replace("table", "Table "),
            f"of {n:,} images": next(iter(percent_counts(value, n)), None),
            f"of {stated_test:,} images": next(iter(percent_counts(value, stated_test)), None),
        }
        for value, place in sorted(accuracies.items())
    )
    kd = [_correct(printed, _points(printed, "table3_4", method)) for method in ("kd", "baseline")]
    maps = [
        _correct(printed, printed.value("table3_5", method=method, epochs=epochs))
        for method, epochs in (("lrp_l2", 30), ("gradcam_l2", 15))
    ]
    text = (
        f"The text gives {stated_train:,} training and {stated_test:,} test images, {stated_train + stated_test:,} "
        f"together, and approximately {total:,}. Of the {len(accuracies)} different test accuracies, "
        f"{fits[n]} are whole numbers of {n:,} images, to both printed decimals, and "
        f"{fits[stated_test] or 'none'} of {stated_test:,}; "
        f"{'no other size' if best == [n] else f'{len(best)} sizes'} between {min(fits):,} and {max(fits):,} "
        f"{'fits as many' if best == [n] else 'fit equally many'}. The test set appears to be the published one of "
        f"{n:,}; its training part has {printed.train_images:,}. Counted in images, KD is {kd[0] - kd[1]} above "
        f"training with cross-entropy ({kd[0]:,} against {kd[1]:,}), and Model 3 is {maps[0] - maps[1]} above Model 1 "
        f"({maps[0]:,} against {maps[1]:,})."
    )
    numbers = {"stated_total": stated_train + stated_test, "true_total": n + printed.train_images}
    numbers |= {"accuracies": len(accuracies), "fit": fits[n], "fit_stated": fits[stated_test], "best_sizes": len(best)}
    numbers |= {"test": n, "train": printed.train_images, "kd": kd[0], "ce": kd[1], "kd_over_ce": kd[0] - kd[1]}
    numbers |= {"lrp_l2": maps[0], "gradcam_l2": maps[1], "lrp_over_gradcam": maps[0] - maps[1]}
    title = "The accuracies are those of the published split, not of the stated one"
    tables = ("table3_3", "table3_4", "table3_5", "table3_6")
    sources, quotes = printed.sources("kaggle_split"), _words("split", "total")
    return Finding("diswot-2", title, text, "statistics", "notable", tables, rows, numbers, quotes, sources)


# --- sizes ------------------------------------------------------------------------------------------------


def _millions(cell: PrintedCell) -> Decimal:
    """The parameter column of Table 3.8, in millions."""
    return Decimal(cell.printed["parameters"].removesuffix("M"))


def _two_counts(printed: _Printed) -> Finding:
    own = cost(BEST)
    head = own.keras_parameters - own.backbone_keras_parameters
    quoted = _millions(printed.tables["table3_8"].cell(model=BEST))
    rounded = half_up(Decimal(own.backbone_keras_parameters) / 10**6)
    printed_as = {
        "Table 3.3": printed.role("table3_3_parameters", "Best"),
        "Table 3.5": printed.value("table3_5_parameters", epochs=50),
        "Table 3.6": printed.value("table3_6_parameters", model=BEST),
    }
    rows = tuple(
        {
            "where": where,
            "as printed": f"{int(value):,}",
            "backbone without a head, counted": f"{own.backbone_keras_parameters:,}",
            "with its head, counted": f"{own.keras_parameters:,}",
        }
        for where, value in printed_as.items()
    )
    text = (
        f"Tables 3.3 and 3.5 give the best student {int(printed_as['Table 3.5']):,} parameters, Table 3.6 gives the "
        f"same student {int(printed_as['Table 3.6']):,}. The first is a MobileNetV2 without any head, the second has "
        f"the dense head ({head:,}). Table 3.8 compares with {quoted}M, the first number cut off (rounded it is "
        f"{rounded}M); with the head the network has {own.keras_parameters / 1e6:.2f}M. All are Keras totals, which "
        f"include {own.keras_parameters - own.parameters:,} running statistics of batch norms; PyTorch counts "
        f"{own.parameters:,}."
    )
    numbers = {"without_head": printed_as["Table 3.5"], "with_head": printed_as["Table 3.6"], "head": head}
    numbers |= {"counted_without": own.backbone_keras_parameters, "counted_with": own.keras_parameters}
    numbers |= {"torch": own.parameters, "quoted_millions": quoted, "rounded_millions": rounded}
    title = "One student, two parameter counts: without and with its head"
    tables = ("table3_3", "table3_5", "table3_6", "table3_8")
    return Finding("diswot-3", title, text, "baselines", "notable", tables, rows, _floats(numbers))


def _floats(numbers: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items()}


def _fewest(printed: _Printed) -> Finding:
    counts = {role: printed.role("table3_3_parameters", role) for role in ROLES}
    others = max(value for role, value in counts.items() if role != "Best")
    ratio = counts["Best"] / others
    rows = tuple(
        {
            "student": role,
            "parameters": f"{int(counts[role]):,}",
            "DisWOT score": printed.role("table3_3_score", role),
            "test accuracy, %": printed.role("table3_3", role),
        }
        for role in ROLES
    )
    text = (
        "The conclusion says that the student with the lowest score has the highest accuracy and the fewest "
        f"parameters. In Table 3.3 it has the {'most' if ratio > 1 else 'fewest'}: {int(counts['Best']):,} against "
        f"{int(others):,}, {ratio:.1f} times as many."
    )
    title = "The best student has the most parameters of the three, not the fewest"
    numbers = _floats({"best": counts["Best"], "others": others, "ratio": ratio})
    return Finding("diswot-4", title, text, "text", "notable", ("table3_3",), rows, numbers, _words("fewest"))


def _three_points(printed: _Printed) -> Finding:
    from scipy.stats import kendalltau

    scores, counts, accuracies = (
        [float(printed.role(table, role)) for role in ROLES]
        for table in ("table3_3_score", "table3_3_parameters", "table3_3")
    )
    by_score, by_size = kendalltau([-s for s in scores], accuracies), kendalltau(counts, accuracies)
    steps = math.ceil(printed.train_images / BATCH)
    norm, rows_bound, channels = bound(), 2.0 * BATCH, bound("relation_only", "sum_rows")
    rows = tuple(
        {
            "student": role,
            "score, as printed": printed.role("table3_3_score", role),
            "largest by the printed formula": f"{norm:.2f}",
            f"printed over {steps} batches": f"{score / steps:.4f}",
            "parameters": f"{int(count):,}",
        }
        for role, score, count in zip(ROLES, scores, counts)
    )
    above = [s for s in scores if s > norm]
    right = 1 / math.factorial(len(scores))
    text = (
        f"Both terms of the printed score are distances of matrices of unit norm, at most {norm / 2:.3f} each: the "
        f"score cannot exceed {norm:.2f}. {len(above)} of the {len(scores)} printed scores do, by up to "
        f"{max(scores) / norm:.0f} times; they also exceed {rows_bound:.0f}, the bound of a summed, row-normalised "
        f"Gram matrix of {BATCH} images. A sum over channels (bound {channels:,.0f}), or over the {steps} batches of "
        "an epoch, could be that large; the thesis says neither. Two of the three students have the same number of "
        f"parameters ({int(counts[1]):,}), and the best has more: the number of parameters alone names the winner "
        f"(tau-b {by_size.statistic:.2f}, that of the score {by_score.statistic:.2f}). Three students come in the "
        f"right order by chance once in {math.factorial(len(scores))} times (two-sided p = {by_score.pvalue:.2f}). The "
        f"thesis reports {len(scores)} of its {int(TEXT['space'].numbers[0])} variants; we score and train all of our "
        "space."
    )
    numbers = {"bound": norm, "above": len(above), "largest_ratio": max(scores) / norm, "rows_bound": rows_bound}
    numbers |= {"tau_score": float(by_score.statistic), "tau_parameters": float(by_size.statistic), "chance": right}
    numbers |= {"p": float(by_score.pvalue), "steps": steps, "equal_counts": counts[1] == counts[2]}
    numbers |= {f"per_batch_{role.lower()}": score / steps for role, score in zip(ROLES, scores)}
    numbers |= {"channel_bound": channels, "variants": float(TEXT["space"].numbers[0])}
    title = "Three points, of which two exceed the bound of the printed score"
    quotes, sources = _words("inverse", "space", "untrained"), printed.sources("official_code")
    return Finding("diswot-5", title, text, "statistics", "major", ("table3_3",), rows, numbers, quotes, sources)


def _saving(counted: Cost, base: Cost, what: str) -> float:
    """Percent by which a cost lies below another."""
    return 100 * (1 - getattr(counted, what) / getattr(base, what))


def _flatten(printed: _Printed) -> Finding:
    teacher, student = cost(TEACHER.name), cost(BEST)
    dense = recorded(TEACHER.name).dense[0]
    first = dense.weights + dense.outputs[0]
    columns = ("parameters", "flops", "size")
    _, stated = TEXT["headline"].numbers
    as_printed = {
        what: 100
        * (1 - printed.value(f"table3_6_{what}", model=BEST) / printed.value(f"table3_6_{what}", model=TEACHER.name))
        for what in columns
    }
    reduced = {size: _saving(cost(BEST, size), cost(TEACHER.name, size), "keras_parameters") for size in (96, 224)}
    drop = printed.value("table3_6", model=TEACHER.name) - printed.value("table3_6", model=BEST)
    rows = (
        *(
            {
                "network": name,
                "backbone": f"{own.backbone_keras_parameters:,}",
                "head": f"{own.keras_parameters - own.backbone_keras_parameters:,}",
                "MACs": f"{own.macs:,}",
                "memory access of the backbone (eq. 3.7)": f"{own.backbone_memory_access:,}",
                "MB": half_up(Decimal(own.megabytes)),
            }
            for name, own in (("teacher", teacher), ("student", student))
        ),
    )
    text = (
        f"The stated saving of over {stated} % of the parameters is {as_printed['parameters']:.2f} % in Table 3.6, the "
        f"FLOPs beside it fall by {as_printed['flops']:.2f} %. Teacher and student have the same backbone, "
        f"{teacher.backbone_keras_parameters:,} parameters: they differ in flattening the last map or averaging it. "
        f"The whole saving is the teacher's first dense layer on {dense.inputs[0]:,} inputs, {first:,} parameters. It "
        f"depends on the image size: at 96 pixels the same two networks differ by {reduced[96]:.1f} %. The accuracy "
        f"beside it falls by {drop} points."
    )
    numbers = {f"{what}_saving": float(value) for what, value in as_printed.items()}
    numbers |= {"saving_96": reduced[96], "saving_224": reduced[224], "first_dense": first, "drop": float(drop)}
    numbers |= {"same_backbone": teacher.backbone_keras_parameters == student.backbone_keras_parameters}
    title = "The saving is a global average in place of flattening, on one and the same backbone"
    quotes = _words("headline")
    return Finding("diswot-6", title, text, "text", "major", ("table3_6",), rows, numbers, quotes)


def _half_of_flops(printed: _Printed) -> Finding:
    rows, numbers = [], dict[str, float]()
    for role, name in (("teacher", TEACHER.name), ("student", BEST)):
        own = cost(name)
        flops, macs = (printed.value(f"table3_6_{what}", model=name) for what in ("flops", "macs"))
        numbers |= {f"{role}_flops": float(flops), f"{role}_macs": float(macs), f"{role}_true": own.macs}
        numbers |= {f"{role}_counted": own.profiler_flops, f"{role}_is_half": macs == flops / 2}
        rows.append(
            {
                "network": role,
                "FLOPs, as printed": f"{int(flops):,}",
                "profiler's count, recomputed": f"{own.profiler_flops:,}",
                "MACs, as printed": f"{int(macs):,}",
                "multiply-accumulates, counted": f"{own.macs:,}",
                "more, %": half_up(100 * (macs / own.macs - 1), 1),
            }
        )
    equal = all(row["FLOPs, as printed"] == row["profiler's count, recomputed"] for row in rows)
    text = (
        f"The printed FLOPs are {'exactly ' if equal else 'not '}what the TensorFlow profiler counts for these "
        "networks, batch norms, residual sums, biases and the softmax included. The printed MACs are half of that, so "
        f"that they contain all of these as well: {numbers['teacher_macs'] / 1e6:.1f} and "
        f"{numbers['student_macs'] / 1e6:.1f} million, where the convolutions and dense layers make "
        f"{numbers['teacher_true'] / 1e6:.1f} and {numbers['student_true'] / 1e6:.1f} million multiply-accumulates."
    )
    title = "The printed MACs are half of a profiler's FLOPs"
    numbers["profiler_equal"] = equal
    quotes = _words("half")
    return Finding("diswot-7", title, text, "arithmetic", "minor", ("table3_6",), tuple(rows), numbers, quotes)


# --- maps and distances -----------------------------------------------------------------------------------


@cache
def maps_apart(name: str, image_size: int = 64) -> float:
    """Largest difference of Grad-CAM and gradient times activation at the last map, over the largest Grad-CAM value.

    Of an untrained network in double precision on four random images, running statistics as in evaluation behind the
    map; signs kept.
    """
    import torch

    from efflib.distill.diswot_plus import class_map
    from efflib.papers.diswot.space import build
    from efflib.training import seeded

    with seeded(0, f"audit {name}"):
        network = build(name, image_size).double()
        images = torch.rand(4, 1, image_size, image_size, dtype=torch.float64)
    with torch.no_grad():
        features: Any = network.maps(images)["s32"]  # type: ignore[operator]
    features.requires_grad_()
    logits = network.logits_from("s32", features, as_in_eval=True)  # type: ignore[operator]
    classes = torch.arange(4)
    first, second = (
        class_map(features, logits, classes, kind, relu=False, create_graph=True) for kind in ("gradcam", "gxa")
    )
    return float((first - second).detach().abs().max() / first.detach().abs().max())


def _relevance(printed: _Printed) -> Finding:
    gaps = {name: maps_apart(name) for name in (TEACHER.name, *STUDENTS) if STUDENTS.get(name, TEACHER).head != "dsc"}
    of_students = max(value for name, value in gaps.items() if name != TEACHER.name)
    side = 224 // 32
    rows = tuple({"network": name, "largest relative difference": f"{value:.1g}"} for name, value in gaps.items())
    claimed = [
        cell.text["lrp_cosine"][0]
        for cell in printed.tables["table2_1"].cells
        if cell.keys["criterion"] in ("spatial_precision", "interpretability")
    ]
    text = (
        "What equations 2.17 and 2.18 define as LRP is the gradient times the activation at one layer; nothing is "
        "propagated from layer to layer. Behind a global average the gradient is the same at every position, so that "
        "the sum over channels of gradient times activation is Grad-CAM's map. In the untrained students with a global "
        f"average the largest relative difference of the two is {of_students:.1g} in double precision; in the teacher, "
        f"which flattens, it is {gaps[TEACHER.name]:.1f}. Replacing Grad-CAM by this LRP changes the teacher's map "
        "only. "
        f'Both have {side} x {side} positions at 224 pixels: "{claimed[0]}" and "{claimed[1]}" of Table 2.1 do not '
        "follow from it. Gradient times activation equals LRP with epsilon 0 for plain ReLUs; MobileNetV2 has ReLU6, "
        "whose gradient is zero where it saturates."
    )
    numbers = {"students": of_students, "teacher": gaps[TEACHER.name], "networks": len(gaps), "side": side}
    title = "LRP, as defined here, is Grad-CAM's map in every student with a global average"
    quotes = _words("backwards", "resolution")
    sources = printed.sources("lrp_equals_gradient")
    tables = ("table2_1", "table3_5", "table3_3")
    return Finding("diswot-8", title, text, "formulas", "major", tables, rows, numbers, quotes, sources)


@cache
def toy_distances() -> dict[str, float]:
    """Distances of two Gram matrices: of features I and of [[1, 0], [1, 0]]; and of two random batches."""
    import torch

    from efflib.kernels import gram_distance

    generator = torch.Generator().manual_seed(0)
    pairs = {
        "toy": (torch.eye(2, dtype=torch.float64), torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)),
        "random": tuple(torch.rand(BATCH, 49, generator=generator, dtype=torch.float64) for _ in range(2)),
    }
    return {
        f"{name}_{metric}": float(gram_distance(first, second, metric))
        for name, (first, second) in pairs.items()
        for metric in ("l2", "cosine")
    }


def _same_distance(printed: _Printed) -> Finding:
    found = toy_distances()
    rows = tuple(
        {
            "features": name,
            "L2 of eq. 2.9": f"{found[f'{name}_l2']:.7f}",
            "half of its square": f"{found[f'{name}_l2'] ** 2 / 2:.7f}",
            "cosine of eq. 2.27": f"{found[f'{name}_cosine']:.7f}",
        }
        for name in ("toy", "random")
    )
    apart = max(abs(found[f"{name}_l2"] ** 2 / 2 - found[f"{name}_cosine"]) for name in ("toy", "random"))
    stated = TEXT["range"].words
    text = (
        "For matrices of unit norm, 1 - <A, B> is half of the squared distance: the cosine form of the relation loss "
        f"(eq. 2.27) and the L2 form (eqs. 2.12, 3.12) order all pairs alike and have the same minimum (they agree to "
        f"{apart:.0e} in the examples below). Normalisation has made equations 2.9 and 2.12 invariant to scale "
        "already; "
        'that L2 is sensitive to scale holds for raw maps (eqs. 2.16 and 2.19). The thesis uses "L2" for three things: '
        "an unsquared distance of normalised matrices (2.9), a squared distance of raw maps (2.16, 2.19), and the norm "
        "by which it normalises. What does differ is the gradient: that of an unsquared norm keeps its length near the "
        f"minimum. The range printed after equation 2.21 ({stated.partition('$')[2].rstrip('$')}) is [0, 1] for maps "
        "behind a ReLU."
    )
    title = "Cosine and the normalised L2 are the same distance, up to a monotone map"
    tables = ("table3_5", "table2_1", "table2_2")
    quotes = (*_words("invariant", "norm", "squared", "range"), *_equations_as_printed("2.9", "2.16"))
    return Finding("diswot-9", title, text, "formulas", "major", tables, rows, {**found, "apart": apart}, quotes)


# --- Table 3.5 and 3.4 ------------------------------------------------------------------------------------


def _models(printed: _Printed) -> Finding:
    tests, trains = printed.tables["table3_5"], printed.tables["table3_5_train"]
    n = printed.test_images
    rows = tuple(
        {
            "model": cell.printed["model"],
            "epochs": cell.keys["epochs"],
            "test, %": exact(cell.value),
            "correct images": next(iter(percent_counts(exact(cell.value), n)), f"no multiple of 1/{n}"),
            "train, %": exact(trains.cell(**cell.keys).value),
        }
        for cell in tests.cells
    )
    fall = {
        what: printed.value(table, method="gradcam_l2", epochs=15)
        - printed.value(table, method="gradcam_l2", epochs=30)
        for what, table in (("test", "table3_5"), ("train", "table3_5_train"))
    }
    low = printed.value("table3_5", method="gradcam_l2", epochs=30)
    nearest = [math.floor(low * n / 100), math.ceil(low * n / 100)]
    shown = [half_up(Decimal(100 * k) / n) for k in nearest]
    equal = trains.cell(method="lrp_cosine", epochs=30).value == trains.cell(method="lrp_cosine", epochs=50).value
    runs = len(tests.cells)
    combinations = {cell.keys["method"] for cell in tests.cells}
    missing = [what for name, what in METHODS.items() if " + " in what and name not in combinations]
    text = (
        f"{runs} runs, one of each, without seeds. Model 2 is called overfitted, but its training accuracy falls as "
        f"well, by {fall['train']} points (test {fall['test']}): that is a failure to optimise. Its {low} % is the one "
        f"accuracy that is not a whole number of {n:,} images ({nearest[0]} give {shown[0]}, {nearest[1]} give "
        f"{shown[1]}). Models 4 and 5 {'print the same' if equal else 'print different'} training accuracy at 30 and "
        f"50 epochs ({trains.cell(method='lrp_cosine', epochs=50).value:.2f}). The improvement from Model 1 to Model 3 "
        "changes the map and doubles the epochs; at equal epochs the only comparison of maps is with the collapsed "
        f"run. Of the four combinations of map and distance {len(missing)} is missing ({', '.join(missing)}), so that "
        "the two factors cannot be told apart."
    )
    numbers = _floats({"runs": runs, "fall_test": fall["test"], "fall_train": fall["train"], "missing": len(missing)})
    numbers |= {"low_is_multiple": bool(percent_counts(low, n)), "nearest": nearest[0], "equal_train": equal}
    numbers |= {"nearest_percent": float(shown[0])}
    title = "Table 3.5 changes two things at a time, in single runs"
    quotes = _words("overfitting", "modest")
    sources, tables = printed.sources("kaggle_split"), ("table3_5", "table2_2")
    return Finding("diswot-10", title, text, "statistics", "major", tables, rows, numbers, quotes, sources)


def _points(printed: _Printed, table: str, method: str) -> Decimal:
    """A fraction of Table 3.4, in percent."""
    return half_up(100 * printed.value(table, method=method))


def _kd(printed: _Printed) -> Finding:
    methods = ("baseline", "kd", "gradcam_l2")
    rows = tuple(
        {
            "method": METHODS[method],
            "train, epoch 1, %": printed.value("fig3_7", method=method, epochs=1),
            "train, epoch 10, %": printed.value("fig3_7", method=method, epochs=10),
            "validation, epoch 10, %": _points(printed, "table3_4", method),
        }
        for method in methods
    )
    gains = {
        what: _points(printed, table, "kd") - _points(printed, table, "baseline")
        for what, table in (("validation", "table3_4"), ("train", "table3_4_train"))
    }
    ahead = printed.value("fig3_7", method="gradcam_l2", epochs=1) - max(
        printed.value("fig3_7", method=method, epochs=1) for method in ("baseline", "kd")
    )
    (student,) = (cell for cell in printed.tables["table3_2"].cells if cell.keys["role"] == "student")
    listed = [int(number) for number in re.findall(r"\d+", student.printed["epochs"])]
    (epochs,) = map(int, TEXT["ten_epochs"].numbers)
    text = (
        f'Table 3.4 remarks "{TEXT["decrease"].words}" for standard KD, whose numbers are higher than the baseline\'s: '
        f"by {gains['validation']:.2f} points in validation and {gains['train']:.2f} in training accuracy; the text "
        f"calls it a marginal improvement. DisWOT+ starts at {printed.value('fig3_7', method='gradcam_l2', epochs=1)} "
        f"% training accuracy after the first epoch, {ahead} points above the better of the others. With the same "
        "initial student and the same data one epoch would not be expected to make that difference: a warm start "
        f"appears likely, and the thesis describes none. Table 3.2 lists {', '.join(map(str, listed))} epochs, Table "
        f"3.4 uses {epochs}."
    )
    numbers = {f"kd_{what}": float(value) for what, value in gains.items()} | {"ahead": float(ahead)}
    numbers |= {"epochs": epochs, "listed": epochs in listed}
    title = "Table 3.4: a remark against its numbers, and a start ten points ahead"
    tables, quotes = ("table3_4", "table3_2", "fig3_7"), _words("decrease", "marginal", "start", "ten_epochs")
    return Finding("diswot-11", title, text, "text", "notable", tables, rows, numbers, quotes)


def _totals(printed: _Printed) -> Finding:
    table = printed.tables["fig3_6_loss"]
    ce = exact(table.cell(method="baseline").value)
    low, high = (exact(table.cell(method="gradcam_l2", bound=end).value) for end in ("low", "high"))
    shares = (Decimal("0.25"), high / ce)
    rows = tuple(
        {
            "weight of the cross-entropy": half_up(share),
            "largest cross-entropy in a total of " + str(high): half_up(high / share),
        }
        for share in shares
    )
    text = (
        f"Validation losses of {low} to {high} (DisWOT+) and {ce} (cross-entropy alone, KD) are compared as if they "
        "were the same quantity. By equation 2.15 the weights of the four terms of DisWOT+ sum to 1, so that its total "
        f"is smaller for equal cross-entropy: with equal weights a total of {high} allows a cross-entropy of up to "
        f"{high / shares[0]:.2f}, and any weight below {shares[1]:.2f} allows one as large as the {ce} of the others. "
        "The thesis gives no weights. We plot the cross-entropy of all three."
    )
    numbers = _floats({"ce": ce, "low": low, "high": high, "at_equal_weights": high / shares[0], "share": shares[1]})
    title = "Totals of different losses are compared"
    quotes = (*_words("losses", "total_loss"), *_equations_as_printed("2.15"))
    tables = ("fig3_6", "table3_4")
    return Finding("diswot-12", title, text, "statistics", "notable", tables, rows, numbers, quotes)


def _contradictions(printed: _Printed) -> Finding:
    n = printed.test_images
    (stated,) = TEXT["validation"].numbers
    tested = printed.value("table3_6", model=TEACHER.name)
    validation = [100 * exact(cell.value) for cell in printed.tables["table3_4"].cells]
    whole = sum(bool(percent_counts(value, n)) for value in validation)
    text = (
        "Section 2.3 trains every variant with distillation and then ranks them, section 2.4 selects without training; "
        "Table 3.3 has three trained students. Section 3.4 calls "
        f"{stated} % the teacher's validation accuracy, Table 3.6 prints {tested} as its test accuracy, and "
        f"{whole} of the {len(validation)} validation accuracies of Table 3.4 are whole numbers of the {n:,} test "
        "images: validation appears to be the test set throughout, so that anything chosen by validation was chosen by "
        "test accuracy."
    )
    numbers = {"same": stated == tested, "whole": whole, "validation_accuracies": len(validation)}
    title = "Training-free selection after training all, and validation on the test set"
    tables, quotes = ("table3_3", "table3_4", "table3_6"), _words("each_trained", "without_training", "validation")
    sources = printed.sources("kaggle_split")
    return Finding("diswot-13", title, text, "text", "notable", tables, (), numbers, quotes, sources)


# --- equations, references --------------------------------------------------------------------------------


def printed_accuracy(positives: int, others: int, recall: float, false_alarms: float) -> float:
    """Equation 3.2 as printed, (TP + FN) / (TP + FN + TN + FP), in percent, for one class against the rest.

    Args:
        positives, others: images of the class, and of the other classes.
        recall: share of the positives that are found.
        false_alarms: share of the others that are taken for positives.
    """
    tp, fp = recall * positives, false_alarms * others
    fn, tn = positives - tp, others - fp
    return 100 * (tp + fn) / (tp + fn + tn + fp)


def separable_ratio(outputs: int, kernel: int) -> float:
    """Cost of a depthwise-separable convolution over that of a standard one: 1/N + 1/K^2."""
    return 1 / outputs + 1 / kernel**2


def _equations(printed: _Printed) -> Finding:
    test = printed.facts["kaggle_split"]["test"]
    positives, others = test["glioma"], printed.test_images - test["glioma"]
    perfect, useless = (printed_accuracy(positives, others, *rates) for rates in ((1.0, 0.0), (0.0, 1.0)))
    forward = recorded(BEST, part="backbone")
    layers = forward.convolutions
    outputs = max(layer.outputs[0] for layer in layers[:-1] if layer.kernel == 1)
    ratio = separable_ratio(outputs, 3)
    literal, true = literal_macs(layers), forward.macs
    formula, own = formula_parameters(layers), cost(BEST).backbone_keras_parameters
    access = [memory_access(layers, grouped=g, true_inputs=t) for g, t in ((False, False), (True, False), (True, True))]
    tildes = [EQUATIONS[number].count(r"\tilde") for number in ("3.10", "3.11")]
    rows = (
        {
            "equation": "3.2 (accuracy)",
            "as printed": "TP + FN in the numerator",
            "what it gives": f"{perfect:.1f} % for glioma, whether all or none are found",
            "expected": "TP + TN",
        },
        {
            "equation": "1.8 (depthwise separable)",
            "as printed": "1/N of the standard cost",
            "what it gives": f"{100 / outputs:.2f} % for {outputs} channels",
            "expected": f"1/N + 1/K^2: {100 * ratio:.2f} %",
        },
        {
            "equation": "1.5, 3.6 (FLOPs, MACs)",
            "as printed": "without groups",
            "what it gives": f"{literal / 1e9:.2f} G multiply-accumulates for the backbone",
            "expected": f"{true / 1e9:.3f} G",
        },
        {
            "equation": "1.7, 3.7 (memory access)",
            "as printed": "without groups, one H and W",
            "what it gives": f"{access[0]:,} elements for the backbone",
            "expected": f"{access[2]:,} ({access[1]:,} with the output's H and W)",
        },
        {
            "equation": "3.8 (parameters)",
            "as printed": "a bias for each convolution, no batch norm",
            "what it gives": f"{formula:,} for the backbone, groups taken into account",
            "expected": f"{own:,}, as printed in Table 3.3",
        },
        {
            "equation": "3.11 (student's relation)",
            "as printed": f"{tildes[1]} tildes, eq. 3.10 has {tildes[0]}",
            "what it gives": "a product of four-dimensional maps",
            "expected": "reshaped maps, as in eq. 2.11",
        },
        {
            "equation": "2.13 (score)",
            "as printed": "argmin of a sum of two numbers",
            "what it gives": "an index, where a score is meant",
            "expected": "the sum; selection is the argmin over students",
        },
    )
    text = (
        f"{len(rows)} equations differ from what they are used for. The accuracy of equation 3.2 is the share of a "
        f"class in the data: {perfect:.1f} % for glioma with a perfect classifier, and {useless:.1f} % with a useless "
        "one. Equation 1.8 drops the depthwise part. Without groups, equations 1.5 and 3.6 give the backbone "
        f"{literal / 1e9:.2f} G multiply-accumulates instead of {true / 1e9:.3f} G. Equation 3.8 adds biases that "
        f"these convolutions lack and leaves out batch norms ({formula:,}; the thesis itself prints "
        f"{int(printed.role('table3_3_parameters', 'Best')):,})."
    )
    numbers = {"perfect": perfect, "useless": useless, "literal_macs": literal, "true_macs": true, "formula": formula}
    numbers |= {"ratio": ratio, "access_literal": access[0], "access_grouped": access[1], "access": access[2]}
    numbers |= {"equations": len(rows), "tildes_teacher": tildes[0], "tildes_student": tildes[1]}
    title = "Seven equations, as printed, are not what the tables were made with"
    quotes = _equations_as_printed("1.8", "2.13", "3.2", "3.8", "3.10", "3.11")
    sources, tables = printed.sources("depthwise_cost", "kaggle_split"), ("table3_6", "table3_3", "table3_4")
    return Finding("diswot-14", title, text, "formulas", "minor", tables, rows, numbers, quotes, sources)


def _cross_references(printed: _Printed) -> Finding:
    (results,) = map(int, TEXT["structure"].numbers)
    expected = {
        "chapter": f"Chapter {results}",
        "section": f"{results}.5.4",
        "figure": "figure 3.9, from the caption",
        "above": "section 2.5.2",
        "equations": "2.5 and 2.6 for the maps, 2.7 and 2.8 for the matrices",
        "class": "class i",
    }
    rows = tuple(
        {"where": TEXT[name].where, "as printed": TEXT[name].words, "expected": right}
        for name, right in expected.items()
    )
    later = sum(Decimal(results) < TEXT[name].numbers[0] for name in ("chapter", "figure"))
    later += int(TEXT["section"].words[0]) > results
    text = (
        f"{len(rows)} cross-references lead elsewhere, {later} of them to a chapter after the last one: the results "
        f"are chapter {results}. They appear to come from an earlier numbering."
    )
    numbers = {"references": len(rows), "beyond": later, "chapters": results}
    title = "Cross-references to chapters, sections and equations that are numbered otherwise"
    tables = ("table3_5", "table3_6", "table3_4")
    return Finding("diswot-15", title, text, "formulas", "minor", tables, rows, numbers)


def _reference_number(name: str) -> int:
    (number,) = re.findall(r"\[(\d+)\]", TEXT[name].words)
    return int(number)


def _citations(printed: _Printed) -> Finding:
    rows = tuple(
        {
            "where": TEXT[name].where,
            "cited as": TEXT[name].words,
            "listed as": TEXT[f"{name}_listed"].words,
        }
        for name in CITED
    )
    listed = [re.findall(r"\. (\w+) et al", TEXT[f"{name}_listed"].words) for name in ("iqbal", "elazab")]
    (odd,) = (c for c in printed.tables["table1_2"].cells if c.keys["ref"] == _reference_number("hinton"))
    cited = [_reference_number(name) for name in ("iqbal", "elazab")]
    fit = {int(c.keys["ref"]): c for c in printed.tables["table1_2"].cells if c.keys["ref"] in cited}
    text = (
        f"{len(rows)} citations lead to another work than the sentence names: knowledge distillation to a "
        "federated-learning paper (Hinton et al. are [1]), Grad-CAM to class activation mapping and, elsewhere, to the "
        "all-convolutional net (Grad-CAM's own paper is not listed), contrastive distillation to data-efficient image "
        f"transformers. The two peers of Table 3.8 are shifted by one: [{cited[0]}] is cited as Iqbal and listed under "
        f"{listed[0][0]}, [{cited[1]}] is cited as Elazab and listed under {listed[1][0]}; no entry of the list is by "
        f'Iqbal. Table 1.2 has "{odd.keys["study"]}" for [{odd.keys["ref"]}], the federated paper by Jafari et al. '
        f"The accuracies of the two peers ({fit[cited[0]].printed['performance']}; "
        f"{fit[cited[1]].printed['performance']}) could not be traced."
    )
    numbers = {"wrong": len(rows), "iqbal": cited[0], "elazab": cited[1], "shifted": "Elazab" in listed[0]}
    title = "Citations that lead to other works"
    tables, sources = ("table3_8", "table1_2"), printed.sources("gradcam")
    return Finding("diswot-16", title, text, "formulas", "notable", tables, rows, numbers, (), sources)


def _state_of_the_art(printed: _Printed) -> Finding:
    table, n = printed.tables["table3_8"], printed.test_images
    own, peer, best = (table.cell(model=model) for model in (BEST, "mobilenet", "tiny_cnn"))
    ahead = exact(own.value) - exact(peer.value)
    correct = _correct(printed, exact(own.value))
    low, high = wilson(correct, n)
    with_head = cost(BEST).keras_parameters / 1e6
    inside = sum(low <= cell.value <= high for cell in (best, peer))
    rows = tuple(
        {
            "study": cell.printed["study"],
            "accuracy, %": exact(cell.value),
            "parameters, as printed": cell.printed["parameters"],
            "inside our interval": low <= cell.value <= high,
        }
        for cell in (best, peer, own)
    )
    text = (
        f"{exact(own.value)} % is said to outperform {exact(peer.value)} %: {ahead} points are "
        f"{float(ahead) * n / 100:.2f} of one test image. With {correct:,} of {n:,} correct, the 95 % interval of the "
        f"accuracy is {low:.1f} to {high:.1f} % (Wilson), before any scatter over seeds; {inside} of the 2 peers lie "
        f"in it. One image is {100 / n:.4f} points. Of the parameters, {_millions(own)}M is the network without its "
        f"head; with it, {with_head:.2f}M stand against the peer's {_millions(peer)}M. Test sets and splits of the "
        "peers are not known."
    )
    numbers = {"ahead": float(ahead), "images": float(ahead) * n / 100, "low": low, "high": high, "correct": correct}
    numbers |= {"one_image": 100 / n, "with_head": with_head, "half_width": (high - low) / 2}
    title = "Ahead of the state of the art by two thirds of an image"
    sources, quotes = printed.sources("kaggle_split"), _words("outperforms")
    return Finding("diswot-17", title, text, "statistics", "major", ("table3_8",), rows, numbers, quotes, sources)


def _leakage(printed: _Printed) -> Finding:
    fact, n = printed.facts["leakage"], printed.test_images
    test = printed.facts["kaggle_split"]["test"]
    copies = sum(fact["duplicates"].values())
    neighbour = 100 * fact["nearest_neighbour_correct"] / n
    students = {value for value in _accuracies(printed) if value != printed.value("table3_6", model=TEACHER.name)}
    below = sum(float(value) < neighbour for value in students)
    teacher = float(printed.value("table3_6", model=TEACHER.name))
    rows = tuple(
        {
            "class": name,
            "test images": count,
            "copies of a training image": fact["duplicates"].get(name, 0),
            "%": half_up(Decimal(100 * fact["duplicates"].get(name, 0)) / count, 1),
        }
        for name, count in test.items()
    )
    text = (
        f"{copies} of the {n:,} test images ({100 * copies / n:.1f} %) are byte-identical to a training image in the "
        "copy of the data set that was inspected, and more are nearly so. A 1-nearest-neighbour classifier on "
        f"thumbnails of 16 x 16 grey pixels is right on {fact['nearest_neighbour_correct']:,}, {neighbour:.2f} %: "
        f"above {below} of the {len(students)} student accuracies of the thesis and {teacher - neighbour:.1f} points "
        f"below its teacher. On the {fact['far']} test images that are far from all training images it still has "
        f"{fact['nearest_neighbour_far']} %; slices of one patient remain on both sides. Accuracies near 95 to 98 % on "
        "this split say little about distillation. We give every result on the full and on the leak-free test set, "
        "beside that baseline."
    )
    numbers = {"copies": copies, "percent": 100 * copies / n, "neighbour": neighbour, "below": below}
    numbers |= {"students": len(students), "teacher_ahead": teacher - neighbour, "far": fact["far"]}
    title = "A sixth of the test images are copies of training images"
    tables = ("table3_3", "table3_4", "table3_5", "table3_6", "table3_7", "table3_8")
    sources = printed.sources("leakage", "kaggle_split")
    return Finding("diswot-18", title, text, "statistics", "major", tables, rows, numbers, (), sources)


# --- what checks out --------------------------------------------------------------------------------------


def head_widths(printed: _Printed) -> list[tuple[int, int]]:
    """Widths (a, b) of dense a - dense b - dense 4 on a MobileNetV2 that give both parameter counts of Table 3.6."""
    teacher, student = (int(printed.value("table3_6_parameters", model=name)) for name in (TEACHER.name, BEST))
    backbone = cost(BEST).backbone_keras_parameters
    last = recorded(BEST, part="backbone").convolutions[-1].outputs
    flat, classes = math.prod(last), len(printed.facts["kaggle_split"]["test"])
    found = []
    for a in range(1, 4097):
        b, odd = divmod(student - backbone - a * (last[0] + 1) - classes, a + 1 + classes)
        if b > 0 and not odd and teacher - student == a * (flat - last[0]):
            found.append((a, b))
    return found


def _repeats(printed: _Printed) -> list[tuple[str, Decimal, Decimal]]:
    """Where, the number in one place, the same number in another."""
    pairs = [
        (
            f"{METHODS[m]}, validation after 10 epochs",
            _points(printed, "table3_4", m),
            printed.value("fig3_6", method=m),
        )
        for m in ("baseline", "kd", "gradcam_l2")
    ]
    pairs += [
        (
            f"{METHODS[m]}, training after 10 epochs",
            _points(printed, "table3_4_train", m),
            printed.value("fig3_7", method=m, epochs=10),
        )
        for m in ("baseline", "kd", "gradcam_l2")
    ]
    pairs += [
        (
            "best student and Model 1, test",
            printed.role("table3_3", "Best"),
            printed.value("table3_5", method="gradcam_l2", epochs=15),
        ),
        (
            "best student and Model 1, training",
            printed.role("table3_3_train", "Best"),
            printed.value("table3_5_train", method="gradcam_l2", epochs=15),
        ),
        ("Model 5 and optimal student", printed.value("table3_5", epochs=50), printed.value("table3_6", model=BEST)),
    ]
    for role, name in (("teacher", TEACHER.name), ("student", BEST)):
        places = zip(TEXT[f"{role}_size"].numbers, ("parameters", "flops", "macs"), (2, 1, 1))
        for stated, what, digits in places:
            table = printed.value(f"table3_6_{what}", model=name) / 10**6
            pairs.append((f"{role}, {what} in millions", stated, half_up(table, digits)))
    return pairs


def _checked(printed: _Printed) -> Finding:
    repeated = _repeats(printed)
    rows = tuple(
        {"number": what, "in one place": first, "in another": second, "equal": first == second}
        for what, first, second in repeated
    )
    equal = sum(first == second for _, first, second in repeated)
    widths = head_widths(printed)
    counts = [
        int(printed.value(f"table3_6_{what}", model=name)) == getattr(cost(name), attribute)
        for name in (TEACHER.name, BEST)
        for what, attribute in (("parameters", "keras_parameters"), ("flops", "profiler_flops"))
    ]
    sizes = {name: cost(name).megabytes for name in (TEACHER.name, BEST)}
    whole = [math.floor(sizes[name]) == printed.value("table3_6_size", model=name) for name in sizes]
    small = cost(ROLES["Bad"]).backbone_keras_parameters
    same = sum(printed.role("table3_3_parameters", role) == small for role in ROLES)
    text = (
        f"{equal} of {len(repeated)} numbers that stand in two places agree. "
        f"Built from the description, {sum(counts)} of {len(counts)} counts of Table 3.6 come out to the last "
        f"digit, and the sizes are four bytes for each parameter ({sizes[TEACHER.name]:.2f} and {sizes[BEST]:.2f} MB, "
        f"printed without decimals). Only one head of three dense layers fits both counts: "
        f"{' and '.join(f'{a}, {b}' for a, b in widths)} and 4 units. The {small:,} parameters of "
        f"{same} rows of Table 3.3 are those of a backbone of width 0.35. The networks of this book are therefore the "
        "thesis's, as far as it describes them."
    )
    numbers = {"repeated": len(repeated), "equal": equal, "counts": len(counts), "counts_equal": sum(counts)}
    numbers |= {"heads": len(widths), "first": widths[0][0] if widths else 0, "second": widths[0][1] if widths else 0}
    numbers |= {"sizes_whole": sum(whole), "teacher_mb": sizes[TEACHER.name], "student_mb": sizes[BEST], "narrow": same}
    title = "What checks out: repeated numbers, and the networks to the last parameter"
    quotes, tables = _words("teacher_size", "student_size"), ("table3_6", "table3_5", "table3_3", "table3_4")
    return Finding("diswot-19", title, text, "arithmetic", "minor", tables, rows, numbers, quotes)


_FINDINGS = (
    _swapped,
    _split,
    _two_counts,
    _fewest,
    _three_points,
    _flatten,
    _half_of_flops,
    _relevance,
    _same_distance,
    _models,
    _kd,
    _totals,
    _contradictions,
    _equations,
    _cross_references,
    _citations,
    _state_of_the_art,
    _leakage,
    _checked,
)
