"""Every curriculum in `fit`: it trains, it acts, and an interrupted run ends like an unbroken one."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch

from efflib import curricula
from efflib.curricula import CURRICULA, create, scaled_options
from efflib.training import Curriculum, ForeignCheckpoint, TrainingRecipe, cross_entropy, fit

RECIPE = TrainingRecipe(epochs=3, lr=0.05, batch_size=32, milestones=(2,))


def scores(data):
    return {
        "scores": torch.rand(96, generator=torch.Generator().manual_seed(3)),
        "labels": torch.from_numpy(data[0].labels),
    }


CASES = {
    "cbs": lambda data: create("cbs", every=0.5),
    "efficienttrain": lambda data: create("efficienttrain"),
    "efficienttrain with RandAugment": lambda data: create("efficienttrain", randaug="linear"),
    "lerac": lambda data: create("lerac", k=2),
    "lerac as the code": lambda data: create("lerac", mode="code", table="resnet18_cifar10"),
    "self_taught": lambda data: create("self_taught", **scores(data), pacing_span=0.7),
    "lcdnet": lambda data: create("lcdnet", **scores(data), every=40, full="draws"),
}


def model_for(case, network):
    return network("resnet18", width=0.125) if case == "lerac as the code" else network()


@pytest.fixture(scope="module")
def unbroken_run(train, network, data):
    """unbroken_run(case): (history, weights) of three whole epochs, made once."""

    @cache
    def run(case):
        return train(CASES[case](data), model_for(case, network), recipe=RECIPE)[:2]

    return run


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("step", [2, 5, 8])  # within the first, the second and the last of three epochs
def test_an_interrupted_run_ends_like_an_unbroken_one(case, step, unbroken_run, train, network, data, tmp_path):
    unbroken, weights = unbroken_run(case)
    steps = []

    def interrupted(model, batch):
        steps.append(batch)
        if len(steps) == step:
            raise KeyboardInterrupt
        return cross_entropy(model, batch)

    with pytest.raises(KeyboardInterrupt):
        train(CASES[case](data), model_for(case, network), RECIPE, interrupted, checkpoint=tmp_path / "c.pt")
    resumed, again, _ = train(CASES[case](data), model_for(case, network), recipe=RECIPE, checkpoint=tmp_path / "c.pt")
    assert resumed.resumed_from == (step - 1) // 3
    assert (resumed.test, resumed.losses, resumed.rates) == (unbroken.test, unbroken.losses, unbroken.rates)
    assert weights.keys() == again.keys() and all(torch.equal(weights[name], again[name]) for name in weights)


@pytest.mark.parametrize("case", CASES)
def test_it_acts(case, unbroken_run, train, network):
    _, plain, _ = train(None, model_for(case, network), recipe=RECIPE)
    history, weights = unbroken_run(case)
    assert history.epochs == 3 and weights.keys() == plain.keys()
    assert not torch.equal(plain["conv1.weight"], weights["conv1.weight"])


def test_a_checkpoint_belongs_to_the_options_of_its_curriculum(train, data, tmp_path):
    one_epoch = RECIPE.model_copy(update={"epochs": 1, "milestones": ()})
    other_scores = {**scores(data), "scores": scores(data)["scores"].flip(0)}
    pairs = [
        (create("cbs"), create("cbs", every=6)),
        (create("efficienttrain"), create("efficienttrain", randaug="fifths")),
        (create("lerac"), create("lerac", k=6)),
        (create("self_taught", **scores(data)), create("self_taught", **scores(data), growth=2)),
        (create("self_taught", **scores(data)), create("self_taught", **other_scores)),
    ]
    for number, (one, other) in enumerate(pairs):
        path = tmp_path / f"{number}.pt"
        train(one, recipe=one_epoch, checkpoint=path)
        with pytest.raises(ForeignCheckpoint, match="belongs to another run"):
            train(other, recipe=one_epoch, checkpoint=path)
        assert train(one, recipe=one_epoch, checkpoint=path)[0].resumed_from == 1


def test_one_curriculum_may_train_several_networks(unbroken_run, train, network, data):
    """Nothing of a run is left in the object, also of one that was stopped."""
    stopped = RECIPE.model_copy(update={"epochs": 1, "milestones": ()})
    for case, make in CASES.items():
        curriculum = make(data)
        train(curriculum, model_for(case, network), recipe=stopped)
        again = train(curriculum, model_for(case, network), recipe=RECIPE)[1]
        assert all(torch.equal(value, again[name]) for name, value in unbroken_run(case)[1].items()), case


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_other_precisions(precision, train, network, data):
    one_epoch = RECIPE.model_copy(update={"epochs": 1, "milestones": ()})
    for case, make in CASES.items():
        history, weights, batches = train(make(data), model_for(case, network), recipe=one_epoch, precision=precision)
        expected = torch.float64 if precision == "fp64" else torch.float32
        assert batches[0].images.dtype == weights["conv1.weight"].dtype == expected
        assert history.losses["train_loss"][0] < 10


def test_with_a_loss_that_has_groups_of_its_own(network, data, watched_steps):
    class Policy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def parameter_groups(self):
            return [{"params": [self.scale], "lr_factor": 0.5, "weight_decay": 0.0}]

        def forward(self, model, batch):
            return cross_entropy(model, dataclasses.replace(batch, images=batch.images * self.scale))

    with watched_steps() as steps:
        fit(
            network(),
            *data,
            recipe=RECIPE,
            loss=Policy(),
            curriculum=create("lerac", k=1),
            device="cpu",
            progress=False,
        )
    groups = steps[0][0].param_groups
    assert len(groups) == 1 + 8 + 1 and groups[-1]["weight_decay"] == 0
    assert [rates[-1] for _, rates in steps] == pytest.approx([0.025] * 6 + [0.0025] * 3)
    assert steps[0][1][8] == pytest.approx(1e-8) and steps[3][1][8] == 0.05


# --- names ----------------------------------------------------------------------------------------------------


def test_compute_factors(data):
    found = {case: make(data).compute_factor(32) for case, make in CASES.items()}
    for case, factor in found.items():
        assert factor == (pytest.approx(0.637, abs=5e-4) if case.startswith("efficient") else 1.0)
    assert Curriculum().compute_factor(32) == 1.0


def test_unknown_names_list_the_known_ones():
    assert sorted(CURRICULA) == ["cbs", "efficienttrain", "lcdnet", "lerac", "self_taught"]
    with pytest.raises(ValueError, match=r"unknown curriculum: 'lerak'\. Did you mean 'lerac'\? Valid: cbs, effic"):
        create("lerak")
    with pytest.raises(ValueError, match=r"option of cbs: 'sigmas'\. Did you mean 'sigma'\? Valid: sigma, decay"):
        create("cbs", sigmas=1)
    with pytest.raises(ValueError, match=r"unknown option of self_taught: 'span'.* Valid: scores, labels, start"):
        create("self_taught", span=0.3)
    with pytest.raises(ValueError, match="self_taught needs labels"):
        create("self_taught", scores=[1.0])
    with pytest.raises(ValueError, match="unknown curriculum: 'cb'"):
        scaled_options("cb", 30)


def test_spans_scale_with_the_length_of_a_run(data):
    assert scaled_options("cbs", 30) == {"every": 0.75} and scaled_options("cbs", 200) == {"every": 5.0}
    assert scaled_options("lerac", 30) == {"k": 0.75}
    assert scaled_options("lerac", 100, k=7, lowest=1e-6) == {"k": 3.5, "lowest": 1e-6}
    assert scaled_options("lerac", 30, mode="code", table="wrn_52_2") == {"mode": "code", "table": "wrn_52_2"}
    assert scaled_options("efficienttrain", 30) == {}
    assert scaled_options("self_taught", 30) == {"pacing_span": 0.006}
    assert scaled_options("lcdnet", 30, pacing_span=0.3) == {"pacing_span": 0.3}
    for name in CURRICULA:
        extra = scores(data) if name in ("self_taught", "lcdnet") else {}
        assert isinstance(create(name, **extra, **scaled_options(name, 30)), curricula.Curriculum)
