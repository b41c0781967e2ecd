"""Findings 19 to 21, formulas, names and citations."""

from __future__ import annotations

from efflib.papers.bimask.audit.evidence import Printed
from efflib.report.audit import Finding


def equation_and_text(printed: Printed) -> Finding:
    text = (
        "Equation 1 differentiates the whole output of the network with respect to the input image; the "
        "text before it differentiates the score of the predicted class with respect to the feature map "
        "at the target layer. The legend names both at once. M stands for the model and, in another "
        "face, for the mask. Algorithm 1 tests on a validation set that the paper does not define. We "
        "follow the text (predicted class, feature map) and offer the others as options."
    )
    quotes = (
        "the gradient of the predicted class score with respect to the feature map at the target layer",
        "is the gradient of the output with respect to the input image",
        "calculated at the target layer",
    )
    title = "Equation 1 and the text describe different gradients"
    return Finding("bimask-19", title, text, "formulas", "notable", (), (), {}, quotes)


def citations(printed: Printed) -> Finding:
    cited = (
        ("Self-taught [23]", "hacohen_weinshall"),
        ("Curriculum by Smoothing [21]", "cbs"),
        ("EfficientTrain [22]", "efficienttrain"),
        ("Attention Transfer [18]", "attention_transfer"),
    )
    rows = tuple(
        {"cited as": name, "source": printed.facts[key]["source"], "what it says": printed.facts[key]["text"]}
        for name, key in cited
    )
    text = (
        "Reference [23], the LeRaC paper, is also given for Self-taught, which is described as "
        "pre-training on unlabelled data; the curriculum method of that name scores images by the "
        "network's own confidence. CBS is described as smoothing the training data and EfficientTrain "
        "as selecting samples; neither appears to match its source. [24] is about crowd density, [8], "
        "the general reference for curricula, is about reinforcement learning, [10], the reference for "
        "saliency, is a user study, and [18] prints its authors in reversed order."
    )
    quotes = (
        "Self-taught Learning [23] starts with pretraining on a large unlabeled dataset",
        "smoothing the training data with Gaussian filters",
        "optimizing resources through adaptive sample selection",
        "LCDnet: a lightweight crowd density estimation model",
        "Curriculum learning for reinforcement learning domains",
        "Evaluating saliency map explanations for convolutional neural networks: a user study",
        "Nikos Komodakis, Sergey Zagoruyko. Paying more attention to attention",
    )
    title = "Some descriptions and references do not match their sources"
    return Finding("bimask-20", title, text, "formulas", "minor", ("table4",), rows, {}, quotes)


def names(printed: Printed) -> Finding:
    text = (
        "The method is called BIMask in some places and BMask in others. Curriculum is among the "
        "keywords, although originals and masked copies are shuffled together: there is no order from "
        "easy to hard."
    )
    quotes = (
        "our proposed technique, BMask Learning, with several recent curriculum learning (CL) approaches",
        "This paper introduces BIMask Learning",
        "Keywords: BIMask, Curriculum, Learning, Optimization, Deep Learning",
    )
    title = "Two spellings, and no curriculum"
    return Finding("bimask-21", title, text, "formulas", "minor", (), (), {}, quotes)
