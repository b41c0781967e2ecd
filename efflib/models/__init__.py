"""Every network of the papers, one file per family, by name: `create_model("resnet20", num_classes=100)`."""

from __future__ import annotations

# The families register their models when imported.
from efflib.models import attention, mobilenet, resnet, resnet_cifar, shufflenet, vgg, wide_resnet
from efflib.models.measure import Features, convolutions, count_macs, count_parameters, evaluating, features, onward
from efflib.models.registry import create_model, list_models

__all__ = [
    "Features",
    "attention",
    "convolutions",
    "count_macs",
    "count_parameters",
    "create_model",
    "evaluating",
    "features",
    "list_models",
    "mobilenet",
    "onward",
    "resnet",
    "resnet_cifar",
    "shufflenet",
    "vgg",
    "wide_resnet",
]
