"""Every method on every pair of networks that the tables use, past its warm-up, on rendered objects.

Networks are narrow and images few: what is tested is that a method can be attached, that its terms and modules work,
that the teacher stays, and that the student goes another way than with plain KD or cross-entropy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from efflib import distill, kernels
from efflib.data import render_objects
from efflib.distill import pkgd
from efflib.models import create_model, features
from efflib.papers.pkgd.arms import CROSS_FAMILY, SAME_FAMILY
from efflib.papers.pkgd.claims import TIMED, TINY_PAIRS
from efflib.training import Batch, DeviceSet, TrainingRecipe, epoch_batches, fit, seeded

# PKGD spec, section 2.7 (tables 1 and 2; the first pair is also that of BIMask's table 5) and section 4.5 (figure 5).
CIFAR = [*SAME_FAMILY, *CROSS_FAMILY]
ONE_FAMILY = [*SAME_FAMILY, TINY_PAIRS[0]]
EQUAL_LAST_STAGES = [pair for pair in SAME_FAMILY if pair != ("wrn_40_2", "wrn_40_1")]

CLASSES, IMAGES, BATCH = 10, 32, 16
BANK = {"labels": torch.arange(IMAGES) % CLASSES, "negatives": 16}
# Run -> method, options, terms of its own, modules of its own that are trained.
RUNS = {
    "kd": ("kd", {}, {"kd"}, set()),
    "fitnet": ("fitnet", {}, {"feature"}, {"regressor"}),
    "at": ("at", {}, {"feature"}, set()),
    "ft": ("ft", {"prepare_epochs": 1}, {"feature"}, {"translator"}),
    "rkd": ("rkd", {}, {"feature"}, set()),
    "crd": ("crd", BANK, {"feature"}, {"student_head", "teacher_head"}),
    "crd in the batch": ("crd", {"memory": False}, {"feature"}, {"student_head", "teacher_head"}),
    "dkd": ("dkd", {"warmup_epochs": 2}, {"kd"}, set()),
    "reviewkd": ("reviewkd", {"warmup_epochs": 2}, {"feature"}, {"review"}),
    "sakd": ("sakd", BANK, {"kd", "feature", "policy"}, {"crd", "to_teacher", "to_student", "policy"}),
    "sakd at": (
        "sakd",
        {"base": "at", "homogeneous": False},
        {"kd", "feature", "policy"},
        {"to_teacher", "to_student", "policy"},
    ),
    "ickd": ("ickd", {}, {"kd", "feature"}, {"align"}),
    "rpkd": ("rpkd", {"warmup_epochs": 2}, {"kd", "feature", "response"}, {"chains"}),
    "sckd": ("sckd", {"prepare_epochs": 1}, {"feature"}, set()),
    "pkgd": ("pkgd", {"warmup_epochs": 2}, {"kd", "feature"}, {"align", "mixing", "guides"}),
    "pkgd code": ("pkgd", {"warmup_epochs": 2, **pkgd.code_variant()}, {"kd", "feature"}, {"align"}),
    "pkgd repaired": (
        "pkgd",
        {"warmup_epochs": 2, **pkgd.code_variant(trained=True)},
        {"kd", "feature"},
        {"align", "guides"},
    ),
    "diswot_plus": ("diswot_plus", {}, {"kd", "semantic", "relation"}, set()),
    "diswot_plus cosine": (
        "diswot_plus",
        {"map": "gxa", "distance": "cosine", "relation": "cosine"},
        {"kd", "semantic", "relation"},
        set(),
    ),
}
COMBINATIONS = [(pair, run) for pair in CIFAR for run in RUNS] + [(p, run) for p in TINY_PAIRS for run in TIMED]


def width(name):
    """Narrow, but not below what a network needs; 8 channels at 64 px crash torch 2.15 on some CPUs."""
    if name in ("resnet18", "resnet34"):
        return 0.1875
    thin = name.startswith(("wrn", "shufflenet")) or name in ("resnet110", "resnet56", "resnet32", "resnet20")
    return 0.25 if thin else 0.125


@cache
def batches(size):
    """Two batches of rendered objects, past every warm-up."""
    data = DeviceSet(render_objects(IMAGES, seed=0, size=size), torch.device("cpu"))
    recipe = TrainingRecipe(epochs=1, batch_size=BATCH, augment="none")
    found = epoch_batches(data, recipe, (0.47, 0.46, 0.47), (0.23, 0.22, 0.23), 0, 0)
    return [replace(batch, progress=5.0) for batch in found]


def size_of(pair):
    return 64 if pair in TINY_PAIRS else 32


@cache
def networks(pair):
    """A teacher with batch-norm statistics of the data, and a fresh student."""
    with seeded(0):
        teacher, student = (create_model(name, CLASSES, width=width(name)) for name in pair)
    norms = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        teacher(batches(size_of(pair))[0].images)
    return teacher.eval(), student


def attached(run, pair):
    name, options, _, _ = RUNS[run]
    teacher, student = networks(pair)
    with seeded(1):
        method = distill.create(name, student, teacher, batches(size_of(pair))[0].images, **options)
        context = distill.PrepareContext(teacher, lambda epoch, view: batches(size_of(pair)), torch.device("cpu"))
        method.prepare(context)
    return distill.Distillation(method, teacher)


def trained(loss: Callable, pair):
    """(student's weights after two steps, terms and gradients of the first)."""
    student = copy.deepcopy(networks(pair)[1]).train()
    extras = [p for p in loss.parameters() if p.requires_grad] if isinstance(loss, nn.Module) else []
    optimiser = torch.optim.SGD([*student.parameters(), *extras], lr=0.02, momentum=0.9)
    first = None
    for batch in batches(size_of(pair)):
        optimiser.zero_grad()
        terms = loss(student, batch)
        torch.stack(list(terms.values())).sum().backward()
        if first is None:
            assert all(p.grad is not None for p in student.parameters())
            first = {key: term.item() for key, term in terms.items()}, magnitudes(loss)
        optimiser.step()
    return torch.cat([p.detach().flatten() for p in student.parameters()]), *first


def magnitudes(loss):
    """Sum of absolute gradients per layer of the method that has trainable parameters; each must have one."""
    if not isinstance(loss, nn.Module):
        return {}
    found = {}
    for name, layer in loss.method.named_modules():
        own = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        if own:
            assert all(p.grad is not None for p in own), name
            found[name] = sum(float(p.grad.abs().sum()) for p in own)
    return found


def cross_entropy(model, batch: Batch):
    return {"cross_entropy": F.cross_entropy(features(model, batch.images).logits, batch.targets)}


@cache
def plain(pair):
    """Where cross-entropy and plain KD lead the same student."""
    return trained(cross_entropy, pair)[0], trained(attached("kd", pair), pair)[0]


def test_all_methods_are_here():
    assert {name for name, *_ in RUNS.values()} == set(distill.METHODS)


def idle_by_definition(run, pair):
    """Layers that receive no gradient in the first step, and why."""
    if run == "sakd" and pair in ONE_FAMILY:
        return {"to_teacher.0", "to_student.0"}  # everything is distilled at first; adapters serve where it is not
    if run == "pkgd repaired":
        # At the pooled level a channel has one position; of unit length it is 1 or -1, whatever the query.
        return {f"guides.{4 if pair[0] in ('vgg13', 'resnet50') else 3}.qkv.query.{layer}" for layer in (0, 1)}
    return set()


@pytest.mark.parametrize(("pair", "run"), COMBINATIONS, ids=[f"{'-'.join(p)} {run}" for p, run in COMBINATIONS])
def test_terms_modules_teacher_and_trajectory(pair, run):
    _, _, terms_expected, modules = RUNS[run]
    if run == "sckd" and pair not in EQUAL_LAST_STAGES:
        with pytest.raises(ValueError, match="last stages"):
            attached(run, pair)
        return
    teacher = networks(pair)[0]
    loss = attached(run, pair)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    weights, terms, gradients = trained(loss, pair)
    assert terms.keys() == {"cross_entropy", *terms_expected} and all(term > 0 for term in terms.values()), terms
    assert {name.split(".")[0] for name in gradients} == modules
    idle, largest = idle_by_definition(run, pair), max(gradients.values(), default=0)
    assert idle <= gradients.keys() and all(gradients[name] <= 1e-6 * largest for name in idle)  # rounding
    assert all(size > 0 for name, size in gradients.items() if name not in idle), gradients
    assert not teacher.training and all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    ce, kd = plain(pair)
    assert weights.isfinite().all() and (weights - ce).abs().max() > 1e-6
    assert run == "kd" or (weights - kd).abs().max() > 1e-6


# --- mixed precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_bf16_autocast_gives_the_same_terms_and_gradients(run):
    pair, found = ("vgg13", "vgg8"), []
    for enabled in (False, True):
        loss, student = attached(run, pair), copy.deepcopy(networks(pair)[1]).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), seeded(2):  # the code's DDAG is drawn anew
            terms = loss(student, batches(32)[0])
        torch.stack([term.float() for term in terms.values()]).sum().backward()
        assert all(p.grad is not None for p in loss.parameters() if p.requires_grad)
        found.append((terms, torch.cat([p.grad.flatten() for p in student.parameters()])))
    (wide, exact), (narrow, rounded) = found
    assert all(term.dtype == torch.float32 for term in narrow.values())
    assert {k: v.item() for k, v in narrow.items()} == pytest.approx({k: v.item() for k, v in wide.items()}, rel=0.05)
    if run in ("pkgd code", "pkgd repaired"):
        return  # unit length leaves only the sign of a pooled channel, and rounding turns those of small ones
    assert F.cosine_similarity(exact, rounded, dim=0) > 0.9


@pytest.mark.parametrize("run", ["sakd", "sakd at", "pkgd", "pkgd code"])
def test_fit_trains_in_bf16(run):
    pair = ("vgg13", "vgg8")
    data, student = render_objects(IMAGES, seed=0), copy.deepcopy(networks(pair)[1])
    recipe = TrainingRecipe(epochs=2, lr=0.02, batch_size=BATCH, normalisation=((0.5,) * 3, (0.25,) * 3))
    loss = attached(run, pair)
    start = [p.detach().clone() for p in loss.parameters() if p.requires_grad]
    history = fit(student, data, data, recipe=recipe, loss=loss, device="cpu", precision="bf16", progress=False)
    assert set(history.losses) == {f"train_{term}" for term in ("cross_entropy", "loss", *RUNS[run][2])}
    assert torch.tensor(list(history.losses.values())).isfinite().all()
    assert all(not torch.equal(a, b) for a, b in zip(start, (p for p in loss.parameters() if p.requires_grad)))


def test_bare_losses_are_exact_under_autocast():
    """They take float32 and must not fall to bf16 inside, where distances of close vectors have no digit left."""
    generator = torch.Generator().manual_seed(0)
    (s, t), (m, n) = torch.randn(2, 8, 6, generator=generator), torch.randn(2, 8, 6, 4, 4, generator=generator)
    y, unit = torch.arange(8) % 4, F.normalize(s, dim=1)
    losses = {
        "kd": lambda: kernels.kd_loss(s, t, y, 4, 0.5),
        "dkd": lambda: distill.dkd.dkd_loss(s, t, y),
        "rkd": lambda: distill.rkd.rkd_loss(student=s, teacher=t),
        "icc": lambda: distill.ickd.icc_loss(m, n),
        "at": lambda: kernels.attention_loss(m, n),
        "hcl": lambda: kernels.hcl_loss([m], [n]),
        "hint": lambda: distill.fitnet.hint_loss(m, n),
        "factor": lambda: distill.ft.factor_loss(m, n),
        "response": lambda: distill.rpkd.response_loss(s, y),
        "in the batch": lambda: distill.crd.in_batch_loss(unit, F.normalize(t, dim=1), y),
        "contrastive": lambda: distill.sckd.supervised_contrastive_loss(unit, y),
        "guided": lambda: kernels.guided_attention(m.flatten(2), n.flatten(2)).sum(),
    }
    for name, loss in losses.items():
        outside = loss()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(loss(), outside), name


# --- bad input ----------------------------------------------------------------------------------------------

SMALL = ("resnet32", "resnet20")
HEATED = [run for run, (name, *_) in RUNS.items() if "temperature" in signature(distill.METHODS[name]).parameters]


def called(run, n=6, indices=None, classes=CLASSES, **options):
    """One call of a method on a batch of n, with a teacher of so many classes."""
    name, usual, _, _ = RUNS[run]
    first = batches(32)[0]
    batch = Batch(first.images[:n], first.targets[:n], torch.arange(n) if indices is None else indices, 5.0)
    with seeded(0):
        teacher, student = create_model(SMALL[0], classes, width=0.25), create_model(SMALL[1], CLASSES, width=0.25)
        method = distill.create(name, student, teacher, first.images, **{**usual, **options})
        method.prepare(distill.PrepareContext(teacher, lambda epoch, view: [first], torch.device("cpu")))
        return distill.Distillation(method, teacher)(student, batch)


@pytest.mark.parametrize("temperature", [0.0, -4.0])
@pytest.mark.parametrize("run", HEATED)
def test_temperature_must_be_positive(run, temperature):
    with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
        called(run, temperature=temperature)


@pytest.mark.parametrize("run", RUNS)
def test_logits_of_another_number_of_classes(run):
    """An error that names both numbers where logits are compared; methods that compare features do not mind."""
    if RUNS[run][0] in ("kd", "dkd", "ickd", "rpkd", "sakd", "pkgd", "diswot_plus"):
        with pytest.raises(ValueError, match=r"10 classes and the teacher 13|\(6, 10\) and \(6, 13\).*same classes"):
            called(run, classes=13)
    else:
        assert all(term.isfinite() for term in called(run, classes=13).values())


@pytest.mark.parametrize("run", ["crd", "sakd"])
@pytest.mark.parametrize("wrong", [-1, IMAGES])
def test_an_index_outside_the_memory_bank(run, wrong):
    with pytest.raises(ValueError, match=rf"outside the memory bank of {IMAGES} images .*{wrong}"):
        called(run, indices=torch.tensor([0, 1, 2, 3, 4, wrong]))


@pytest.mark.parametrize("run", RUNS)
def test_a_batch_of_one(run):
    """An error where images are compared or normalised over the batch; the others learn from one image as well."""
    if RUNS[run][0] in ("rkd", "diswot_plus") or run == "crd in the batch":
        with pytest.raises(ValueError, match="at least 2, got 1"):
            called(run, n=1)
    elif RUNS[run][0] in ("reviewkd", "rpkd", "pkgd"):
        with pytest.raises(ValueError, match="more than 1 value per channel"):  # batch norm at the pooled level
            called(run, n=1)
    else:
        assert all(term.isfinite() for term in called(run, n=1).values())


@pytest.mark.parametrize(
    "run", [run for run in RUNS if RUNS[run][0] in ("at", "reviewkd", "rpkd", "pkgd")] + ["sakd at"]
)
def test_networks_with_other_stages(run):
    """The error names both lists of shapes and what could be done."""
    student, teacher = create_model("resnet20", CLASSES, width=0.25), create_model("vgg8", CLASSES, width=0.125)
    name, options, _, _ = RUNS[run]
    with pytest.raises(ValueError, match=r"3 stages \(8x32x32, .*4 stages \(16x16x16, .*: take .*kd"):
        distill.create(name, student, teacher, batches(32)[0].images, **options)
