"""The loop that counts steps: notes, means, rates, batches, what ends a run, and going on after an interruption."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from efflib.papers.safety import steps
from efflib.papers.safety.steps import Hooks, Schedule, run_steps
from efflib.training import ForeignCheckpoint

X = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
Y = 3 * X + 0.5


class Line:
    """A task: fit a line; it keeps every batch that it drew."""

    def __init__(self):
        self.drawn, self.dtypes = [], set()

    def batch(self, generator, count):
        chosen = torch.randint(len(X), (count,), generator=generator)
        self.drawn.append(chosen.tolist())
        return X[chosen], Y[chosen]

    def loss(self, model, batch):
        found = model(batch[0])
        self.dtypes.add(found.dtype)
        return F.mse_loss(found.double(), batch[1])

    def measure(self, model):
        with torch.no_grad():
            return {"test": float(F.mse_loss(model(X).double(), Y))}


class Pull(Hooks):
    """A further term, a count that belongs to the checkpoint, and an event per stretch."""

    def __init__(self, weight=0.1):
        self.weight, self.count, self.found = weight, 0, []

    def terms(self, model, generator):
        return {"pull": self.weight * model.weight.square().sum() * torch.rand((), generator=generator)}

    def stepped(self, model, optimiser, step):
        self.count += 1
        assert step == self.count  # steps are counted from 1, also after an interruption
        if step % 3 == 0:
            self.found.append({"step": step})

    def measured(self, model):
        return {"count": float(self.count)}

    def events(self):
        return list(self.found)

    def state(self):
        return {"count": self.count, "found": self.found}

    def restore(self, state):
        self.count, self.found = state["count"], state["found"]


def line():
    model = nn.Linear(1, 1).double()
    nn.init.constant_(model.weight, 0.1)
    nn.init.constant_(model.bias, 0.2)
    return model


def fit(count=7, every=3, seed=0, factor=None, task=None, model=None, optimiser=None, **options):
    model = model or line()
    optimiser = optimiser or torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = Schedule(count, every, factor or (lambda step: 1.0))
    log = run_steps(model, task or Line(), optimiser, schedule, 4, seed, progress=False, **options)
    return model, log


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# --- notes ------------------------------------------------------------------------------------------------


def test_a_note_at_the_start_at_every_stretch_and_at_the_end():
    _, log = fit(7, 3)
    assert log.curve("step") == [0, 3, 6, 7] and log.steps == 7
    assert len(log.curve("test")) == 4 and len(log.curve("train_loss")) == 3
    assert log.curve("seconds") == sorted(log.curve("seconds")) and log.seconds == log.rows[-1]["seconds"]
    assert list(Schedule(7, 3).notes()) == [(0, 3), (3, 6), (6, 7)]
    assert list(Schedule(2, 50).notes()) == [(0, 2)]


def test_losses_are_means_over_the_steps_of_a_stretch():
    """Against a loop written out."""
    model, log = fit(6, 3)
    task, naive = Line(), line()
    optimiser, means = torch.optim.Adam(naive.parameters(), lr=0.05), []
    for start in (0, 3):
        generator, losses = torch.Generator().manual_seed(steps.derived_seed(0, start, "steps")), []
        for _ in range(3):
            loss = task.loss(naive, task.batch(generator, 4))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        means.append(sum(losses) / 3)
    assert log.curve("train_loss") == pytest.approx(means, rel=1e-12) and log.curve("train_task") == pytest.approx(
        means
    )
    assert same_weights(model, naive)


def test_terms_of_the_hooks_are_in_the_loss_and_noted_one_by_one():
    plain, _ = fit()
    pulled, log = fit(hooks=Pull(0.5))
    for row in log.rows[1:]:
        assert row["train_loss"] == pytest.approx(row["train_task"] + row["train_pull"], rel=1e-12)
        assert row["train_pull"] > 0 and row["count"] == row["step"]
    assert pulled.weight.item() < plain.weight.item() - 1e-3
    assert log.events == [{"step": 3}, {"step": 6}]


def test_an_event_may_learn_more_later():
    class Late(Pull):
        def stepped(self, model, optimiser, step):
            super().stepped(model, optimiser, step)
            if step == 5:
                self.found[0]["next"] = 5

    assert fit(7, 3, hooks=Late())[1].events[0] == {"step": 3, "next": 5}


# --- rates ------------------------------------------------------------------------------------------------


def test_every_rate_follows_the_schedule_and_is_put_back(watched_steps):
    model = line()
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.3}]
    optimiser = torch.optim.Adam(groups)
    with watched_steps() as seen:
        fit(5, 2, model=model, optimiser=optimiser, factor=lambda step: 1 / (step + 1))
    assert [rates for _, rates in seen] == [pytest.approx([0.1 / n, 0.3 / n]) for n in (1, 2, 3, 4, 5)]
    assert [group["lr"] for group in optimiser.param_groups] == [0.1, 0.3]


def test_rates_of_a_resumed_run(tmp_path, watched_steps):
    """The checkpoint holds the rates of its moment, which must not become the base of the rest."""
    options = {"factor": lambda step: 1 - step / 7, "checkpoint": tmp_path / "run.pt"}
    with interrupted_after(2), pytest.raises(KeyboardInterrupt):
        fit(**options)
    with watched_steps() as seen:
        fit(**options)
    assert [rates[0] for _, rates in seen] == pytest.approx([0.05 * (1 - 6 / 7)])


# --- batches ----------------------------------------------------------------------------------------------


def drawn(**options):
    task = Line()
    fit(task=task, **options)
    return task.drawn


def test_batches_are_those_of_the_seed_and_drawn_with_replacement():
    assert drawn(seed=1) == drawn(seed=1) != drawn(seed=2)
    batches = drawn(count=200, every=50)
    assert all(len(batch) == 4 for batch in batches) and any(len(set(batch)) < 4 for batch in batches)
    assert {place for batch in batches for place in batch} == set(range(len(X)))


def test_stretches_have_their_own_batches_so_that_every_is_part_of_a_run():
    whole, halves = drawn(count=6, every=6), drawn(count=6, every=3)
    assert whole[:3] == halves[:3] and whole[3:] != halves[3:]
    assert halves[3:] != halves[:3]


def test_what_the_hooks_draw_does_not_change_the_batches():
    assert drawn(hooks=Pull()) == drawn()


def test_what_is_measured_leaves_the_training_alone():
    class Curious(Line):
        def measure(self, model):
            torch.randn(5)
            return {"test": 0.0, "more": 1.0}

    assert same_weights(fit()[0], fit(task=Curious())[0])


def test_bf16_runs_the_networks_under_autocast():
    class Single(Line):
        def batch(self, generator, count):
            x, y = super().batch(generator, count)
            return x.float(), y

        def measure(self, model):
            return {"test": 0.0}

    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        task = Single()
        fit(2, 2, task=task, model=nn.Linear(1, 1), precision=precision)
        assert task.dtypes == {dtype}


# --- what ends a run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named_with_its_step(bad):
    class Broken(Line):
        def loss(self, model, batch):
            loss = super().loss(model, batch)
            return loss * bad if len(self.drawn) >= 5 else loss

    with pytest.raises(FloatingPointError, match=f"training loss is {bad} in step 5: the run diverged"):
        fit(task=Broken())


def test_a_run_that_breaks_leaves_the_last_good_checkpoint(tmp_path):
    class Broken(Line):
        def loss(self, model, batch):
            return super().loss(model, batch) * (math.nan if len(self.drawn) >= 5 else 1)

    path = tmp_path / "run.pt"
    with pytest.raises(FloatingPointError):
        fit(task=Broken(), checkpoint=path)
    assert torch.load(path, weights_only=True)["log"]["steps"] == 3


# --- checkpoints ------------------------------------------------------------------------------------------


class interrupted_after:
    """Within the block, a run ends like one that is killed right after it has written so many checkpoints."""

    def __init__(self, saves):
        self.left = saves

    def __enter__(self):
        self.save, steps._save = steps._save, self._then_stop
        return self

    def __exit__(self, *problem):
        steps._save = self.save

    def _then_stop(self, *state):
        self.save(*state)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def timeless(log):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in log.rows]


@pytest.mark.parametrize("saves", [1, 2, 3])
def test_an_interrupted_run_repeats_an_unbroken_one(saves, tmp_path):
    whole, wanted = fit(10, 3, hooks=Pull())
    path = tmp_path / "run.pt"
    with interrupted_after(saves), pytest.raises(KeyboardInterrupt):
        fit(10, 3, hooks=Pull(), checkpoint=path)
    task, hooks = Line(), Pull()
    model, log = fit(10, 3, task=task, hooks=hooks, checkpoint=path)
    assert same_weights(model, whole) and timeless(log) == timeless(wanted) and log.events == wanted.events
    assert len(task.drawn) == 10 - 3 * saves and hooks.count == 10
    assert log.seconds > 0 and log.curve("seconds") == sorted(log.curve("seconds"))


def test_a_finished_run_is_not_run_again(tmp_path):
    path = tmp_path / "run.pt"
    first, wanted = fit(checkpoint=path)
    task = Line()
    again, log = fit(task=task, checkpoint=path)
    assert same_weights(first, again) and log == wanted and not task.drawn


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    fit(checkpoint=path, identity="one")
    with pytest.raises(ForeignCheckpoint, match=r"run\.pt belongs to another run: remove it, or give this run its own"):
        fit(checkpoint=path, identity="other")
    assert path.exists()


def test_an_unreadable_checkpoint_is_set_aside(tmp_path, capsys):
    path = tmp_path / "run.pt"
    path.write_bytes(b"no checkpoint")
    model, log = fit(checkpoint=path)
    assert same_weights(model, fit()[0]) and log.steps == 7
    assert path.with_name("run.pt.broken").read_bytes() == b"no checkpoint" and "set aside" in capsys.readouterr().out
