"""What the findings read: the quoted sentences, the printed tables, training logs, and quoted facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from efflib.papers.table import PrintedTable, load_printed
from efflib.report.audit import Evidence, Sentence, exact

_HOME = Path(__file__).parents[1]  # the folder of the paper

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
class Printed(Evidence):
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
def load() -> Printed:
    """printed.yaml and references.yaml of this paper, read once."""
    return Printed.read(_HOME / "references.yaml", load_printed(_HOME / "printed.yaml"))
