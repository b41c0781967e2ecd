"""EncodeNet's recipes: `codebook`, `autoencoder`, `second_stage`, and the control `subclasses`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from efflib.data import ImageSet, subset
from efflib.models import create_model, features, onward, parameters_of
from efflib.models.imagenet import imagenet_macs
from efflib.models.measure import count_flops, layer_macs
from efflib.papers.baselines import (
    CANARY_SETTINGS,
    SIZES,
    ClassifierConfig,
    canary_context,
    canary_numbers,
    data_read,
    forward_flops,
    inherited_model,
    new_model,
    planned_flops,
    planned_images,
    split,
    trained,
)
from efflib.papers.encodenet.autoencoder import (
    ConversionLoss,
    ConvertingAutoencoder,
    converted,
    decoder_for,
    nearness,
)
from efflib.papers.encodenet.clustering import (
    OWN_FEATURES,
    cluster,
    cluster_features,
    flattened_inertias,
    inertias,
    knee,
    mean_ratios,
    silhouettes,
)
from efflib.papers.encodenet.codebook import Chosen, Clusters, Codebook, Codes, build, ranking
from efflib.papers.features import labels_of, read_features
from efflib.training import DeviceSet, TrainingRecipe, freeze, normalisation, predict, seeded
from efflib.trials.recipes import Config, Context, Outcome, recipe

Weights = Mapping[str, Any]
FOLLOWED = 2_000  # test images that the autoencoder's curve is drawn from; the final numbers are from all of them
ENCODER_LR = 0.1  # of the decoder's rate, for an encoder that starts from the baseline (spec, section 4.2)


def conversion(epochs: int = 500) -> TrainingRecipe:
    """Training of the autoencoder: 500 epochs (printed) of Adam at 1e-3, cosine, batches of 128 (ours; spec, 4.2)."""
    return TrainingRecipe(epochs=epochs, lr=1e-3, weight_decay=0.0, batch_size=128, optimiser="adam", schedule="cosine")


def classification(epochs: int = 100, lr: float = 0.1) -> TrainingRecipe:
    """Training of the second stage: SGD, cosine, batches of 128 (ours; the paper prints nothing; spec, section 4.3).

    lr 0.1 for a fresh head on a frozen encoder; 0.01 where layers of the encoder are trained too.
    """
    return TrainingRecipe(epochs=epochs, lr=lr, weight_decay=1e-4, batch_size=128, schedule="cosine")


# --- codebook ---------------------------------------------------------------------------------------------


class CodebookConfig(ClassifierConfig):
    """Clusters and representatives of a training set, as the parent "baseline" sees it; nothing is trained.

    `model`, data and seed are the baseline's, of `training` only the normalisation is used. `k` clusters per class.
    `elbow` is the largest k of the recorded elbow curve, 0 records none.
    """

    codes: Codes = "cluster"
    feature_source: Literal["baseline_penultimate", "baseline_mid", "imagenet_vgg16", "pixels"] = "baseline_penultimate"
    cluster_method: Literal["kmeans", "hdbscan", "cosine"] = "kmeans"
    k: int = Field(default=3, ge=1)
    pca_dim: int = Field(default=100, ge=1)
    cluster_seed: int = 22
    require_correct: bool = True
    elbow: int = Field(default=9, ge=0)

    @model_validator(mode="after")
    def _curve(self) -> CodebookConfig:
        if self.elbow in (1, 2):
            raise ValueError(f"elbow={self.elbow}: a knee needs three points or more, 0 records no curve")
        return self


def _codebook_canary() -> dict[str, float]:
    """Codes of an untrained small network on 160 digits: sums that any other choice would change."""
    found: dict[str, float] = {}
    for codes in ("cluster", "rand_cluster"):
        config = CodebookConfig(**CANARY_SETTINGS, codes=codes, k=2, elbow=3)
        parent = new_model(config).double().state_dict()
        outcome = codebook(config, canary_context("codebook", baseline=parent))
        images = (outcome.weights or {})["images"]
        found |= {f"{codes}.pixels": float(images.double().sum()), f"{codes}.floor": outcome.metrics["class_known_mse"]}
        found |= {f"{codes}.inertia{i}": value for i, value in enumerate(outcome.metrics["inertia"])}
    return found


def _codebook_flops(config: CodebookConfig) -> float:
    """FLOPs of the baseline's pass over the training images, and of what the features to cluster cost beside it."""
    kept, _ = planned_images(config)
    both = kept + SIZES[config.dataset][1]
    if config.codes == "class" or config.feature_source == "pixels":
        return forward_flops(config) * kept
    if config.feature_source in OWN_FEATURES:
        return forward_flops(config) * both
    _, _, side, _ = SIZES[config.dataset]
    return forward_flops(config) * kept + 2.0 * imagenet_macs("vgg16", side) * both


def _weights_read(config: CodebookConfig) -> list[str]:
    return ["vgg16"] if config.codes != "class" and config.feature_source == "imagenet_vgg16" else []


@recipe(
    "codebook",
    version=1,
    config=CodebookConfig,
    canary=_codebook_canary,
    flops=_codebook_flops,
    data=data_read,
    parents=("baseline",),
    weights=_weights_read,
)
def codebook(config: CodebookConfig, context: Context) -> Outcome:
    """Cluster each class, rank its images by the baseline's entropy, choose the representatives (section 3.2)."""
    train, _, test = split(config)
    network = inherited_model(config, context.parents["baseline"], context.precision).to(context.device)
    labels, test_labels = labels_of(train), labels_of(test)
    logits, points = _seen(config, context, network, train)
    ranked = ranking(logits, labels)
    clusters, about = _clusters(config, context, network, train, test, points)
    book, chosen = build(config.codes, train, ranked, clusters, test_labels, config.seed, config.require_correct)
    metrics = {**about, **_told(book, chosen, ranked.entropy)}
    return Outcome(metrics, _codebook_flops(config), asdict(book))


def _seen(
    config: CodebookConfig, context: Context, network: nn.Module, train: ImageSet
) -> tuple[Tensor, Tensor | None]:
    """Logits (N, C) and features to cluster (N, D): one pass of the baseline where both are its own.

    No features where the codes need no clusters.
    """
    machine = context.device, context.precision
    own = OWN_FEATURES.get(config.feature_source)
    if own is not None and config.codes != "class":
        logits, points = read_features(
            network, train, config.training, lambda found: (found.logits, *own(found)), *machine
        )
        return logits, points
    logits = predict(network, train, config.training, *machine)
    if config.codes == "class":
        return logits, None
    return logits, cluster_features(config.feature_source, train, network, config.training, *machine)


def _clusters(
    config: CodebookConfig,
    context: Context,
    network: nn.Module,
    train: ImageSet,
    test: ImageSet,
    points: Tensor | None,
) -> tuple[Clusters, dict[str, Any]]:
    """The clusters, and what the record tells about them; one per class where there are no points to cluster."""
    labels, test_labels = labels_of(train), labels_of(test)
    if points is None:
        ones = [1] * len(train.classes)
        return Clusters(torch.zeros_like(labels), torch.zeros_like(test_labels), ones), {}
    found = cluster(points, labels, train.classes, config.cluster_method, config.k, config.pca_dim, config.cluster_seed)
    test_points = cluster_features(
        config.feature_source, test, network, config.training, context.device, context.precision
    )
    about = {
        "silhouette": silhouettes(points, found, labels),
        "noise": list(found.noise),
        "unsplit": list(found.unsplit),
        **_elbow(config, points, labels, train.classes),
    }
    return Clusters(found.assignment, found.assign(test_points, test_labels), list(found.counts)), about


def _elbow(config: CodebookConfig, points: Tensor, labels: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    """The elbow curves up to `config.elbow` clusters, as far as every class has different images for them.

    Empty where that leaves fewer than three points: no reason to refuse a codebook that asks for fewer clusters.
    """
    most = min(config.elbow, *(len(points[labels == label].unique(dim=0)) for label in range(len(classes))))
    if most < 3:
        return {}
    given = points, labels, classes, most, config.pca_dim, config.cluster_seed
    found: dict[str, Any] = {}
    # The second is how the authors' earlier code computes it (spec, section 2.3); figure 3 shows both.
    for name, curves in (("", inertias(*given)), ("_flattened", flattened_inertias(*given))):
        ratios = mean_ratios(curves)
        bend = knee(ratios)
        found |= {f"inertia{name}": ratios.tolist(), f"knee{name}": bend.k, f"knee_height{name}": bend.height}
    return found


def _told(book: Codebook, chosen: Chosen, entropy: Tensor) -> dict[str, Any]:
    shown = book.members >= 0
    return {
        "codes": len(book.images),
        "counts": torch.bincount(book.train, minlength=len(book.images)).tolist(),
        "entropies": entropy[book.members[shown]].tolist(),
        "constant_mse": book.constant_mse,
        "class_known_mse": book.class_known_mse,
        "changed_by_correctness": chosen.changed,
        "never_correct": chosen.never_correct,
    }


# --- autoencoder ------------------------------------------------------------------------------------------


class AutoencoderConfig(ClassifierConfig):
    """A converting autoencoder; network, data and seed are those of the parents "baseline" and "codebook".

    `target` "identity" reconstructs the input (table 3's second row); the codebook then only tells how near the output
    comes to the representatives. `bottleneck` is what is decoded, see `Decoder`. `encoder_lr` is the encoder's rate
    relative to the decoder's; None: a tenth where it starts from the baseline, the same from scratch. `decoder_width`
    narrows the decoder of smoke runs.
    """

    target: Literal["codes", "identity"] = "codes"
    encoder_init: Literal["scratch", "baseline"] = "scratch"
    encoder_lr: float | None = Field(default=None, gt=0)
    bottleneck: Literal["map", "pooled"] = "map"
    decoder_width: float = Field(default=1.0, gt=0)


@cache
def _conversion_macs(
    model: str, options: tuple[tuple[str, Any], ...], dataset: str, bottleneck: str, width: float
) -> float:
    """Multiply-accumulates of encoder, head and decoder for one image."""
    _, _, side, channels = SIZES[dataset]
    network = create_model(model, 10, **dict(options)).eval()
    decoder = decoder_for(network, side, channels, bottleneck, width).eval()

    def run() -> None:
        found = features(network, torch.zeros(1, channels, side, side))
        decoder(found.pooled if bottleneck == "pooled" else found.stages[-1])

    with torch.no_grad():
        return layer_macs(nn.ModuleList([network, decoder]), run)


def autoencoder_flops(config: AutoencoderConfig, images: float, evaluated: int) -> float:
    """FLOPs of training on `images` and converting `evaluated` per epoch; backward = 2 forward."""
    options = tuple(sorted(config.model_options.items()))
    macs = _conversion_macs(config.model, options, config.dataset, config.bottleneck, config.decoder_width)
    return 2.0 * macs * (3 * images + evaluated) * config.training.epochs


def _conversion_run(config: AutoencoderConfig) -> float:
    """All of a trial: training, the curve on the followed images, and the final measurement on every image."""
    kept, _ = planned_images(config)
    test = SIZES[config.dataset][1]
    once = config.model_copy(update={"training": config.training.model_copy(update={"epochs": 1})})
    return autoencoder_flops(config, kept, min(FOLLOWED, test)) + autoencoder_flops(once, 0, kept + test)


def _autoencoder_canary() -> dict[str, float]:
    """Two epochs towards codes and towards the input on 160 digits: the losses, and how large the errors end."""
    found: dict[str, float] = {}
    training = CANARY_SETTINGS["training"].model_copy(
        update={"milestones": (), "optimiser": "adam", "schedule": "cosine", "lr": 1e-3}
    )
    for target, init in (("codes", "scratch"), ("codes", "baseline"), ("identity", "scratch")):
        settings = {**CANARY_SETTINGS, "training": training, "target": target, "encoder_init": init}
        config = AutoencoderConfig(**settings, decoder_width=0.25)
        outcome = autoencoder(config, canary_context("autoencoder", **_canary_parents()))
        losses = outcome.metrics["curves"]["train_mse"]
        found |= {f"{target}.{init}.loss{i}": value for i, value in enumerate(losses)}
        found[f"{target}.{init}.nmse"] = outcome.metrics["test_nmse"]
    return found


@cache
def _canary_parents() -> dict[str, Any]:
    config = CodebookConfig(**CANARY_SETTINGS, k=2, elbow=0)
    baseline = new_model(config).double().state_dict()
    return {
        "baseline": baseline,
        "codebook": codebook(config, canary_context("codebook", baseline=baseline)).weights,
    }


@recipe(
    "autoencoder",
    version=1,
    config=AutoencoderConfig,
    canary=_autoencoder_canary,
    flops=_conversion_run,
    data=data_read,
    parents=("baseline", "codebook"),
)
def autoencoder(config: AutoencoderConfig, context: Context) -> Outcome:
    """Train encoder and decoder towards the codes; then measure the conversion on training and test images.

    The accuracies of the record are those of the nearest representative, on a fixed sample of the test images.
    """
    train, _, test = split(config)
    train = replace(train, indices=np.arange(len(train)))  # targets are looked up by position
    book = _book(context)
    baseline = inherited_model(config, context.parents["baseline"], context.precision)
    encoder = inherited_model(config, baseline.state_dict()) if config.encoder_init == "baseline" else new_model(config)
    with seeded(config.seed, "decoder"):
        model = ConvertingAutoencoder(encoder, book, config.bottleneck, config.decoder_width)
    mean, std = normalisation(config.training, train)
    loss = ConversionLoss(model, book.train, config.target, mean, std, encoder_rate(config))
    followed = test.take(subset(test.labels, FOLLOWED, 0)) if len(test) > FOLLOWED else test
    outcome = trained(
        config, context, model, train, None, followed, loss=loss, flops=lambda *_: _conversion_run(config)
    )
    measured = conversion_quality(model, book, train, test, baseline, config, context)
    return replace(outcome, metrics={**outcome.metrics, **measured})


def encoder_rate(config: AutoencoderConfig) -> float:
    """Learning rate of the encoder relative to the decoder's."""
    if config.encoder_lr is not None:
        return config.encoder_lr
    return ENCODER_LR if config.encoder_init == "baseline" else 1.0


def _book(context: Context) -> Codebook:
    return Codebook(**context.parents["codebook"])


def conversion_quality(
    model: ConvertingAutoencoder,
    book: Codebook,
    train: ImageSet,
    test: ImageSet,
    baseline: nn.Module,
    config: AutoencoderConfig,
    context: Context,
) -> dict[str, float]:
    """The diagnostics of the spec (section 2.8), in eval mode on un-augmented images.

    Returns:
        train_mse and test_mse (per value of an image in [0, 1]), the same relative to the best constant output (nmse),
        that constant's error and the error of the best guess within the class, and, for the test images in percent:
        how often the nearest representative is of the right class, and the baseline's accuracy on the outputs.
    """
    read = partial(_conversions, model, config=config, context=context)
    outputs, test_outputs = read(data=train), read(data=test)
    constant, known = book.constant_mse, book.class_known_mse
    if config.target == "identity":
        constant, known = pixel_variance(train.images), within_class_variance(train)
    errors = [
        _error(outputs, train, book, book.train, config.target),
        _error(test_outputs, test, book, book.test, config.target),
    ]
    labels = labels_of(test)
    nearest = nearness(test_outputs.flatten(1), book.images.flatten(1).to(test_outputs.dtype), book.classes)
    return {
        "train_mse": errors[0],
        "test_mse": errors[1],
        "train_nmse": errors[0] / constant,
        "test_nmse": errors[1] / constant,
        "constant_mse": constant,
        "class_known_mse": known,
        "nearest_representative": 100 * float((nearest.argmax(dim=1) == labels).double().mean()),
        "decoded_accuracy": _decoded_accuracy(test_outputs, labels, baseline, config, test, context),
    }


def _conversions(model: ConvertingAutoencoder, data: ImageSet, config: AutoencoderConfig, context: Context) -> Tensor:
    mean, std = normalisation(config.training, data)
    images = DeviceSet(data, torch.device(context.device)).images
    model.eval()
    return torch.cat([converted(model, part, mean, std, context.precision).cpu() for part in images.split(128)])


def _error(outputs: Tensor, data: ImageSet, book: Codebook, assignment: Tensor, target: str) -> float:
    """Mean squared error over all images; summed in float64, a part at a time."""
    total = 0.0
    for rows in torch.arange(len(data)).split(1_000):
        if target == "identity":
            wanted = torch.from_numpy(data.images[rows.numpy()]).permute(0, 3, 1, 2).double() / 255
        else:
            wanted = book.images[assignment[rows]].double()
        total += float((outputs[rows].double() - wanted).square().mean(dim=(1, 2, 3)).sum())
    return total / len(data)


@torch.no_grad()
def _decoded_accuracy(
    outputs: Tensor, labels: Tensor, baseline: nn.Module, config: AutoencoderConfig, data: ImageSet, context: Context
) -> float:
    """Accuracy (%) of the baseline on the converted images: the pipeline of the authors' earlier paper."""
    mean, std = (torch.tensor(values)[:, None, None] for values in normalisation(config.training, data))
    baseline = baseline.to(context.device).eval()
    dtype = next(baseline.parameters()).dtype
    right = 0
    for part, truth in zip(outputs.split(128), labels.split(128), strict=True):
        x = ((part - mean.to(part)) / std.to(part)).to(context.device, dtype)
        right += int((baseline(x).argmax(dim=1).cpu() == truth).sum())
    return 100 * right / len(labels)


def pixel_variance(images: np.ndarray) -> float:
    """Mean over pixels and channels of the variance over images (N, H, W, C) uint8, scaled to [0, 1].

    It is the mean squared error of the best constant output when the target is the image itself.
    """
    squares = np.square(images, dtype=np.uint32).mean(axis=0, dtype=np.float64)
    return float((squares - np.square(images.mean(axis=0, dtype=np.float64))).mean() / 255**2)


def within_class_variance(data: ImageSet) -> float:
    """The same for someone who knows the class: the mean over images of their class's variance."""
    shares = [(data.labels == number).mean() for number in range(len(data.classes))]
    return float(sum(s * pixel_variance(data.images[data.labels == n]) for n, s in enumerate(shares) if s))


# --- second stage -----------------------------------------------------------------------------------------

Stage2 = Literal["frozen", "frozen_adapt_bn", "last_stage", "finetune"]


class SecondStageConfig(ClassifierConfig):
    """A classifier on the encoder of the parent "encoder": a trial `autoencoder`, `subclasses` or `baseline`.

    stage2: what is trained beside the head. "frozen": nothing, batch norm's statistics included (the paper's text);
    "frozen_adapt_bn": nothing, but the statistics follow the batches; "last_stage": the encoder's last stage;
    "finetune": everything. head_init "kept" takes over the parent's head, which is the baseline's for an autoencoder
    that started from it.
    """

    stage2: Stage2
    head_init: Literal["fresh", "kept"] = "fresh"


def second_stage_flops(config: SecondStageConfig, images: int, evaluated: int) -> float:
    """One forward pass for what is frozen, three for what is trained."""
    forward = forward_flops(config)
    shares = {"frozen": 0.0, "frozen_adapt_bn": 0.0, "finetune": 1.0}
    share = shares[config.stage2] if config.stage2 in shares else _last_stage_share(config)
    return forward * (images * (1 + 2 * share) + evaluated) * config.training.epochs


def _last_stage_share(config: SecondStageConfig) -> float:
    return _share(config.model, tuple(sorted(config.model_options.items())), config.dataset)


@cache
def _share(model: str, options: tuple[tuple[str, Any], ...], dataset: str) -> float:
    """The last stage's part of the forward pass."""
    _, _, side, channels = SIZES[dataset]
    network = create_model(model, 10, **dict(options)).eval()
    images = torch.zeros(1, channels, side, side)
    with torch.no_grad():
        stages = features(network, images).stages
        last = count_flops(lambda: onward(network, len(stages) - 1, stages[-2]))
        return last / count_flops(lambda: network(images))


def _second_stage_canary() -> dict[str, float]:
    """Two epochs in each mode on 160 digits, from an untrained network."""
    found: dict[str, float] = {}
    for mode in ("frozen", "frozen_adapt_bn", "last_stage", "finetune"):
        config = SecondStageConfig(**CANARY_SETTINGS, stage2=mode)
        parent = new_model(config).double().state_dict()
        numbers = canary_numbers(second_stage(config, canary_context("second_stage", encoder=parent)), config)
        found |= {f"{mode}.{name}": value for name, value in numbers.items()}
    return found


@recipe(
    "second_stage",
    version=1,
    config=SecondStageConfig,
    canary=_second_stage_canary,
    flops=lambda config: second_stage_flops(config, *planned_images(config)),
    data=data_read,
    parents=("encoder",),
)
def second_stage(config: SecondStageConfig, context: Context) -> Outcome:
    """Put the baseline's kind of head on a trained encoder and train as much of it as the reading says (3.3)."""
    train, validation, test = split(config)
    model = on_encoder(config, context.parents["encoder"])
    freeze_encoder(model, config.stage2)
    flops = partial(second_stage_flops, config)
    return trained(config, context, model, train, validation, test, flops=flops)


def on_encoder(config: SecondStageConfig, weights: Weights) -> nn.Module:
    """The classifier with the encoder of a parent's weights, its head fresh (of the seed) or kept.

    Raises:
        ValueError: the weights are of another network, or a head is to be kept that has other classes.
    """
    own = {n.removeprefix("classifier."): v for n, v in weights.items() if n.startswith("classifier.")} or weights
    model = new_model(config)
    head = {n: v for n, v in model.state_dict().items() if n.startswith("head.")}  # untrained, of the seed
    if config.head_init == "kept":
        kept = {n: v for n, v in own.items() if n.startswith("head.")}
        if {n: v.shape for n, v in kept.items()} != {n: v.shape for n, v in head.items()}:
            shapes = [tuple(each["head.weight"].shape) for each in (kept, head)]
            raise ValueError(f"the encoder's head is {shapes[0]}, this classifier needs {shapes[1]}: head_init='fresh'")
        head = kept
    try:
        model.load_state_dict({**{n: v for n, v in own.items() if not n.startswith("head.")}, **head})
    except RuntimeError as problem:
        raise ValueError(f"these are no weights of the encoder {config.model}: {str(problem)[:300]}") from problem
    return model


def freeze_encoder(model: nn.Module, stage2: Stage2) -> None:
    """Freeze what the reading keeps: all children but the head, but the last stage and the head, or none."""
    parts = [child for name, child in model.named_children() if name != "head"]
    if stage2 == "finetune":
        return
    if stage2 == "last_stage":
        last = max(place for place, part in enumerate(parts) if any(True for _ in part.parameters()))
        parts = parts[:last]
    freeze(*parts, statistics=stage2 != "frozen_adapt_bn")


# --- what a network has, without training -----------------------------------------------------------------


class ParametersConfig(Config):
    """A network for so many classes."""

    model: str
    classes: int = Field(default=10, ge=1)


@recipe(
    "parameter_count",
    version=1,
    config=ParametersConfig,
    canary=lambda: {"parameters": float(parameters_of("resnet14", 10))},
    flops=lambda config: 0.0,
    data=lambda config: [],
    precision="fp32",
)
def parameter_count(config: ParametersConfig, context: Context) -> Outcome:
    """Count the parameters of a network by building it without memory; nothing is computed and no data are read."""
    return Outcome({"parameters": parameters_of(config.model, config.classes)}, 0.0)


# --- control: sub-classes by cross-entropy ----------------------------------------------------------------


class SubclassesConfig(ClassifierConfig):
    """The same labels as the codes carry, (class, cluster), learned by cross-entropy: no images, no decoder.

    Network, data and seed are those of the parents "baseline" and "codebook".
    """


def _subclasses_canary() -> dict[str, float]:
    """Two epochs on 160 digits with two clusters per class."""
    config = SubclassesConfig(**CANARY_SETTINGS)
    outcome = subclasses(config, canary_context("subclasses", **_canary_parents()))
    return {f"loss{i}": value for i, value in enumerate(outcome.metrics["curves"]["train_loss"])}


@recipe(
    "subclasses",
    version=1,
    config=SubclassesConfig,
    canary=_subclasses_canary,
    flops=planned_flops,
    data=data_read,
    parents=("baseline", "codebook"),
)
def subclasses(config: SubclassesConfig, context: Context) -> Outcome:
    """Train a classifier of the (class, cluster) pairs from scratch; its accuracies are over these."""
    train, _, test = split(config)
    book = _book(context)
    names = tuple(f"{train.classes[int(number)]} {place}" for place, number in enumerate(book.classes))
    train, test = (
        replace(data, labels=codes.numpy(), classes=names) for data, codes in ((train, book.train), (test, book.test))
    )
    with seeded(config.seed):
        model = create_model(config.model, len(names), **config.model_options)
    return trained(config, context, model, train, None, test)
