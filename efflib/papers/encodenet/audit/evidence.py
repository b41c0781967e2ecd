"""What the findings read: the quoted sentences, the printed tables, published numbers and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from efflib.papers.baselines import SIZES
from efflib.papers.table import PrintedTable, load_printed
from efflib.report.audit import Evidence, Sentence, exact, label

HOME = Path(__file__).parents[1]  # the folder of the paper
MODELS = ("vgg8", "vgg16", "resnet18", "resnet20")  # of tables 1 and 2
DATASETS = ("cifar10", "cifar100")
TRAINING, TEST, *_ = SIZES["cifar10"]  # images, the same in both data sets


# --- numbers of the running text --------------------------------------------------------------------------

TEXT = {
    "headline": Sentence(
        "abstract and section 1",
        "EncodeNet improves the accuracy of VGG16 from 92.64% to 94.05% on CIFAR-10, and RestNet20 from 74.56% to "
        "76.04% on CIFAR-100",
    ),
    "attention": Sentence(
        "section 1",
        "EncodeNet enhances the accuracy of ResNet50 on CIFAR-100 from 77.23% to 80.1%, outperforming attention",
    ),
    "no_teacher": Sentence("section 1", "It can be implemented even when large teacher models are unavailable"),
    "prior": Sentence("section 1", "was limited to 78-80% when passed to AlexNet or ResNet50 for inference"),
    "freezing": Sentence(
        "section 1",
        "We train the new DNN by freezing the pre-trained encoder layers and only training the remaining layers of the "
        "network",
    ),
    "layer": Sentence("section 3.2", "used the 13th layer to extract a feature map with a shape of (1,1,512)"),
    "best_clustering": Sentence(
        "section 3.2", "Among these three techniques, k-means clustering provided the best results"
    ),
    "elbow": Sentence("section 3.2", "we found that the elbow point was at k=3"),
    "entropy": Sentence("section 3.2", "The representative image is identified as the one that has the lowest entropy"),
    "loss": Sentence(
        "section 3.2", "the reconstruction loss of our autoencoder dropped by 46%, from 0.0012 to 0.00065"
    ),
    "rate": Sentence("section 4.1", "we set the learning rate 1e-1 and a weight decay of 1e-4"),
    "baseline_epochs": Sentence("section 4.1", "training sessions for the baseline models over 300 epochs"),
    "autoencoder_epochs": Sentence("section 4.1", "an extended training period of 500 epochs was necessary"),
    "framework": Sentence("section 4.1", "Our model is built on the TensorFlow framework [2]"),
    "repository": Sentence(
        "section 4.1", "we utilized the repository [1] that was built on the PyTorch framework [29]"
    ),
    "cifar10": Sentence(
        "section 4.2", "60,000 color images of size 32x32, of which 50,000 are used for training and 10,000 for testing"
    ),
    "vgg8": Sentence(
        "section 4.3",
        "VGG8 exhibited an increase in accuracy of 1.89% and 3.2% for the CIFAR-10 and CIFAR-100 datasets",
    ),
    "vgg16": Sentence(
        "section 4.3", "VGG16 demonstrated an improvement of approximately 1.8% to 2.0% in accuracy over the baseline"
    ),
    "identity": Sentence(
        "section 4.4",
        "the classification accuracy reduces to 89.26% (decrease of 1.86%), indicating ineffective feature learning",
    ),
    "class": Sentence("section 4.4", "increasing the accuracy to 92.11% (increase of 0.99%)"),
    "cluster": Sentence("section 4.4", "leads to the classification accuracy of 92.87% (increase of 1.75%)"),
    "distillation": Sentence(
        "section 4.5",
        "our method outperforms other knowledge distillation techniques for both ResNet and VGG networks",
    ),
    "gam_accuracy": Sentence(
        "section 4.6", "shows higher improvement in classification accuracy (81.33%) compared to EncodeNet (80.10%)"
    ),
    "gam": Sentence("section 4.6", "significantly increases the model parameter size (approx 5 times)"),
    "state_of_the_art": Sentence(
        "abstract",
        "It outperforms state-of-the-art techniques that rely on knowledge distillation and attention mechanisms",
    ),
    "well_trained": Sentence("abstract", "improving the accuracy of well-trained baseline DNNs"),
    "retrained": Sentence(
        "section 5", "subsequently retrain the autoencoder to convert the given images into representative images"
    ),
}


# --- what a finding may read ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Printed(Evidence):
    """What a finding may read."""

    tables: Mapping[str, PrintedTable]

    def value(self, table: str, **keys: Any) -> Decimal:
        return exact(self.tables[table].cell(**keys).value)

    def gain(self, table: str, **keys: Any) -> Decimal:
        """Value - printed baseline of the same table."""
        cell = self.tables[table].cell(**keys)
        base = self.tables[table].baseline(cell.keys)
        if base is None:
            raise ValueError(f"{label(cell.keys)} of {table} has no baseline")
        return exact(cell.value) - exact(base.value)

    def quoted(self, reference: str, **keys: Any) -> Decimal:
        """The number of a reference with these keys."""
        (found,) = (v["value"] for v in self.references[reference]["values"] if keys.items() <= v.items())
        return exact(found)


@cache
def load() -> Printed:
    """printed.yaml and references.yaml of this paper, read once."""
    return Printed.read(HOME / "references.yaml", load_printed(HOME / "printed.yaml"))


def spelt(name: str) -> str:
    """The paper's spelling of a network or data set."""
    return name.replace("resnet", "ResNet").replace("vgg", "VGG").replace("cifar", "CIFAR-")
