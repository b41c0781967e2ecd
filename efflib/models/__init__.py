"""Every network of the papers, one file per family, by name: `create_model("resnet20", num_classes=100)`."""

from __future__ import annotations

# The families register their models when imported.
from efflib.models import (
    attention,
    mnist_cnn,
    mobilenet,
    mobilenetv2,
    names_decoder,
    resnet,
    resnet_cifar,
    shufflenet,
    vgg,
    wide_resnet,
)
from efflib.models.measure import Features, convolutions, count_macs, count_parameters, evaluating, features, onward
from efflib.models.mnist_cnn import batch_statistics, recalibrate_batch_norm
from efflib.models.registry import create_model, list_models
from efflib.models.shapes import parameters_of, shapes_only

__all__ = [
    "Features",
    "attention",
    "batch_statistics",
    "convolutions",
    "count_macs",
    "count_parameters",
    "create_model",
    "evaluating",
    "features",
    "list_models",
    "mnist_cnn",
    "mobilenet",
    "mobilenetv2",
    "names_decoder",
    "onward",
    "parameters_of",
    "recalibrate_batch_norm",
    "resnet",
    "resnet_cifar",
    "shapes_only",
    "shufflenet",
    "vgg",
    "wide_resnet",
]
