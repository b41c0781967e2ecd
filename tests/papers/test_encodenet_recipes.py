"""EncodeNet's recipes: targets, what is frozen, resume, the measured errors, and the cost as the spec counts it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from efflib.data import DataNotFound
from efflib.kernels.augment import normalise
from efflib.models import create_model, features
from efflib.papers import cifar
from efflib.papers.baselines import CANARY_SETTINGS, forward_flops, inherited_model, new_model, split
from efflib.papers.encodenet import arms, recipes
from efflib.papers.encodenet.autoencoder import ConversionLoss, ConvertingAutoencoder, nearness
from efflib.papers.encodenet.codebook import Codebook
from efflib.papers.encodenet.recipes import (
    AutoencoderConfig,
    CodebookConfig,
    SecondStageConfig,
    SubclassesConfig,
    autoencoder,
    autoencoder_flops,
    classification,
    codebook,
    conversion,
    freeze_encoder,
    on_encoder,
    pixel_variance,
    second_stage,
    second_stage_flops,
    subclasses,
    within_class_variance,
)
from efflib.training import Batch, normalisation
from efflib.trials import Store, Trial, run
from efflib.trials.recipes import Context, get_recipe

SHORT = {**CANARY_SETTINGS, "training": conversion(2), "decoder_width": 0.125}


def context(checkpoint=None, **parents):
    return Context("cpu", "fp64", checkpoint, parents, progress=False)


@pytest.fixture(scope="module")
def baseline_weights():
    return new_model(CodebookConfig(**CANARY_SETTINGS)).double().state_dict()


@pytest.fixture(scope="module")
def codes(baseline_weights):
    return codebook(CodebookConfig(**CANARY_SETTINGS, k=2, elbow=3), context(baseline=baseline_weights))


@pytest.fixture(scope="module")
def parents(baseline_weights, codes):
    return {"baseline": baseline_weights, "codebook": codes.weights}


@pytest.fixture(scope="module")
def converted(parents):
    return autoencoder(AutoencoderConfig(**SHORT), context(**parents))


def book(codes):
    return Codebook(**codes.weights)


# --- codebook ---------------------------------------------------------------------------------------------


def test_a_codebook_tells_what_it_found(codes):
    told = codes.metrics
    assert told["codes"] == 20 and len(told["entropies"]) == 20 and sum(told["counts"]) == 160
    assert len(told["silhouette"]) == 10 and all(-1 <= value <= 1 for value in told["silhouette"])
    assert told["inertia"][0] == 1 and told["inertia"] == sorted(told["inertia"], reverse=True)
    assert 0 < told["class_known_mse"] < told["constant_mse"]
    assert all(0 <= entropy <= np.log(10) + 1e-9 for entropy in told["entropies"])


def test_imagenet_features_without_the_weights_name_the_file(baseline_weights, monkeypatch, tmp_path):
    for name in ("EFFLIB_DATA", "EFFLIB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
    settings = {**CANARY_SETTINGS, "dataset": "objects32", "model_options": {"width": 0.5}}
    config = CodebookConfig(**settings, feature_source="imagenet_vgg16")
    weights = new_model(config).double().state_dict()
    with pytest.raises(DataNotFound, match=r"vgg16_features-.*\.pth"):
        codebook(config, context(baseline=weights))


@pytest.mark.parametrize(
    ("options", "images"), [({}, 160 + 360), ({"codes": "class"}, 160), ({"feature_source": "pixels"}, 160)]
)
def test_ranking_and_features_take_one_pass(options, images, baseline_weights, monkeypatch):
    seen = []

    def counted(config, *given):
        model = inherited_model(config, *given)
        stem = next(each for each in model.modules() if isinstance(each, torch.nn.Conv2d))
        stem.register_forward_pre_hook(lambda layer, inputs: seen.append(len(inputs[0])))
        return model

    monkeypatch.setattr(recipes, "inherited_model", counted)
    config = CodebookConfig(**CANARY_SETTINGS, k=2, elbow=0, **options)
    outcome = codebook(config, context(baseline=baseline_weights))
    assert sum(seen) == images and outcome.flops == images * forward_flops(config)


def test_vgg16_counts_for_what_it_reads():
    settings = {**CANARY_SETTINGS, "dataset": "cifar10", "model_options": {}, "model": "resnet20"}
    config = CodebookConfig(**settings, feature_source="imagenet_vgg16")
    vgg = 2 * 313_196_544  # spec, section 3: 313.2 M MACs with five max-pools
    recipe = get_recipe("codebook")
    assert recipe.flops(config) == 160 * forward_flops(config) + 10_160 * vgg
    assert recipe.weights(config) == ["vgg16"] and recipe.weights(config.model_copy(update={"codes": "class"})) == []


def test_a_run_looks_for_weights_before_it_trains_the_baselines(monkeypatch, tmp_path):
    for name in ("EFFLIB_DATA", "EFFLIB_CACHE", "TORCH_HOME", "EFFLIB_RESULTS"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
    settings = {**CANARY_SETTINGS, "dataset": "objects32", "model_options": {"width": 0.5}}
    baseline = Trial.of("baseline", **settings)
    asked = Trial.of("codebook", parents={"baseline": baseline}, **settings, feature_source="imagenet_vgg16")
    store = Store(tmp_path)
    with pytest.raises(DataNotFound, match=r"vgg16_features-.*\.pth(.|\n)*baseline_penultimate"):
        run([asked], store=store, progress=False)
    assert not store.records()


def test_more_clusters_than_images_is_an_error(baseline_weights):
    with pytest.raises(ValueError, match="clusters"):
        codebook(CodebookConfig(**CANARY_SETTINGS, k=40, elbow=0), context(baseline=baseline_weights))


def test_an_elbow_ends_at_the_smallest_class_and_refuses_no_codebook(baseline_weights, monkeypatch):
    told = codebook(CodebookConfig(**CANARY_SETTINGS, k=2, elbow=40), context(baseline=baseline_weights)).metrics
    train, _, _ = split(CodebookConfig(**CANARY_SETTINGS))
    assert len(told["inertia"]) == len(told["inertia_flattened"]) == np.bincount(train.labels).min() < 40
    alike = torch.zeros(len(train), 4, dtype=torch.float64)
    labels, config = torch.from_numpy(train.labels), CodebookConfig(**CANARY_SETTINGS)
    assert recipes._elbow(config, alike, labels, train.classes) == {}  # no curve where nothing varies
    few = torch.cat([(labels == label).nonzero()[:2, 0] for label in range(10)])
    points = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert recipes._elbow(config, points, labels[few], train.classes) == {}  # two points bend nowhere


def test_an_elbow_needs_three_points():
    with pytest.raises(ValueError, match="elbow=2: a knee needs three points"):
        CodebookConfig(**CANARY_SETTINGS, elbow=2)


# --- autoencoder ------------------------------------------------------------------------------------------


def model_and_batch(codes, target="codes", **options):
    config = AutoencoderConfig(**SHORT)
    train = split(config)[0]
    train = replace(train, indices=np.arange(len(train)))
    mean, std = normalisation(config.training, train)
    model = ConvertingAutoencoder(new_model(config), book(codes), width=0.125).double()
    images = normalise(torch.from_numpy(train.images[:6]), mean, std).double()
    batch = Batch(images, torch.from_numpy(train.labels[:6]), torch.arange(6), 0.0)
    return model, batch, ConversionLoss(model, book(codes).train, target, mean, std, **options).double(), train


def test_the_target_is_the_code_of_the_images_class_and_cluster(codes):
    model, batch, loss, train = model_and_batch(codes)
    wanted = book(codes).images[book(codes).train[:6]].double()
    outputs = model.decode(batch.images)
    assert loss(model, batch)["mse"].item() == pytest.approx(
        float((outputs.detach() - wanted).square().mean()), rel=1e-9
    )
    assert np.array_equal(book(codes).classes[book(codes).train].numpy(), train.labels)


def test_the_identity_target_is_the_very_view_before_normalisation(codes):
    model, batch, loss, train = model_and_batch(codes, "identity")
    pixels = torch.from_numpy(train.images[:6]).permute(0, 3, 1, 2).double() / 255
    expected = float((model.decode(batch.images).detach() - pixels).square().mean())
    assert loss(model, batch)["mse"].item() == pytest.approx(expected, rel=1e-6)


def test_the_head_takes_no_part_and_everything_else_does(codes):
    model, batch, loss, _ = model_and_batch(codes)
    loss(model, batch)["mse"].backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {"classifier.head.weight", "classifier.head.bias"}


def test_a_warm_encoder_learns_at_a_tenth_of_the_rate(codes):
    model, _, loss, _ = model_and_batch(codes, encoder_lr=recipes.ENCODER_LR)
    (group,) = loss.parameter_groups()
    assert group["lr_factor"] == 0.1 and len(group["params"]) == len(list(model.classifier.parameters()))
    assert model_and_batch(codes)[2].parameter_groups() == []


def test_the_rate_of_the_encoder_can_be_set():
    asked = [({}, 1.0), ({"encoder_init": "baseline"}, 0.1), ({"encoder_init": "baseline", "encoder_lr": 1.0}, 1.0)]
    for settings, expected in asked:
        assert recipes.encoder_rate(AutoencoderConfig(**SHORT, **settings)) == expected
    with pytest.raises(ValueError, match="encoder_lr"):
        AutoencoderConfig(**SHORT, encoder_lr=0.0)


def test_a_pooled_bottleneck_decodes_the_vector_that_the_head_sees(converted, parents):
    config = AutoencoderConfig(**SHORT, bottleneck="pooled")
    outcome = autoencoder(config, context(**parents))
    losses = outcome.metrics["curves"]["train_mse"]
    assert losses[-1] < losses[0]
    pooled, plain = ({n: v.shape for n, v in found.weights.items()} for found in (outcome, converted))
    head = plain["classifier.head.weight"][1]
    assert any(shape[-1:] == (head,) and len(shape) == 2 for n, shape in pooled.items() if n.startswith("decoder."))
    assert not any(len(shape) == 2 for n, shape in plain.items() if n.startswith("decoder."))


def test_nearness_is_the_mean_square_to_the_nearest_code_of_each_class():
    generator = torch.Generator().manual_seed(0)
    outputs, codes = (torch.rand(n, 12, dtype=torch.float64, generator=generator) for n in (5, 7))
    classes = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    apart = (outputs[:, None] - codes[None]).square().mean(dim=2)
    for number in range(4):
        expected = -apart[:, classes == number].amin(dim=1)
        assert torch.allclose(nearness(outputs, codes, classes)[:, number], expected, atol=1e-9)


def test_the_recorded_errors_are_those_of_the_kept_network(converted, codes, parents):
    config = AutoencoderConfig(**SHORT)
    train, _, test = split(config)
    mean, std = normalisation(config.training, train)
    model = ConvertingAutoencoder(new_model(config), book(codes), width=0.125).double()
    model.load_state_dict(converted.weights)
    model.eval()
    found = converted.metrics
    for data, assignment, name in ((train, book(codes).train, "train"), (test, book(codes).test, "test")):
        with torch.no_grad():
            outputs = model.decode(normalise(torch.from_numpy(data.images), mean, std).double())
        error = float((outputs - book(codes).images[assignment].double()).square().mean())
        assert found[f"{name}_mse"] == pytest.approx(error, rel=1e-9)
        assert found[f"{name}_nmse"] == pytest.approx(error / book(codes).constant_mse, rel=1e-9)
    nearest = nearness(outputs.flatten(1), book(codes).images.flatten(1).double(), book(codes).classes).argmax(dim=1)
    assert found["nearest_representative"] == pytest.approx(100 * (nearest.numpy() == test.labels).mean())
    baseline = new_model(config).double().eval()
    baseline.load_state_dict(parents["baseline"])
    scale = [torch.tensor(values)[:, None, None].double() for values in (mean, std)]
    with torch.no_grad():
        guesses = baseline((outputs - scale[0]) / scale[1]).argmax(dim=1)
    assert found["decoded_accuracy"] == pytest.approx(100 * (guesses.numpy() == test.labels).mean())
    assert found["last"] == found["nearest_representative"]  # digits have fewer test images than are followed


def test_identity_is_measured_against_the_pixels_own_variance(parents):
    outcome = autoencoder(AutoencoderConfig(**SHORT, target="identity"), context(**parents))
    train, _, _ = split(AutoencoderConfig(**SHORT))
    pixels = train.images.astype(np.float64) / 255
    assert outcome.metrics["constant_mse"] == pytest.approx(pixels.var(axis=0).mean())
    assert pixel_variance(train.images) == pytest.approx(pixels.var(axis=0).mean())
    known = sum(pixels[train.labels == c].var(axis=0).mean() * (train.labels == c).mean() for c in range(10))
    assert within_class_variance(train) == pytest.approx(known)


def test_both_encoders_start_where_they_say(parents, codes, monkeypatch):
    starts = {}

    def stop(config, context, model, *sets, **rest):
        starts[config.encoder_init] = {n: v.clone() for n, v in model.classifier.state_dict().items()}
        raise InterruptedError

    monkeypatch.setattr(recipes, "trained", stop)
    trained_weights = {n: v + 1 for n, v in parents["baseline"].items()}
    for init in ("scratch", "baseline"):
        with pytest.raises(InterruptedError):
            autoencoder(
                AutoencoderConfig(**SHORT, encoder_init=init), context(**{**parents, "baseline": trained_weights})
            )
    fresh = new_model(AutoencoderConfig(**SHORT)).state_dict()
    assert all(torch.equal(starts["scratch"][n], fresh[n]) for n in fresh)
    assert all(torch.equal(starts["baseline"][n].double(), trained_weights[n].float().double()) for n in fresh)


@pytest.mark.parametrize("init", ["scratch", "baseline"])  # the second has two learning rates
def test_an_interrupted_autoencoder_goes_on_bit_for_bit(init, parents, tmp_path, monkeypatch):
    path, config = tmp_path / "checkpoint.pt", AutoencoderConfig(**SHORT, encoder_init=init)
    whole = autoencoder(config, context(**parents))
    forward, steps = ConversionLoss.forward, []

    def counted(*given, **rest):
        steps.append(1)
        if len(steps) == 3:  # 160 images are two batches: in the second epoch
            raise KeyboardInterrupt
        return forward(*given, **rest)

    monkeypatch.setattr(ConversionLoss, "forward", counted)
    with pytest.raises(KeyboardInterrupt):
        autoencoder(config, context(path, **parents))
    again = autoencoder(config, context(path, **parents))
    assert len(steps) == 3 + 2  # the first epoch is not trained again
    assert all(torch.equal(again.weights[n], whole.weights[n]) for n in whole.weights)
    assert again.metrics["train_mse"] == whole.metrics["train_mse"]


# --- second stage -----------------------------------------------------------------------------------------


def stage(mode, weights, **options):
    settings = {**CANARY_SETTINGS, "training": classification(2)}
    config = SecondStageConfig(**settings, stage2=mode, **options)
    return config, second_stage(config, context(encoder=weights)).weights


def changed(before, after):
    return {n for n in after if not torch.equal(before[n].double(), after[n].double())}


@pytest.mark.parametrize("mode", ["frozen", "frozen_adapt_bn", "last_stage", "finetune"])
def test_what_each_reading_trains(mode, converted):
    config, after = stage(mode, converted.weights)
    before = on_encoder(config, converted.weights).state_dict()
    moved = changed(before, after)
    statistics = {n for n in after if n.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    heads = {"head.weight", "head.bias"}
    expected = {
        "frozen": heads,
        "frozen_adapt_bn": heads | statistics,
        "last_stage": heads | {n for n in after if n.startswith("stage3.")},
        "finetune": set(after),
    }
    assert moved == expected[mode]


def test_a_frozen_encoder_is_that_of_the_autoencoder(converted, codes):
    _, after = stage("frozen", converted.weights)
    own = {n.removeprefix("classifier."): v for n, v in converted.weights.items() if n.startswith("classifier.")}
    assert changed({n: v.float() for n, v in own.items()}, after) == {"head.weight", "head.bias"}


def test_heads_are_fresh_or_kept(baseline_weights):
    settings = {**CANARY_SETTINGS, "training": classification(2)}
    fresh, kept = (SecondStageConfig(**settings, stage2="frozen", head_init=init) for init in ("fresh", "kept"))
    trained = {n: v + 1 for n, v in baseline_weights.items()}
    assert torch.equal(on_encoder(kept, trained).head.weight.double(), trained["head.weight"].float().double())
    assert torch.equal(on_encoder(fresh, trained).head.weight, new_model(fresh).head.weight)
    wide = {**trained, "head.weight": torch.zeros(20, 32), "head.bias": torch.zeros(20)}
    with pytest.raises(ValueError, match=r"the encoder's head is \(20, 32\), this classifier needs \(10, 32\)"):
        on_encoder(kept, wide)
    assert torch.equal(on_encoder(fresh, wide).conv1.weight.double(), trained["conv1.weight"].float().double())
    with pytest.raises(ValueError, match="no weights of the encoder resnet14"):
        on_encoder(fresh, {n: v for n, v in trained.items() if not n.startswith("stage2.")})


def test_subclasses_learn_the_codes_labels(parents, codes):
    outcome = subclasses(SubclassesConfig(**CANARY_SETTINGS), context(**parents))
    assert outcome.weights["head.weight"].shape[0] == codes.metrics["codes"]
    first = outcome.metrics["curves"]["train_loss"][0]
    assert first == pytest.approx(np.log(20), abs=0.5)
    _, after = stage("frozen", outcome.weights)
    assert after["head.weight"].shape[0] == 10


@pytest.mark.parametrize("name", ["vgg8", "resnet18", "resnet20", "resnet50"])
def test_freezing_keeps_batch_norm_in_eval_mode_through_train(name):
    model = create_model(name, 10, width=0.125)
    freeze_encoder(model, "frozen")
    before = {n: v.clone() for n, v in model.state_dict().items()}
    model.train()
    x = torch.randn(4, 3, 32, 32)
    F.cross_entropy(model(x), torch.arange(4)).backward()
    assert not changed(before, model.state_dict())
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {"head.weight", "head.bias"}
    last = create_model(name, 10, width=0.125)
    freeze_encoder(last, "last_stage")
    assert features(last, x).stages[-2].requires_grad is False
    assert features(last, x).stages[-1].requires_grad is True


# --- cost -------------------------------------------------------------------------------------------------

# Spec, section 5.0, PFLOP: autoencoder 500 epochs; second stage 100 epochs, literal and fine-tuned.
COSTS = {
    "vgg8": (48.7, 1.0, 2.9),
    "vgg16": (94.0, 4.0, 11.9),
    "resnet18": (117.6, 5.6, 16.7),
    "resnet20": (20.5, 0.4, 1.2),
    "resnet32": (24.8, 0.7, 2.1),
    "resnet50": (231.5, 13.0, 38.9),
}


@pytest.mark.parametrize("model", COSTS)
def test_stages_cost_what_the_spec_counts(model):
    parent = arms.baseline("paper", model, "cifar10", 0)
    stages = [arms.encodenet("paper", parent, reading) for reading in ("encodenet", "finetune")]
    found = [autoencoder_flops(stages[0].parents["encoder"].settings, 50_000, 0)]
    found += [second_stage_flops(each.settings, 50_000, 0) for each in stages]
    assert [value / 1e15 for value in found] == pytest.approx(COSTS[model], abs=0.08)


def test_training_the_last_stage_costs_less_than_training_all():
    parent = cifar.baseline("tiny", "resnet20", "cifar10", 0)
    modes = ("encodenet", "scratch_last_stage", "finetune")
    costs = [second_stage_flops(arms.encodenet("tiny", parent, mode).settings, 9_000, 0) for mode in modes]
    assert costs[0] < costs[1] < costs[2] == pytest.approx(3 * costs[0])
