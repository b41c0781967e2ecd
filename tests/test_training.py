"""The trainer: it learns, it repeats itself bit for bit, it survives being killed, and it says what is wrong."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from functools import cache, partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from efflib import distill
from efflib.data import ImageSet, load_dataset
from efflib.kernels.augment import affine_normalise, crop_flip_normalise, draw_affine
from efflib.models import create_model
from efflib.training import (
    RECIPES,
    Batch,
    Curriculum,
    DeviceSet,
    ForeignCheckpoint,
    History,
    TrainingRecipe,
    cifar_lr,
    cifar_rd,
    cifar_review,
    cross_entropy,
    derived_seed,
    epoch_batches,
    evaluate,
    fit,
    freeze,
    pick_device,
    pick_precision,
    predict,
    seeded,
    tiny_imagenet,
)

SHORT = TrainingRecipe(epochs=3, lr=0.05, batch_size=32, milestones=(2,))


@cache
def digits(count=96, held=48):
    train = load_dataset("digits", "train")
    return train.take(range(count)), load_dataset("digits", "test").take(range(held)), train.take(range(count, 144))


def network(name="resnet14", seed=0, classes=10, width=0.5):
    with seeded(seed):
        return create_model(name, classes, width=width, in_channels=1)


def train(model=None, recipe=SHORT, validation=False, **options):
    """(history, weights) of a short run on a few digits."""
    model = model or network()
    train_set, test, held = digits()
    options = {"device": "cpu", "precision": "fp32", "progress": False, **options}
    history = fit(model, train_set, test, held if validation else None, recipe=recipe, **options)
    return history, {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- it learns ----------------------------------------------------------------------------------------------


@cache
def accuracies(precision):
    """Last accuracies of three seeds after two epochs on all digits."""
    recipe = TrainingRecipe(epochs=2, lr=0.05, batch_size=32, augment="none", milestones=(1,))
    train_set, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    runs = [
        fit(
            network(seed=seed),
            train_set,
            test,
            None,
            recipe,
            seed=seed,
            device="cpu",
            precision=precision,
            progress=False,
        )
        for seed in range(3)
    ]
    return [run.last for run in runs]


def test_it_learns_digits():
    assert min(accuracies("fp32")) > 80  # chance is 10 %


def test_bf16_is_as_accurate_as_fp32():
    if pick_precision("auto", "cpu") != "bf16":
        pytest.skip("this processor has no bf16 arithmetic")
    found = {}
    for precision in ("bf16", "fp32"):
        values = accuracies(precision)
        found[precision] = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values) + 1e-9)
    assert min(accuracies("bf16")) > 80
    assert found["bf16"][0] <= found["fp32"][1] and found["fp32"][0] <= found["bf16"][1]


def test_augmentation_and_validation_work_together():
    history, _ = train(validation=True)
    assert len(history.validation) == len(history.test) == history.epochs == 3
    assert history.losses["train_loss"][-1] < history.losses["train_loss"][0]


# --- schedules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "drops"),
    [
        (cifar_rd(240), (150, 180, 210)),
        (cifar_rd(60), (38, 45, 53)),
        (cifar_rd(30), (19, 23, 26)),
        (cifar_lr(200), (30, 60, 90)),
        (cifar_review(240), (150, 180, 210)),
        (tiny_imagenet(300), (90, 150, 210, 270)),
    ],
)
def test_the_rate_drops_where_the_spec_says(recipe, drops):
    factor = 0.2 if recipe == tiny_imagenet() else 0.1
    assert recipe.milestones == drops
    for number, drop in enumerate(drops):
        # the epoch before, counting from 0
        assert recipe.rate(drop - 1) == pytest.approx(recipe.lr * factor**number)
        assert recipe.rate(drop) == pytest.approx(recipe.lr * factor ** (number + 1))
    assert recipe.rate(recipe.epochs - 1) == pytest.approx(recipe.lr * factor ** len(drops))


def test_recipes_have_the_settings_of_the_spec():
    rd, lr = RECIPES["cifar_rd"](), RECIPES["cifar_lr"]()
    assert (rd.epochs, rd.lr, rd.momentum, rd.weight_decay, rd.batch_size, rd.augment) == (
        240, 0.05, 0.9, 5e-4, 64, "crop_flip",
    )  # fmt: skip
    assert (lr.epochs, lr.lr, lr.weight_decay, lr.batch_size, lr.augment) == (200, 0.1, 5e-4, 64, "none")
    assert lr.normalisation == ((0.5,) * 3, (0.5,) * 3)
    assert not rd.nesterov and not lr.nesterov and rd.pad == 4
    for name, pad in (("cifar_review", 4), ("tiny_imagenet", 8)):
        recipe = RECIPES[name]()
        assert (recipe.batch_size, recipe.lr, recipe.momentum, recipe.nesterov) == (128, 0.1, 0.9, True)
        assert (recipe.weight_decay, recipe.augment, recipe.pad) == (5e-4, "crop_flip", pad)
    assert cifar_review().model_copy(update={"lr": 0.02}).rate(150) == pytest.approx(0.002)  # mobile students


def test_pad_is_the_width_of_the_border_that_crops_are_cut_from():
    """White images of 8 px: a crop shifted by `pad` shows that many black rows or columns, and never more."""
    white = dataclasses.replace(digits()[0], images=np.full((96, 8, 8, 1), 255, dtype=np.uint8))
    for pad, worst in ((0, 0), (2, 2), (6, 6)):
        black: list[int] = []

        def loss(model, batch, black=black):
            dark = batch.images[:, 0] < 0
            black.append(int(dark.all(dim=2).sum(dim=1).max()))
            return cross_entropy(model, batch)

        recipe = TrainingRecipe(epochs=1, pad=pad, normalisation=((0.5,), (0.5,)))
        fit(network(), white, digits()[1], recipe=recipe, loss=loss, device="cpu", precision="fp32", progress=False)
        assert max(black) == worst


def test_a_pad_of_4_gives_the_trials_of_before_their_keys():
    """Settings at their default stay out of a trial's key: the records of before keep their names."""
    assert "pad" not in cifar_rd().model_dump(exclude_defaults=True)
    assert tiny_imagenet().model_dump(exclude_defaults=True)["pad"] == 8


def test_the_schedule_is_what_the_optimiser_uses():
    history, _ = train(recipe=SHORT.model_copy(update={"milestones": (1, 2)}))
    assert history.rates == pytest.approx([0.05, 0.005, 0.0005])
    frozen, weights = train(recipe=SHORT.model_copy(update={"milestones": (1,), "gamma": 1e-30}))
    _, after_one = train(recipe=SHORT.model_copy(update={"epochs": 1}))
    assert torch.equal(weights["head.weight"], after_one["head.weight"])
    assert frozen.rates[1] < 1e-30


def test_time_per_epoch_is_a_median_without_the_first():
    history, _ = train()
    assert len(history.epoch_seconds) == history.epochs and 0 < sum(history.epoch_seconds) <= history.seconds
    assert dataclasses.replace(history, epoch_seconds=[9.0, 2.0, 1.0, 4.0]).seconds_per_epoch == 2.0
    assert dataclasses.replace(history, epoch_seconds=[9.0]).seconds_per_epoch == 9.0
    assert dataclasses.replace(history, epoch_seconds=[]).seconds_per_epoch is None


# --- repeatability ------------------------------------------------------------------------------------------


def test_the_same_seed_repeats_bit_for_bit_and_another_differs():
    (one, weights), (two, again) = train(), train()
    timeless = {"seconds": 0, "epoch_seconds": []}
    assert dataclasses.replace(one, **timeless) == dataclasses.replace(two, **timeless)
    assert same(weights, again)
    other, different = train(seed=1)  # the same initial weights
    assert not same(weights, different) and other.losses != one.losses


def test_the_callers_random_state_is_untouched():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(network("wrn_52_2", width=0.1), recipe=SHORT.model_copy(update={"epochs": 1}))
    assert torch.equal(torch.rand(3), expected)


def test_the_callers_random_state_does_not_matter():
    torch.manual_seed(1)
    _, one = train()
    torch.manual_seed(2)
    _, two = train()
    assert same(one, two)


def test_initial_weights_are_the_callers_own():
    _, one = train(network(seed=0))
    _, two = train(network(seed=1))
    assert not same(one, two)


class Hint(nn.Module):
    """A loss with a trainable part, as FitNet's."""

    def __init__(self):
        super().__init__()
        with seeded(0, "hint"):
            self.head = nn.Linear(10, 10)

    def forward(self, model, batch):
        logits = model(batch.images)
        hint = F.cross_entropy(self.head(logits), batch.targets)
        return {"cross_entropy": F.cross_entropy(logits, batch.targets), "hint": 0.5 * hint}


class Interrupted:
    """Another loss that is stopped at one step, as Ctrl-C would."""

    def __new__(cls, loss, step):
        counted = []

        def forward(model, batch):
            counted.append(1)
            if len(counted) == step:
                raise KeyboardInterrupt
            return loss_forward(model, batch)

        if not isinstance(loss, nn.Module):
            loss_forward = loss
            return forward
        loss_forward, loss.forward = loss.forward, forward
        return loss


CASES = {
    "momentum": (lambda: network(), lambda: cross_entropy),
    "dropout": (lambda: network("wrn_52_2", width=0.1), lambda: cross_entropy),
    "a loss with parameters": (lambda: network(), Hint),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("step", [5])  # the second of three steps of epoch 2
def test_an_interrupted_run_ends_like_an_unbroken_one(case, step, tmp_path):
    make_model, make_loss = CASES[case]
    loss = make_loss()
    unbroken, weights = train(make_model(), loss=loss)
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), loss=Interrupted(make_loss(), step), checkpoint=tmp_path / "c.pt")
    second = make_loss()
    resumed, again = train(make_model(), loss=second, checkpoint=tmp_path / "c.pt")
    assert resumed.resumed_from == 1
    assert (resumed.test, resumed.losses, resumed.rates) == (unbroken.test, unbroken.losses, unbroken.rates)
    assert same(weights, again)
    if isinstance(loss, nn.Module):
        assert same(loss.state_dict(), second.state_dict())
        assert not same(loss.state_dict(), Hint().state_dict())


def test_what_a_caller_follows_is_kept_across_an_interruption(tmp_path):
    def follow(model, epochs):
        assert not model.training
        return {"weight": float(next(model.parameters()).detach().abs().sum())} if epochs != 2 else {}

    unbroken, _ = train(follow=follow)
    with pytest.raises(KeyboardInterrupt):
        train(loss=Interrupted(cross_entropy, 5), checkpoint=tmp_path / "c.pt", follow=follow)
    resumed, _ = train(checkpoint=tmp_path / "c.pt", follow=follow)
    assert resumed.followed == unbroken.followed and resumed.resumed_from == 1
    assert set(unbroken.followed) == {*range(1, SHORT.epochs + 1)} - {2}
    assert len({found["weight"] for found in unbroken.followed.values()}) == len(unbroken.followed)


# Imports once and forks before anything is computed: each child is a process of its own that kills itself.
KILLED = """
import os, signal, sys, numpy, torch, torch._dynamo  # dynamo: what the first optimiser would import in each child
torch.set_num_threads(1)
from efflib.data import ImageSet
from efflib.models import create_model
from efflib.training import TrainingRecipe, cross_entropy, fit, seeded

def train(last_step):
    images, labels = numpy.load(sys.argv[1] + ".npy"), numpy.arange(96) % 10
    data = ImageSet("digits", "train", images, labels, tuple("0123456789"), numpy.arange(96), "f", "embedded")
    steps = []

    def loss(model, batch):
        steps.append(batch)
        if len(steps) == last_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return cross_entropy(model, batch)

    with seeded(0):
        model = create_model("resnet14", 10, width=0.5, in_channels=1)
    recipe = TrainingRecipe(epochs=4, lr=0.05, batch_size=16, milestones=(2,))
    options = {"checkpoint": sys.argv[1], "device": "cpu", "precision": "fp32", "progress": False}
    fit(model, data, data, recipe=recipe, loss=loss, **options)

for step in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        train(int(step))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_killed_process_continues_bit_for_bit(tmp_path):
    """Killed at a random step of epochs 1, 2 and 3 (of 6 steps each), then finished here."""
    within = np.random.default_rng().integers(2, 6, size=3)
    np.save(tmp_path / "c.pt.npy", noise().images)
    # A process starts at the epoch that the checkpoint leaves open: the later ones are killed in their second epoch.
    steps = [str(step if number == 0 else 6 + step) for number, step in enumerate(within)]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "c.pt"), *steps]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["-9"] * 3, (within, done.stderr)
    resumed, unbroken = both_runs(tmp_path / "c.pt")
    assert resumed[0].resumed_from == 2, within
    assert (resumed[0].test, resumed[0].losses) == (unbroken[0].test, unbroken[0].losses), within
    assert same(resumed[1], unbroken[1]), within


def noise():
    """96 random images of 10 classes: no import of scikit-learn in the killed process."""
    images = np.random.default_rng(0).integers(0, 256, (96, 8, 8, 1), dtype=np.uint8)
    labels, indices = np.arange(96) % 10, np.arange(96)
    return ImageSet("digits", "train", images, labels, tuple("0123456789"), indices, "f", "embedded")


def both_runs(checkpoint):
    """(history, weights) of the killed run, finished here, and of an unbroken one, on one thread as the killed ones."""
    recipe = TrainingRecipe(epochs=4, lr=0.05, batch_size=16, milestones=(2,))
    data, threads, runs = noise(), torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for path in (checkpoint, None):
            model = network()
            options = {"checkpoint": path, "device": "cpu", "precision": "fp32", "progress": False}
            runs.append((fit(model, data, data, recipe=recipe, **options), model.state_dict()))
    finally:
        torch.set_num_threads(threads)
    return runs


def refuse(model, batch):
    raise AssertionError("nothing is left to train")


def test_a_finished_run_is_not_trained_again(tmp_path):
    history, weights = train(checkpoint=tmp_path / "c.pt")
    model = network(seed=5)
    again, loaded = train(model, loss=refuse, checkpoint=tmp_path / "c.pt")
    assert again.test == history.test and again.resumed_from == 3 and same(weights, loaded)
    assert not model.training


# --- broken and foreign checkpoints -------------------------------------------------------------------------


def damages():
    """Ways to spoil a checkpoint; one flipped bit lies in the middle of the stored weights."""

    def flip(content):
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 4
        return bytes(changed)

    return {
        "truncated": lambda content: content[: len(content) // 2],
        "the last bytes missing": lambda content: content[:-10],
        "a flipped bit": flip,
        "empty": lambda content: b"",
        "a web page": lambda content: b"<html>not found</html>",
    }


@pytest.mark.parametrize("damage", damages())
def test_a_broken_checkpoint_is_set_aside_and_the_run_starts_anew(damage, tmp_path, capsys):
    path = tmp_path / "c.pt"
    recipe = SHORT.model_copy(update={"epochs": 1})
    unbroken, weights = train(recipe=recipe, checkpoint=path)
    path.write_bytes(damages()[damage](path.read_bytes()))
    history, again = train(recipe=recipe, checkpoint=path)
    assert history.resumed_from == 0 and history.test == unbroken.test and same(weights, again)
    assert (tmp_path / "c.pt.broken").exists()
    assert "checkpoint c.pt cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"precision": "fp64"}, {"recipe": SHORT.model_copy(update={"lr": 0.01})},
     {"model": network("vgg8", width=0.1)}, {"model": network(width=1)}, {"loss": Hint()}],
    ids=["seed", "precision", "recipe", "network", "width", "loss"],
)  # fmt: skip
def test_a_foreign_checkpoint_is_refused(other, tmp_path):
    train(checkpoint=tmp_path / "c.pt")
    before = (tmp_path / "c.pt").read_bytes()
    with pytest.raises(
        ForeignCheckpoint, match=r"c.pt (belongs to another run|holds another network or loss).*remove it"
    ):
        train(**{"checkpoint": tmp_path / "c.pt", **other})
    assert (tmp_path / "c.pt").read_bytes() == before
    assert issubclass(ForeignCheckpoint, ValueError)


def test_other_training_images_are_foreign(tmp_path):
    train(checkpoint=tmp_path / "c.pt")
    train_set, test, _ = digits()
    altered = dataclasses.replace(train_set, images=train_set.images ^ 1)
    for other in (altered, train_set.take(range(95, -1, -1))):
        with pytest.raises(ForeignCheckpoint, match="training set"):
            fit(network(), other, test, recipe=SHORT, checkpoint=tmp_path / "c.pt", device="cpu", precision="fp32")


def test_another_file_is_foreign(tmp_path):
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(ForeignCheckpoint, match="belongs to another run"):
        train(checkpoint=tmp_path / "c.pt")


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_its_epoch(tmp_path):
    def loss(model, batch):
        return cross_entropy(model, batch) * (float("nan") if batch.progress >= 1 else 1.0)

    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 2 \(lr 0.05\).*lower the learning rate"):
        train(loss=loss, checkpoint=tmp_path / "c.pt")
    history, _ = train(checkpoint=tmp_path / "c.pt")
    assert history.resumed_from == 1  # the diverged epoch was not kept


def test_a_rate_that_is_too_high_diverges_with_a_clear_error():
    with pytest.raises(FloatingPointError, match="the run diverged"):
        train(recipe=SHORT.model_copy(update={"lr": 1e12}))


def test_weights_spoilt_by_the_very_last_step_are_noticed():
    def loss(model, batch):
        value, bias = cross_entropy(model, batch), model.head.bias
        if batch.progress > 2.6:  # the last of nine steps: a finite loss whose gradient is not
            value = value + (bias - bias.detach()).abs().sum().sqrt()
        return value

    with pytest.raises(FloatingPointError, match="weights are not finite at the end of epoch 3"):
        train(loss=loss)


def test_empty_and_unequal_sets_are_errors():
    train_set, test, held = digits()
    for position, name in enumerate(("train", "test", "validation")):
        sets = [train_set, test, held]
        sets[position] = sets[position].take([])
        with pytest.raises(ValueError, match=f"the {name} set is empty"):
            fit(network(), *sets, recipe=SHORT, device="cpu")
    with pytest.raises(ValueError, match=r"test images \(32, 32, 3\) differ in shape from training images \(8, 8, 1\)"):
        fit(network(), train_set, load_dataset("objects32", "test").take(range(4)), recipe=SHORT, device="cpu")
    with pytest.raises(ValueError, match=r"digits .*is empty: nothing to evaluate"):
        evaluate(network(), test.take([]), device="cpu")


def test_labels_beyond_the_classes_are_an_error():
    with pytest.raises(ValueError, match="the model has 5 classes, but there are labels up to 9"):
        train(network(classes=5))


def test_no_whole_batch_is_an_error():
    with pytest.raises(ValueError, match="96 training images give no whole batch of 128"):
        train(recipe=SHORT.model_copy(update={"batch_size": 128, "drop_last": True}))


def test_unknown_names_list_the_known_ones():
    train_set, test, _ = digits()
    with pytest.raises(ValueError, match="unknown training recipe 'cifar'; known: cifar_lr, cifar_rd"):
        fit(network(), train_set, test, recipe="cifar")
    with pytest.raises(ValueError, match=r"no normalisation is known for 'mine' \(known: .*digits"):
        fit(network(), dataclasses.replace(train_set, name="mine"), test, recipe=SHORT, device="cpu")
    with pytest.raises(ValueError, match="precision must be 'auto', 'bf16', 'fp32' or 'fp64', got 'half'"):
        pick_precision("half")
    with pytest.raises(ValueError, match="unknown device 'gpu': give 'auto', 'cpu', 'cuda'"):
        pick_device("gpu")
    with pytest.raises(ValueError, match=f"no device 'cuda:99' here, torch sees {torch.cuda.device_count()}"):
        pick_device("cuda:99")
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    "wrong", [{"epochs": -1}, {"epochs": 1, "lr": 0}, {"epochs": 1, "batch_size": 0}, {"epochs": 1, "lrate": 1},
              {"epochs": 1, "augment": "flip"}, {"epochs": 1, "momentum": 1}],
)  # fmt: skip
def test_recipes_check_their_settings(wrong):
    with pytest.raises(ValueError, match="validation error"):
        TrainingRecipe(**wrong)


# --- what it does exactly -----------------------------------------------------------------------------------


def test_zero_epochs_measure_the_model_as_it_came():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history, after = train(model, recipe=SHORT.model_copy(update={"epochs": 0}), validation=True)
    assert same(before, after)
    assert history.last == history.test_best == evaluate(network(), digits()[1], SHORT, "cpu", "fp32")
    assert history.val_best == history.last and len(history.validation) == 1


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [40, 40, 16]), (True, [40, 40])])
def test_the_last_batch_is_kept_unless_dropped(drop_last, sizes):
    seen = []

    def loss(model, batch):
        seen.append(len(batch.targets))
        value = cross_entropy(model, batch)
        return value * 0 + len(batch.targets)

    history, _ = train(loss=loss, recipe=TrainingRecipe(epochs=1, batch_size=40, drop_last=drop_last))
    assert seen == sizes
    assert history.losses["train_loss"] == pytest.approx([sum(n * n for n in sizes) / sum(sizes)])  # mean per image


def test_batches_carry_images_labels_indices_and_progress():
    batches: list[Batch] = []

    def loss(model, batch):
        batches.append(batch)
        return cross_entropy(model, batch)

    train(loss=loss, recipe=TrainingRecipe(epochs=2, batch_size=32, augment="none"))
    data = digits()[0]
    assert [batch.progress for batch in batches] == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])
    for epoch in (batches[:3], batches[3:]):
        assert sorted(torch.cat([batch.indices for batch in epoch]).tolist()) == sorted(data.indices.tolist())
    assert not torch.equal(batches[0].indices, batches[3].indices)
    position = {int(index): place for place, index in enumerate(data.indices)}
    places = [position[int(index)] for index in batches[0].indices]
    assert batches[0].targets.tolist() == data.labels[places].tolist()
    spread = batches[0].images.double()
    expected = torch.from_numpy(data.images[places]).double().permute(0, 3, 1, 2) / 255
    # normalisation is one affine map for all pixels
    slope, offset = np.polyfit(expected.flatten().numpy(), spread.flatten().numpy(), 1)
    assert (spread - (slope * expected + offset)).abs().max() < 1e-5


def test_named_terms_add_up_and_are_followed():
    history, _ = train(loss=Hint())
    total = np.add(history.losses["train_cross_entropy"], history.losses["train_hint"])
    assert history.losses["train_loss"] == pytest.approx(total)
    assert set(history.metrics()["curves"]) == {
        "test", "validation", "lr", "train_loss", "train_cross_entropy", "train_hint",
    }  # fmt: skip


def test_the_three_accuracies():
    history = History(test=[50.0, 80.0, 70.0, 80.0, 75.0], validation=[40.0, 60.0, 66.0, 60.0, 66.0])
    assert (history.last, history.test_best, history.val_best) == (75.0, 80.0, 70.0)
    assert (history.test_best_epoch, history.val_best_epoch) == (2, 3)  # from 1, the first of equals
    metrics = History(test=[50.0, 40.0]).metrics()
    assert (metrics["last"], metrics["test_best"], metrics["test_best_epoch"]) == (40.0, 50.0, 1)
    assert metrics["val_best"] is None and metrics["val_best_epoch"] is None


class TwoRates(nn.Module):
    """A loss with a hint as FitNet's and a policy as SAKD's, which has half the rate and a decay of its own."""

    def __init__(self, groups=None):
        super().__init__()
        with seeded(0, "two rates"):
            self.hint, self.policy = nn.Linear(10, 10), nn.Linear(10, 10)
        self.groups = groups
        self.seen: list[dict] = []

    def parameter_groups(self):
        usual = [{"params": list(self.policy.parameters()), "lr_factor": 0.5, "weight_decay": 1e-3}]
        return usual if self.groups is None else self.groups(self)

    def forward(self, model, batch):
        logits = model(batch.images)
        return sum(F.cross_entropy(part(logits), batch.targets) for part in (self.hint, self.policy))


def test_a_loss_may_ask_for_parameter_groups(watched_steps):
    loss, model = TwoRates(), network()
    with watched_steps() as steps:
        train(model, loss=loss)
    first, second = steps[0][0].param_groups
    assert {id(p) for p in first["params"]} == {id(p) for p in [*model.parameters(), *loss.hint.parameters()]}
    assert {id(p) for p in second["params"]} == {id(p) for p in loss.policy.parameters()}
    assert (first["weight_decay"], second["weight_decay"]) == (5e-4, 1e-3)
    assert (first["momentum"], second["momentum"]) == (0.9, 0.9)
    assert [rates for _, rates in steps] == [
        [pytest.approx(rate), pytest.approx(rate / 2)] for rate in (0.05,) * 6 + (0.005,) * 3
    ]


def test_a_group_without_settings_changes_nothing():
    class Plain(TwoRates):
        def parameter_groups(self):
            return [{"params": self.policy.parameters()}]

    plain, none = Plain(), TwoRates(groups=lambda loss: [])
    (one, weights), (two, again) = train(loss=plain), train(loss=none)
    assert one.losses == two.losses and same(weights, again) and same(plain.state_dict(), none.state_dict())
    assert not same(none.state_dict(), TwoRates().state_dict())


def test_rates_of_groups_survive_an_interruption(tmp_path):
    unbroken, weights = train(loss=(loss := TwoRates()))
    with pytest.raises(KeyboardInterrupt):
        train(loss=Interrupted(TwoRates(), 5), checkpoint=tmp_path / "c.pt")
    resumed, again = train(loss=(second := TwoRates()), checkpoint=tmp_path / "c.pt")
    assert resumed.resumed_from == 1 and resumed.losses == unbroken.losses and same(weights, again)
    assert same(loss.state_dict(), second.state_dict())


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            lambda loss: [{"params": [loss.policy.bias], "lr": 0.1}],
            r"TwoRates has the keys lr, lr_factor, params: give",
        ),
        (lambda loss: [{"lr_factor": 0.1}], "TwoRates has the keys lr_factor: give params"),
        (lambda loss: [{"params": [loss.policy.bias], "lr_factor": -1}], "lr_factor=-1 of TwoRates: give a number"),
        (lambda loss: [{"params": [loss.policy.bias], "weight_decay": float("nan")}], "weight_decay=nan of TwoRates"),
        (lambda loss: [{"params": [loss.policy.bias]}] * 2, r"shape \(10,\) is in two parameter groups, or in none"),
        (lambda loss: [{"params": [nn.Parameter(torch.zeros(3))]}], r"shape \(3,\) is in two .* name each of theirs"),
    ],
)
def test_groups_that_make_no_sense_are_errors(groups, message):
    with pytest.raises(ValueError, match=message):
        train(loss=TwoRates(groups))


class Watch(Curriculum):
    """Decides nothing and writes down when it is asked."""

    def __init__(self):
        self.asked: list[tuple] = []

    def __repr__(self):
        return "Watch()"

    def step(self, progress):
        self.asked.append(("step", progress))

    def order(self, order, recipe, seed, epoch):
        self.asked.append(("order", epoch, len(order)))
        return order

    def pixels(self, images, progress, epochs):
        self.asked.append(("pixels", progress, epochs, tuple(images.shape), images.dtype))
        return images

    def images(self, images, progress, epochs):
        self.asked.append(("images", progress, epochs, tuple(images.shape), images.dtype))
        return images


def test_a_curriculum_that_decides_nothing_changes_nothing():
    (plain, weights), (watched, again) = train(), train(curriculum=Watch())
    assert plain.losses == watched.losses and plain.test == watched.test and same(weights, again)


def test_what_a_curriculum_is_asked():
    train(recipe=SHORT.model_copy(update={"epochs": 2, "batch_size": 64}), curriculum=(watch := Watch()))
    per_batch = [
        [("pixels", progress, 2, (size, 8, 8, 1), torch.uint8), ("images", progress, 2, (size, 1, 8, 8), torch.float32),
         ("step", progress)]
        for progress, size in ((0, 64), (0.5, 32), (1, 64), (1.5, 32))
    ]  # fmt: skip
    expected = [("order", 0, 96), *per_batch[0], *per_batch[1], ("order", 1, 96), *per_batch[2], *per_batch[3]]
    assert watch.asked == expected


def test_a_checkpoint_belongs_to_its_curriculum(tmp_path):
    train(curriculum=Watch(), checkpoint=tmp_path / "c.pt")
    again, _ = train(loss=refuse, curriculum=Watch(), checkpoint=tmp_path / "c.pt")
    assert again.resumed_from == 3
    with pytest.raises(ForeignCheckpoint, match="training set or curriculum"):
        train(checkpoint=tmp_path / "c.pt")


def test_the_model_is_left_in_eval_mode():
    model = network()
    train(model)
    assert not any(module.training for module in model.modules())


def test_frozen_parameters_stay():
    model = network()
    model.head.weight.requires_grad_(False)
    before = model.head.weight.clone()
    train(model, recipe=SHORT.model_copy(update={"epochs": 1}))
    assert torch.equal(model.head.weight, before)


def test_evaluate_agrees_with_the_curve_and_leaves_every_module_in_its_mode():
    model = network()
    history, weights = train(model)
    model.train()
    model.head.eval()
    modes = [module.training for module in model.modules()]
    assert evaluate(model, digits()[1], SHORT, "cpu", "fp32") == history.last
    logits = predict(model, digits()[1], SHORT, "cpu", "fp32")
    assert logits.shape == (48, 10) and logits.dtype == torch.float32
    assert [module.training for module in model.modules()] == modes
    assert same(weights, model.state_dict())


def syncs(monkeypatch, batch_size):
    """How often one run reads a tensor's value on the host."""
    count = []
    with monkeypatch.context() as patched:
        for name in ("item", "tolist", "numpy", "__float__", "__int__", "__bool__", "__index__", "cpu"):
            original = getattr(torch.Tensor, name)

            def counting(self, *arguments, original=original, name=name):
                count.append(name)
                return original(self, *arguments)

            patched.setattr(torch.Tensor, name, counting)
        train(recipe=TrainingRecipe(epochs=1, batch_size=batch_size), loss=Hint())
    return count


def test_nothing_is_read_back_inside_an_epoch(monkeypatch):
    """As many reads with 24 steps as with 3."""
    few, many = syncs(monkeypatch, 32), syncs(monkeypatch, 4)
    assert few and sorted(few) == sorted(many)


def test_a_bar_shows_where_the_run_is(capsys):
    train(progress=True, description="digits run")
    shown = capsys.readouterr().err
    assert "digits run" in shown and "9/9" in shown.replace(" ", "") and "epoch 3/3, test" in shown


def test_no_bar_where_nobody_looks(capsys):
    train(progress=False)
    assert capsys.readouterr().err == ""


# --- Adam, cosine, frozen parts ---------------------------------------------------------------------------


def test_a_cosine_schedule_falls_from_the_rate_towards_zero():
    recipe = TrainingRecipe(epochs=4, lr=0.1, schedule="cosine")
    expected = [0.1, 0.1 * (1 + 2**-0.5) / 2, 0.05, 0.1 * (1 - 2**-0.5) / 2]
    assert [recipe.rate(epoch) for epoch in range(4)] == pytest.approx(expected)
    with pytest.raises(ValueError, match="cosine schedule has no milestones"):
        TrainingRecipe(epochs=4, schedule="cosine", milestones=(2,))


def test_adam_takes_the_steps_of_torchs_adam():
    recipe = TrainingRecipe(epochs=2, lr=1e-3, batch_size=32, optimiser="adam", schedule="cosine", weight_decay=1e-3)
    recipe = recipe.model_copy(update={"eps": 1e-4})  # large enough to be seen in the steps
    model, twin = network(), network().double()
    train_set, test, _ = digits()
    optimiser = torch.optim.Adam(twin.parameters(), lr=1e-3, weight_decay=1e-3, eps=1e-4)

    def both(network, batch):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(int(batch.progress))
        loss = torch.nn.functional.cross_entropy(twin(batch.images), batch.targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return cross_entropy(network, batch)

    twin.train()
    fit(model, train_set, test, recipe=recipe, loss=both, device="cpu", precision="fp64", progress=False)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.allclose(ours[name].double(), theirs[name].double(), atol=1e-9) for name in ours)
    with pytest.raises(ValueError, match="no Nesterov"):
        TrainingRecipe(epochs=1, optimiser="adam", nesterov=True)
    with pytest.raises(ValueError, match="sgd has no eps"):
        TrainingRecipe(epochs=1, eps=1e-4)


@pytest.mark.parametrize("statistics", [True, False])
def test_frozen_parts_stay_as_they_are_through_a_run(statistics):
    model = network()
    freeze(model.conv1, model.bn1, model.stage1, statistics=statistics)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _, after = train(model)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    frozen = {name for name in moved if name.startswith(("conv1.", "bn1.", "stage1."))}
    assert any(name.startswith("stage2.") for name in moved) and "head.weight" in moved
    if statistics:
        assert frozen == set()
    else:
        assert frozen and all("running" in name or "batches" in name for name in frozen)


def test_a_new_option_at_its_default_renames_no_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    train(checkpoint=path)
    spelled = TrainingRecipe(**{**SHORT.model_dump(), "optimiser": "sgd", "schedule": "step"})
    history, _ = train(recipe=spelled, checkpoint=path)
    assert history.resumed_from == 3


# --- flips, turns and zooms ---------------------------------------------------------------------------------

TURNED = SHORT.model_copy(update={"augment": "flip_affine"})


def epoch_images(recipe, epoch=0, seed=0, **options):
    """All batches of one epoch over the few digits, joined."""
    data = DeviceSet(digits()[0], torch.device("cpu"))
    return torch.cat([batch.images for batch in epoch_batches(data, recipe, (0.3,), (0.4,), seed, epoch, **options)])


def test_flip_affine_draws_for_the_whole_epoch_from_its_own_generator():
    data, generator = DeviceSet(digits()[0], torch.device("cpu")), torch.Generator()
    generator.manual_seed(derived_seed(3, 2, "data"))
    order = torch.randperm(len(data), generator=generator)
    drawn = draw_affine(len(data), generator=generator)
    whole = affine_normalise(data.images[order], *drawn, (0.3,), (0.4,))
    assert torch.equal(epoch_images(TURNED, 2, 3), whole)
    assert not torch.equal(epoch_images(TURNED, 1, 3), whole)
    plain = epoch_images(TURNED.model_copy(update={"augment": "none"}), 2, 3)
    assert (plain - whole).abs().mean() > 0.05


def test_wide_turns_are_the_wide_draws():
    data, generator = DeviceSet(digits()[0], torch.device("cpu")), torch.Generator()
    generator.manual_seed(derived_seed(0, 0, "data"))
    order = torch.randperm(len(data), generator=generator)
    drawn = draw_affine(len(data), 36, 0.2, generator, vertical=True)
    whole = affine_normalise(data.images[order], *drawn, (0.3,), (0.4,))
    assert torch.equal(epoch_images(TURNED.model_copy(update={"augment": "flip_affine_wide"})), whole)


def test_another_view_has_the_same_order_and_other_turns():
    data = DeviceSet(digits()[0], torch.device("cpu"))
    views = [list(epoch_batches(data, TURNED, (0.3,), (0.4,), 0, 0, view=view)) for view in (0, 1)]
    for one, two in zip(*views):
        assert torch.equal(one.indices, two.indices) and not torch.equal(one.images, two.images)


@pytest.mark.parametrize("kind", ["crop_flip", "crop", "none"])
def test_the_other_augmentations_draw_what_they_drew_before(kind):
    data, generator = DeviceSet(digits()[0], torch.device("cpu")), torch.Generator()
    generator.manual_seed(derived_seed(0, 0, "data"))
    order = torch.randperm(len(data), generator=generator)
    pad = 0 if kind == "none" else 4
    offsets = torch.randint(0, 2 * pad + 1, (len(data), 2), generator=generator)
    flips = torch.rand(len(data), generator=generator) < (0.5 if kind == "crop_flip" else 0.0)
    truth = crop_flip_normalise(data.images[order], offsets, flips, (0.3,), (0.4,), pad)
    assert torch.equal(epoch_images(SHORT.model_copy(update={"augment": kind})), truth)


def test_an_interrupted_run_with_flip_affine_ends_like_an_unbroken_one(tmp_path):
    unbroken, weights = train(recipe=TURNED)
    with pytest.raises(KeyboardInterrupt):
        train(recipe=TURNED, loss=Interrupted(cross_entropy, 5), checkpoint=tmp_path / "c.pt")
    resumed, again = train(recipe=TURNED, checkpoint=tmp_path / "c.pt")
    assert resumed.resumed_from == 1 and resumed.losses == unbroken.losses and same(weights, again)
    with pytest.raises(ForeignCheckpoint):
        train(checkpoint=tmp_path / "c.pt")


# --- compiled -----------------------------------------------------------------------------------------------


def distilling():
    """A student with ReviewKD's growing loss beside a narrow teacher: a network, modules that learn, a warm-up."""
    student, teacher = (network("resnet8x4", seed, width=0.125) for seed in (0, 1))
    images = torch.zeros(2, 1, *digits()[0].images.shape[1:3])
    with seeded(2):
        method = distill.create("reviewkd", student, teacher, images, warmup_epochs=3)
    return student, distill.Distillation(method, teacher)


def test_a_compiled_run_is_the_eager_one_in_one_graph(monkeypatch):
    # The tracer and autograd's part without code generation: that differs by rounding, and takes minutes.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters
    counted.clear()
    runs = []
    for compiled in (False, True):
        student, loss = distilling()
        history, weights = train(student, loss=loss, compiled=compiled)
        runs.append((history.losses, weights))
    (eager, before), (traced, after) = runs
    assert all(traced[term] == pytest.approx(eager[term], rel=1e-5) for term in eager)
    assert all(torch.allclose(after[name], before[name], rtol=1e-4, atol=1e-5) for name in before)
    assert traced["train_feature"][0] == 0 < traced["train_feature"][1]  # the weight grew, and the graph stayed
    assert counted["stats"]["unique_graphs"] == 1 and not counted["graph_break"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_follow_the_eager_run():
    torch._dynamo.reset()
    first = []
    for compiled in (False, True):
        student, loss = distilling()
        history, _ = train(student, loss=loss, compiled=compiled, device="cuda")
        first.append(history.losses["train_loss"])
    assert np.allclose(*first, rtol=0.02)  # three epochs of nine steps, fp32 with TF32 products
