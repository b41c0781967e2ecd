"""The safety paper's recipes: loss and sizes at the start, restoration, preserved examples, resuming, export, arms."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from efflib.data import NORMALISATION, embedded_names, load_dataset
from efflib.papers.safety import arms, drift, recipes, steps
from efflib.papers.safety.preservation import preserved_names
from efflib.papers.safety.recipes import (
    Compression,
    CompressionConfig,
    FloatConfig,
    exported,
    float_twin,
    make_task,
    new_model,
    preservation_set,
    preset_of,
    self_compression,
    settings_of,
    training_images,
)
from efflib.papers.safety.recipes import _placed as placed
from efflib.papers.safety.selection import random_selection, score_images, select
from efflib.papers.safety.steps import Schedule, run_steps
from efflib.papers.safety.tasks import ImageTask, TextTask, jitter
from efflib.quantize import PRESETS, Restoration, Restorer, layers, mean_bits, preset, quantize_model, quantized_layers
from efflib.training import ForeignCheckpoint
from efflib.trials.recipes import Context, resolve

IMAGES, NAMES = "mnist_cnn", "names_decoder"
DATA = {IMAGES: "digits28", NAMES: "embedded_names"}
# Scalars, weights and channels of the full networks, section 3 of the spec.
SCALARS = {IMAGES: 87_850, NAMES: 209_489}
WEIGHTS = {IMAGES: 81_696, NAMES: 198_336}
SMALL = {"steps": 6, "every": 3, "batch_size": 4, "seed": 0, "model_options": {"width": 0.125}}


@pytest.fixture(scope="module", autouse=True)
def few_test_images():
    """60 of the embedded test images: enough to see that something is measured on them."""
    whole = recipes.load_dataset
    few = load_dataset("digits28", "test").take(range(60))
    patch = pytest.MonkeyPatch()
    patch.setattr(
        recipes,
        "load_dataset",
        lambda name, split: few if (name, split) == ("digits28", "test") else whole(name, split),
    )
    yield
    patch.undo()


def context(checkpoint=None, precision="fp32", **parents):
    return Context("cpu", precision, checkpoint, parents, progress=False)


def settings(model, **changes):
    own = {"subset": 60} if model == IMAGES else {}
    return {"dataset": DATA[model], "model": model, **SMALL, **own, **changes}


def floating(model, **changes):
    return FloatConfig(**settings(model, **changes))


def compressing(model, preserve="random", name="drift", **changes):
    changes = {"preserved": 4, **({"gamma": 0.1} if name == "default" else {}), **settings(model, **changes)}
    return CompressionConfig(**settings_of(preset(name, model), preserve, **changes))


def begun(config, preserved=True):
    """What `self_compression` sets up: task, network, hooks."""
    ctx = context(float=new_model(config).state_dict())
    task, model = make_task(config, ctx), placed(new_model(config), ctx)
    quantize_model(model, config.bits, config.exponent)
    chosen = preservation_set(config, ctx, task)[0] if preserved else None
    return task, model, Compression(config, model, task, chosen)


def timeless(metrics):
    kept = {name: value for name, value in metrics.items() if name not in ("training_seconds", "seconds_per_step")}
    return {**kept, "curves": {name: curve for name, curve in metrics["curves"].items() if name != "seconds"}}


# --- the start of a run, at full size -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "q", "classes", "printed"), [(IMAGES, 29.758, 10, 5.394), (NAMES, 30.2963, 27, 6.490)]
)
def test_the_loss_at_the_start_is_the_specs(model, q, classes, printed):
    """ln classes * 1.05 + 0.1 Q, section 7: the last part exactly, the first as far as random outputs are uniform."""
    batch = preset("drift", model).batch
    config = compressing(model, steps=1, every=1, batch_size=batch, preserved=batch, model_options={})
    curves = self_compression(config, context()).metrics["curves"]
    assert curves["train_penalty"][0] == pytest.approx(0.1 * 32 * WEIGHTS[model] / SCALARS[model], rel=1e-6)
    assert curves["train_penalty"][0] / 0.1 == pytest.approx(q, abs=6e-4 if model == IMAGES else 6e-5)
    assert curves["train_task"][0] == pytest.approx(math.log(classes), abs=0.4)
    assert curves["train_preservation"][0] == pytest.approx(0.05 * math.log(classes), abs=0.05 * 0.4)
    assert curves["train_loss"][0] == pytest.approx(printed, abs=0.45)
    assert curves["mean_bits"][0] == 32 and curves["soft_bytes"][0] == 4 * WEIGHTS[model]


@pytest.mark.parametrize("model", [IMAGES, NAMES])
def test_sizes_of_a_real_run_are_those_of_the_optimiser_alone(model):
    """To the byte and beyond: the data have no say in the published setting."""
    config = compressing(model, "extra_batch", steps=6, every=2, batch_size=1, preserved=1, model_options={})
    metrics = self_compression(config, context()).metrics
    wanted = drift.sizes_after(model, 6)
    assert metrics["curves"]["soft_bytes"] == pytest.approx([wanted[step] for step in (0, 2, 4, 6)], abs=1e-6)
    assert metrics["soft_bytes"] == metrics["curves"]["soft_bytes"][-1]
    assert metrics["dead_channels"] == 0 and metrics["file_bytes"] < metrics["soft_bytes"]


# --- one step ---------------------------------------------------------------------------------------------


def step_gradients(hooks, task, model, seed=0):
    """Gradient of each layer's bits in one step of the loop, and the terms."""
    generator = torch.Generator().manual_seed(seed)
    model.train()
    model.zero_grad()
    with hooks.around(model):
        terms = {"task": task.loss(model, task.batch(generator, 8)), **hooks.terms(model, generator)}
    torch.stack(list(terms.values())).sum().backward()
    return {name: layer.bits.grad.flatten() for name, layer in quantized_layers(model).items()}, terms


@pytest.mark.parametrize("model", [IMAGES, NAMES])
def test_only_the_penalty_moves_bits_until_weights_are_clipped(model):
    config = compressing(model, model_options={} if model == IMAGES else {"width": 0.125})
    task, net, hooks = begun(config)
    found, _ = step_gradients(hooks, task, net)
    for name, layer in quantized_layers(net).items():
        pull = 0.1 * layer.weight[0].numel() / net.scalars_at_start
        assert found[name].tolist() == pytest.approx([pull] * len(found[name]), rel=1e-6)
    task, net, hooks = begun(config.model_copy(update={"bits": 3.0}))  # +-4 steps of 1/256: most weights are beyond
    found, _ = step_gradients(hooks, task, net)
    pulls = [0.1 * layer.weight[0].numel() / net.scalars_at_start for layer in quantized_layers(net).values()]
    pushed = torch.cat([slopes - pull for slopes, pull in zip(found.values(), pulls, strict=True)])
    assert (pushed != 0).double().mean() > 0.9 and pushed.abs().max() > 1e-4


def test_both_batches_share_one_quantisation_and_their_gradients_add(monkeypatch):
    config = compressing(IMAGES, bits=3.0, l1=1e-4)
    task, net, hooks = begun(config)
    train, test = (replace(images, x=images.x.double()) for images in (task.train, task.test))
    hooks.task = task = ImageTask(train, test, None, 0)
    hooks.preserved, net = train, net.double()
    calls = []
    genuine = layers.fake_quantize
    monkeypatch.setattr(layers, "fake_quantize", lambda *given: calls.append(1) or genuine(*given))
    step_gradients(hooks, task, net)
    together = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    assert len(calls) == 4
    generator = torch.Generator().manual_seed(0)
    net.zero_grad()
    first, second = task.batch(generator, 8), hooks.preserved_batch(generator, config.preserved)
    assert len(first[1]) == 8 and len(second[1]) == 4
    for loss in (
        lambda: task.loss(net, first),
        lambda: 0.05 * task.loss(net, second),
        lambda: 0.1 * mean_bits(net, "all_params"),
        lambda: 1e-4 * sum(layer.weight.abs().sum() for layer in quantized_layers(net).values()),
    ):
        loss().backward()
    for name, parameter in net.named_parameters():
        assert torch.allclose(parameter.grad, together[name], rtol=1e-9, atol=1e-12), name


def test_a_run_quantises_once_per_step(monkeypatch):
    calls = []
    genuine = layers.fake_quantize

    def counted(*given):
        calls.append(torch.is_grad_enabled())  # measuring is done without
        return genuine(*given)

    monkeypatch.setattr(layers, "fake_quantize", counted)
    self_compression(compressing(IMAGES, restoration=None), context())
    assert sum(calls) == 6 * 4


def test_terms_of_the_loss_follow_the_configuration():
    task, net, hooks = begun(compressing(IMAGES, "none"))
    assert set(step_gradients(hooks, task, net)[1]) == {"task", "penalty"}
    task, net, hooks = begun(compressing(IMAGES, "random", "default", gamma=0.3))
    _, terms = step_gradients(hooks, task, net)
    assert set(terms) == {"task", "penalty", "l1", "preservation"}
    assert float(terms["penalty"].detach()) == pytest.approx(0.3 * 8)  # Q is the mean bit depth in our setting
    total = sum(float(layer.weight.detach().abs().sum()) for layer in quantized_layers(net).values())
    assert float(terms["l1"].detach()) == pytest.approx(1e-5 * total, rel=1e-5)


def test_exempt_channels_feel_no_penalty():
    task, net, hooks = begun(compressing(IMAGES, "none"))
    free = torch.tensor([True, False] * 4)
    hooks.restorer.exempt = {"conv2": free}
    found, terms = step_gradients(hooks, task, net)
    assert (found["conv2"][free] == 0).all() and (found["conv2"][~free] > 0).all() and (found["conv1"] > 0).all()
    whole = 0.1 * float(mean_bits(net, "all_params").detach())
    share = 4 * net.conv2.weight[0].numel() * 32 / net.scalars_at_start
    assert float(terms["penalty"].detach()) == pytest.approx(whole - 0.1 * share, rel=1e-6)


def test_rates_of_our_setting_fall_to_zero_over_the_last_third(watched_steps):
    with watched_steps() as seen:
        self_compression(compressing(NAMES, "none", "default", steps=10), context())
    factors = [1.0] * 7 + [(1 + math.cos(math.pi * into / 3)) / 2 for into in (0, 1, 2)]
    assert len(seen) == 10 and isinstance(seen[0][0], torch.optim.AdamW)
    for (_, rates), factor in zip(seen, factors, strict=True):
        assert rates == pytest.approx([1e-3 * factor, 1e-2 * factor, 1e-3 * factor, 1e-3 * factor])


# --- what is preserved ------------------------------------------------------------------------------------


def positions_in(source, images):
    """Place of each image in a set, by its pixels."""
    return [next(i for i, x in enumerate(source.x) if torch.equal(x, each)) for each in images.x]


def test_selected_images_are_the_judges_choice_among_the_training_images():
    config = compressing(IMAGES, "selected", subset=160, held=1_000)
    judge = new_model(floating(IMAGES, seed=5))
    task = make_task(config, context())
    found, told = preservation_set(config, context(float=judge.state_dict()), task)
    train, _, _ = training_images(config)
    wanted = select(score_images(judge, train, *NORMALISATION["digits28"], "conv4"), 16, 10, seed=0)
    assert torch.equal(found.x, task.train.x[wanted.positions]) and torch.equal(found.y, task.train.y[wanted.positions])
    assert told["preserved_counts"] == {"evidence": 8, "uncertain": 4, "diverse": 4}
    assert told["preserved_classes"] == torch.bincount(found.y, minlength=10).tolist() and len(found) == 16
    other, _ = preservation_set(config, context(float=new_model(floating(IMAGES)).state_dict()), task)
    assert not torch.equal(found.y, other.y) or not torch.equal(found.x, other.x)


def test_controls_and_the_leak():
    config = compressing(IMAGES, "random")
    task = make_task(config, context())
    drawn, told = preservation_set(config, context(), task)
    assert torch.equal(drawn.x, task.train.x[random_selection(60, 6, 0).positions]) and len(drawn) == 6
    assert sum(told["preserved_classes"]) == 6
    everything, told = preservation_set(compressing(IMAGES, "extra_batch"), context(), task)
    assert everything is task.train and told == {}
    assert preservation_set(compressing(IMAGES, "none"), context(), task) == (None, {})


def test_the_leaking_variant_takes_a_tenth_of_the_test_images(monkeypatch):
    monkeypatch.setattr("efflib.papers.safety.selection.CLUSTERS_PER_CLASS", 2)  # 60 images cannot fill 100 clusters
    config = compressing(IMAGES, "test")
    task = make_task(config, context())
    found, _ = preservation_set(config, context(float=new_model(config).state_dict()), task)
    places = positions_in(task.test, found)
    assert len(set(places)) == 6 and task.test.y[places].tolist() == found.y.tolist()
    assert not any(torch.equal(x, each) for x in task.train.x for each in found.x)


def decoded(tokens):
    return embedded_names().decode(tokens.numpy())


def test_preserved_names_come_from_complete_training_names():
    names = embedded_names()
    train = names.split().train.names
    count = len(train) // 10
    task = make_task(compressing(NAMES), context())
    found, told = preservation_set(compressing(NAMES, "selected"), context(), task)
    assert decoded(found) == preserved_names(train, count).text
    assert told == {"preserved_names": count, "preserved_characters": len(found)}
    drawn = [
        decoded(preservation_set(compressing(NAMES, "random", seed=seed), context(), task)[0]).split("\n")
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == count and set(drawn[0]) <= set(train)
    assert preservation_set(compressing(NAMES, "extra_batch"), context(), task)[0] is task.train
    # What is held out for choices, or comes later in another order, is not among the candidates.
    for changes in ({"held": 1}, {"protocol": "shuffled"}):
        part = names.split(changes.get("protocol", "stream"), tune="held" in changes).train.names
        found, _ = preservation_set(compressing(NAMES, "selected", **changes), context(), task)
        assert decoded(found) == preserved_names(part, len(part) // 10).text


def test_the_leaking_names_come_from_the_whole_list():
    names = embedded_names()
    found, _ = preservation_set(compressing(NAMES, "test"), context(), make_task(compressing(NAMES), context()))
    chosen = decoded(found).split("\n")
    assert chosen == list(preserved_names(names.names, len(names) // 10).names)
    assert set(chosen) & set(names.split().validation.names)


def test_a_thousand_names_at_most(monkeypatch):
    monkeypatch.setattr(recipes, "PRESERVED_NAMES", 10)
    task = make_task(compressing(NAMES), context())
    assert preservation_set(compressing(NAMES, "selected"), context(), task)[1]["preserved_names"] == 10


def test_preserved_images_are_turned_and_shifted_only_if_asked():
    for asked in (True, False):
        task, _, hooks = begun(compressing(IMAGES, augment_preserved=asked))
        x, y = hooks.preserved_batch(torch.Generator().manual_seed(0), 5)
        generator = torch.Generator().manual_seed(0)
        plain, labels = hooks.preserved.draw(generator, 5)
        assert torch.equal(y, labels)
        black = float(task.train.x.min())  # digits are on black
        assert torch.equal(x, jitter(plain, generator, black) if asked else plain)
    mean, std = NORMALISATION["digits28"]
    assert black == pytest.approx(-mean[0] / std[0], rel=1e-6)


def test_preserved_windows_are_cut_from_the_preserved_text():
    _, _, hooks = begun(compressing(NAMES, "selected"))
    text = decoded(hooks.preserved)
    inputs, targets = hooks.preserved_batch(torch.Generator().manual_seed(0), 5)
    assert all(decoded(window) in text for window in inputs) and inputs.shape == (5, 32)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


# --- restoration ------------------------------------------------------------------------------------------

RULE = {"every": 2, "tolerance": 1.0, "share": 0.5}


def test_a_violation_gives_bits_back(monkeypatch):
    config = compressing(IMAGES, bits=3.0, gamma=5.0, lr_bits=0.1, restoration=RULE)
    task, net, hooks = begun(config)
    scores = iter([90.0, 80.0, 95.0])
    monkeypatch.setattr(task, "score", lambda model, preserved: next(scores))
    optimiser, seen = hooks.preset.create_optimiser(net), {}
    with torch.no_grad():
        net.conv3.bits[1] = -0.01
    for step in range(1, 7):
        step_gradients(hooks, task, net)
        optimiser.step()
        seen[step] = {name: layer.bits.detach().flatten().clone() for name, layer in quantized_layers(net).items()}
        hooks.stepped(net, optimiser, step)
        assert net.training
        if step == 4:
            after = {name: layer.bits.detach().flatten().clone() for name, layer in quantized_layers(net).items()}
            moments = {name: optimiser.state[layer.bits]["exp_avg"].flatten().clone()
                       for name, layer in quantized_layers(net).items()}  # fmt: skip
            squares = {name: optimiser.state[layer.bits]["exp_avg_sq"].flatten().clone()
                       for name, layer in quantized_layers(net).items()}  # fmt: skip
            exempt = dict(hooks.restorer.exempt)
    events = {event["layer"]: event for event in hooks.events()}
    assert set(events) == {"conv1", "conv2", "conv3", "conv4"} and len(hooks.events()) == 4
    for name, event in events.items():
        channels = event["channels"]
        assert (event["step"], event["score"], event["next_score"]) == (4, 80.0, 95.0)
        assert event["before"] == seen[4][name][channels].tolist() and event["after"] == after[name][channels].tolist()
        others = [c for c in range(len(after[name])) if c not in channels]
        assert torch.equal(after[name][others], seen[4][name][others]) and others
        living = [c for c in channels if seen[4][name][c] > 0]
        assert torch.equal(after[name][living], seen[2][name][living])  # the snapshot of the last good check
        assert (moments[name][channels] == 0).all() and (squares[name][channels] == 0).all()
        assert (moments[name][[c for c in others if seen[4][name][c] > 0]] != 0).all()
        assert torch.nonzero(exempt[name]).flatten().tolist() == channels
        # Free of the penalty until the next check; what the task wants may still move them.
        assert (seen[5][name][channels] - after[name][channels]).abs().max() <= 0.11
    dead = events["conv3"]["channels"].index(1)
    assert events["conv3"]["after"][dead] == 2 and events["conv3"]["before"][dead] <= 0
    assert hooks.restorer.exempt == {}  # the next check found nothing wrong
    summary = hooks.restorer.summary()
    assert (summary["checks"], summary["violations_restored"]) == (3, 1)
    assert summary["channels"] == sum(len(event["channels"]) for event in events.values())


def test_a_run_tells_every_restoration_with_the_score_that_followed(monkeypatch):
    """Also where a note lies between the two checks."""
    monkeypatch.setattr(Restorer, "violated", lambda self, score: self.checks in (1, 2))
    config = compressing(IMAGES, bits=3.0, lr_bits=0.1, gamma=5.0, steps=8, every=2, restoration=RULE)
    metrics = self_compression(config, context()).metrics
    assert {event["step"] for event in metrics["events"]} == {4, 6}
    assert all(event["next_score"] is not None for event in metrics["events"])
    assert metrics["checks"] == 4 and metrics["violations_restored"] == 2
    assert metrics["channels"] == sum(len(event["channels"]) for event in metrics["events"])
    given = sum(sum(event["after"]) - sum(event["before"]) for event in metrics["events"])
    assert metrics["mean_bits_given_back"] == pytest.approx(given / metrics["channels"])
    json.dumps(metrics, allow_nan=False)


def test_the_published_setting_gives_nothing_back(monkeypatch):
    """Its rule needs channels without any bits, and from 32 bits there are none."""
    monkeypatch.setattr(Restorer, "violated", lambda self, score: True)
    rule = {**asdict(preset("drift", NAMES).restoration), "only": ["qkv"], "every": 2}
    metrics = self_compression(compressing(NAMES, "random", restoration=rule), context()).metrics
    assert metrics["checks"] == 3 and metrics["events"] == [] and metrics["channels"] == 0


def test_checks_look_at_the_whole_preservation_set_every_so_many_steps(monkeypatch):
    looked = []

    def score(self, model, preserved):
        looked.append(len(preserved))
        return 50.0

    monkeypatch.setattr(ImageTask, "score", score)
    run = compressing(IMAGES, steps=6, every=6, restoration=RULE)
    assert self_compression(run, context()).metrics["checks"] == 3
    assert looked == [6] * (1 + 3 + 1 + 1)  # the first note, the checks, the last note, and at the end


# --- going on after an interruption -----------------------------------------------------------------------


def interrupt(monkeypatch, saves):
    """The next run ends like one that is killed right after it has written so many checkpoints."""
    genuine, left = steps._save, [saves]

    def save(*state):
        genuine(*state)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(steps, "_save", save)


CASES = {
    "float images": (float_twin, floating, IMAGES, {"steps": 8}),
    "float names": (float_twin, floating, NAMES, {"steps": 8, "optimiser": "adamw", "weight_decay": 0.01}),
    "images": (self_compression, compressing, IMAGES, {"steps": 8, "name": "default"}),
    "names": (self_compression, compressing, NAMES, {"steps": 8}),
    "images with restorations": (
        self_compression,
        compressing,
        IMAGES,
        {"steps": 8, "bits": 3.0, "gamma": 5.0, "lr_bits": 0.3, "restoration": RULE},
    ),
    "names with restorations": (
        self_compression,
        compressing,
        NAMES,
        {
            "name": "default",
            "steps": 8,
            "bits": 2.0,
            "lr_bits": 0.7,
            "restoration": {**RULE, "pick": "random", "higher_is_better": False},
        },
    ),
}


@pytest.mark.parametrize("saves", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_trial_repeats_an_unbroken_one(case, saves, tmp_path, monkeypatch):
    run, configure, model, changes = CASES[case]
    config = configure(model, **changes)
    if "restorations" in case:
        monkeypatch.setattr(Restorer, "violated", lambda self, score: self.checks % 2 == 1)
    whole = run(config, context())
    path = tmp_path / "trial.pt"
    with monkeypatch.context() as patch:
        interrupt(patch, saves)
        with pytest.raises(KeyboardInterrupt):
            run(config, context(path))
    again = run(config, context(path))
    assert timeless(again.metrics) == timeless(whole.metrics)
    assert all(torch.equal(again.weights[name], value) for name, value in whole.weights.items())
    if "restorations" in case:
        assert {event["step"] for event in whole.metrics["events"]} == {4, 8}
    assert whole.metrics["curves"]["step"] == [0, 3, 6, 8]


def test_how_long_channels_were_silent_belongs_to_the_checkpoint():
    config = compressing(IMAGES, "none")
    _, _, hooks = begun(config)
    hooks.dead.silent["conv2"][3] = 99
    _, _, again = begun(config)
    again.restore(hooks.state())
    assert again.dead.silent["conv2"].tolist() == [0, 0, 0, 99, 0, 0, 0, 0]


def test_a_checkpoint_of_another_trial_is_refused(tmp_path):
    path = tmp_path / "trial.pt"
    self_compression(compressing(NAMES), context(path))
    for other in (compressing(NAMES, seed=1), compressing(NAMES, gamma=0.2), compressing(NAMES, every=2)):
        with pytest.raises(ForeignCheckpoint, match="belongs to another run"):
            self_compression(other, context(path))
    with pytest.raises(ForeignCheckpoint, match="belongs to another run"):
        float_twin(floating(NAMES), context(path))


@pytest.mark.parametrize("model", [IMAGES, NAMES])
def test_a_run_that_diverges_says_so(model):
    with pytest.raises(FloatingPointError, match=r"training loss is (nan|inf) in step [2-6]: the run diverged"):
        float_twin(floating(model, lr=1e30), context())
    rule = {**RULE, "every": 3, "higher_is_better": model == IMAGES}
    with pytest.raises(FloatingPointError, match=r"is (nan|inf) (in|after) step [2-6]: the run diverged"):
        self_compression(compressing(model, lr=1e30, restoration=rule), context())


# --- pairs by seed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "task"), [(IMAGES, ImageTask), (NAMES, TextTask)])
def test_twins_begin_with_the_same_weights_and_batches(model, task, monkeypatch):
    drawn, genuine = [], task.batch

    def batch(self, generator, count):
        found = genuine(self, generator, count)
        if count == SMALL["batch_size"]:  # recalibration takes more
            drawn.append(found)
        return found

    monkeypatch.setattr(task, "batch", batch)

    def batches(run, config):
        drawn.clear()
        run(config, context())
        return torch.stack([x for x, _ in drawn]).clone()

    twin = batches(float_twin, floating(model))
    unsafe = batches(self_compression, compressing(model, "none"))
    assert len(twin) == 6 and torch.equal(twin, unsafe)
    for preserve in ("random", "extra_batch"):
        assert torch.equal(twin, batches(self_compression, compressing(model, preserve)))
    assert not torch.equal(twin, batches(float_twin, floating(model, seed=1)))
    start, other = new_model(floating(model)), new_model(compressing(model, "none"))
    assert all(torch.equal(a, b) for a, b in zip(start.parameters(), other.parameters(), strict=True))
    quantize_model(other, 32.0, -8.0)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in start.state_dict().items())
    assert not torch.equal(start.head.weight, new_model(floating(model, seed=1)).head.weight)


def test_notes_leave_the_training_alone():
    """Batch norm is recalibrated at every note, which training does not see; only the batches depend on `every`."""
    config = compressing(IMAGES, steps=3, every=3)
    wanted = self_compression(config, context()).weights
    task, model, hooks = begun(config)
    task.measure, hooks.measured = (lambda model: {}), (lambda model: {})
    run_steps(model, task, hooks.preset.create_optimiser(model), Schedule(3, 3), 4, 0, hooks, progress=False)
    assert all(torch.equal(wanted[name], parameter) for name, parameter in model.named_parameters())


def test_the_float_twin_tells_its_size_and_trains_as_the_preset():
    outcome = float_twin(floating(NAMES, model_options={}, steps=1), context())
    assert (outcome.metrics["soft_bytes"], outcome.metrics["file_bytes"]) == (793_344, 819_308)
    outcome = float_twin(floating(IMAGES, model_options={}, steps=1, batch_size=1), context())
    assert (outcome.metrics["soft_bytes"], outcome.metrics["file_bytes"]) == (326_784, 349_864)
    for seed in range(2):
        made = (arms.float_twin("paper", NAMES, seed), arms.compressed("paper", NAMES, seed))
        shared = ("batch_size", "steps", "optimiser", "weight_decay", "lr", "every", "held", "seed", "model_options")
        assert all(made[0].config[name] == made[1].config[name] for name in shared)


# --- export -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [IMAGES, NAMES])
def test_an_exported_network_is_a_file_of_the_stated_size_that_does_the_same(model, monkeypatch, tmp_path):
    kept = tmp_path / "kept.packed"
    genuine = recipes.save_packed

    def save(net, path):
        found = genuine(net, path)
        kept.write_bytes(path.read_bytes())
        return found

    monkeypatch.setattr(recipes, "save_packed", save)
    config = compressing(model, "none", "default", bits=4.0, held=40 if model == IMAGES else 1)
    outcome = self_compression(config, context())
    told = outcome.metrics
    header = 16  # magic, version, number of layers, length, checksum
    parts = header + told["file_payload"] + told["file_side"] + told["file_rest"]
    assert told["file_bytes"] == kept.stat().st_size == parts
    assert told["tightened_test"] == told["last"] == told["curves"]["test"][-1]
    assert told["tight_bytes"] <= told["tightened_soft_bytes"] + 4
    assert {"train", "held", "test_best", "soft_bytes", "chain_bytes", "mean_bits"} <= set(told)
    best = max if model == IMAGES else min
    assert told["test_best"] == best(told["curves"]["test"])
    # The weights that are kept are those that were measured.
    again = quantize_model(new_model(config), config.bits, config.exponent)
    again.load_state_dict(outcome.weights)
    assert make_task(config, context()).measure(again)["test"] == told["last"]


def test_a_file_of_another_size_than_stated_is_an_error(monkeypatch):
    genuine = recipes.save_packed

    def save(net, path):
        found = genuine(net, path)
        path.write_bytes(path.read_bytes() + b"\0")
        return found

    monkeypatch.setattr(recipes, "save_packed", save)
    task, model, _ = begun(compressing(NAMES, "none"))
    with pytest.raises(RuntimeError, match=r"the packed file has \d+ bytes, its accounting says \d+"):
        exported(model, task)


# --- configurations ---------------------------------------------------------------------------------------


def refused(**changes):
    given = compressing(changes.pop("model", IMAGES), changes.pop("start", "random")).model_dump()
    with pytest.raises(ValueError, match="bad settings for recipe 'self_compression'") as problem:
        resolve("self_compression", {**given, **changes})
    return str(problem.value)


def test_settings_that_contradict_each_other_are_refused():
    nothing = "preserve='none' has no preservation set: preservation_weight=0 and restoration=None"
    assert nothing in refused(preserve="none", restoration=None)
    assert nothing in refused(preserve="none", preservation_weight=0.0)
    assert "preserve='extra_batch' watches nothing: restoration=None" in refused(preserve="extra_batch")
    rule = asdict(Restoration())
    assert "unexpected keyword argument 'evry'; its settings are every, trigger" in refused(restoration={"evry": 10})
    assert "unknown mode: 'more'" in refused(restoration={**rule, "mode": "more"})
    assert "share must be a fraction" in refused(restoration={**rule, "share": 0.0})
    assert "restoration=" in refused(restoration={**rule, "every": "often"})
    found = refused(model=NAMES, restoration=rule)
    assert "the score of embedded_names is a loss, lower is better: higher_is_better=False" in found
    found = refused(restoration={**rule, "higher_is_better": False})
    assert "the score of digits28 is an accuracy, higher is better: higher_is_better=True" in found
    for name, value in (("gamma", -0.1), ("lr_bits", 0.0), ("cosine_tail", 1.0), ("preserve", "all"), ("steps", 0)):
        assert f"  {name}: " in refused(**{name: value})


def test_a_missing_gamma_is_named():
    with pytest.raises(ValueError, match=r"preset 'default' leaves gamma open: give gamma=, for instance one of its"):
        settings_of(preset("default", IMAGES), "selected")
    with pytest.raises(ValueError, match="leaves gamma open"):
        arms.compressed("smoke", IMAGES, 0, name="default")


def test_too_many_held_images_are_refused():
    size = len(load_dataset("digits28", "train"))
    with pytest.raises(ValueError, match=f"held={size} of the {size} training images of digits28 leaves none"):
        training_images(floating(IMAGES, held=size))
    train, held, _ = training_images(floating(IMAGES, held=7, subset=None))
    assert held.indices.tolist() == list(range(size - 7, size)) and train.indices.tolist() == list(range(size - 7))
    assert training_images(floating(IMAGES))[0].indices.tolist() == list(range(60))


@pytest.mark.parametrize("key", PRESETS)
@pytest.mark.parametrize("preserve", ["none", "selected", "extra_batch"])
def test_a_configuration_spells_its_preset_out(key, preserve):
    chosen = preset(*key)
    gamma = 0.03 if chosen.gamma is None else chosen.gamma
    config = compressing(key[1], preserve, key[0], gamma=gamma, steps=chosen.steps, batch_size=chosen.batch,
                         preserved=chosen.preserved)  # fmt: skip
    watched = preserve == "selected"
    weight = 0.0 if preserve == "none" else chosen.preservation_weight
    wanted = replace(chosen, gamma=gamma, preservation_weight=weight)
    assert preset_of(config) == (wanted if watched else replace(wanted, restoration=Restoration()))
    assert (config.restoration is not None) == watched and config.preservation_weight == weight
    assert CompressionConfig(**json.loads(config.model_dump_json())) == config


# --- arms -------------------------------------------------------------------------------------------------


def test_the_published_runs_are_the_specs_rows():
    for model, batch, optimiser, decay, held in ((IMAGES, 64, "adam", 0.0, 5_000), (NAMES, 16, "adamw", 0.01, 0)):
        config = arms.compressed("paper", model, 3).config
        assert (config["batch_size"], config["preserved"], config["steps"]) == (batch, batch, 10_000)
        assert (config["optimiser"], config["weight_decay"], config["decay"]) == (optimiser, decay, "all")
        assert (config["bits"], config["exponent"], config["gamma"], config["l1"]) == (32, -8, 0.1, 0)
        assert (config["norm"], config["preservation_weight"]) == ("all_params", 0.05)
        assert config["augment_preserved"] == (model == IMAGES) and config["held"] == held and config["seed"] == 3
        assert config["restoration"]["every"] == 100 and config["restoration"]["mode"] == "two_bits"
    assert arms.float_twin("paper", NAMES, 0, share=0.5).config["steps"] == 5_000


def test_arms_differ_in_where_the_second_batch_comes_from():
    found = {method: arms.compressed("paper", IMAGES, 0, method).config for method in arms.SAFE}
    same = set(CompressionConfig.model_fields) - {"preserve", "preservation_weight", "restoration"}
    assert all(config[name] == found["safe"][name] for config in found.values() for name in same)
    assert {method: config["preserve"] for method, config in found.items()} == arms.SAFE
    assert found["unsafe"]["preservation_weight"] == 0 and found["unsafe"]["restoration"] is None
    assert found["extra_batch"]["preservation_weight"] == 0.05 and found["extra_batch"]["restoration"] is None
    made = arms.compressed("paper", IMAGES, 0, "unsafe", gamma=0.3, steps=7)
    assert (made.config["gamma"], made.config["steps"]) == (0.3, 7)
    assert made.parents["float"] == arms.float_twin("paper", IMAGES, 0)


def test_recorded_runs_keep_their_names():
    """Another identity would orphan the records: bump the recipe's version instead where its meaning changes."""
    assert [
        trial.identity
        for trial in (
            arms.float_twin("paper", NAMES, 0),
            arms.compressed("paper", NAMES, 0, "unsafe"),
            arms.compressed("paper", NAMES, 0, "safe"),
            arms.float_twin("paper", IMAGES, 0),
            arms.compressed("paper", IMAGES, 0, "safe"),
        )
    ] == ["766fd909f71682cf", "5f84c261e3e720d5", "9ea8eb4c6e7bb4e4", "1c69614dde75262c", "0c3527a73da26ca2"]
