"""What the findings read: words and equations of the thesis, the printed tables, and quoted facts."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from efflib.papers.diswot.space import ROLES
from efflib.papers.table import PrintedTable, load_printed
from efflib.report.audit import Sentence, exact

_HOME = Path(__file__).parents[1]  # the folder of the paper
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


def words(*names: str) -> tuple[str, ...]:
    return tuple(TEXT[name].words for name in names)


def equations_as_printed(*numbers: str) -> tuple[str, ...]:
    return tuple(f"${EQUATIONS[number]}$ ({number})" for number in numbers)


# --- what a finding may read ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Printed:
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
def load() -> Printed:
    """Read printed.yaml and references.yaml of this paper once."""
    import yaml

    raw = yaml.safe_load((_HOME / "references.yaml").read_text(encoding="utf-8"))
    return Printed(load_printed(_HOME / "printed.yaml"), {fact["id"]: fact for fact in raw["facts"]})
