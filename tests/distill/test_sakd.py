"""SAKD: its functions against values worked out by hand, who gets which gradient, repeatable noise, bad input."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import efflib
from efflib import distill
from efflib.distill.common import Shapes
from efflib.distill.sakd import SAKD, grafted_logits, policy_loss, selected_loss, spot_actions
from efflib.kernels.kd_loss import softened_kl
from efflib.models import create_model, features, list_models, onward
from efflib.training import Batch, DeviceSet, TrainingRecipe, epoch_batches, fit, normalisation, seeded

CLASSES = 7
CRD = {"labels": torch.arange(40) % CLASSES, "negatives": 16}
BASES = [{"base": "crd", **CRD}, {"base": "crd", "memory": False}, {"base": "at"}]
BY_BASE = pytest.mark.parametrize("options", BASES, ids=["crd", "crd in the batch", "at"])


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def batch(n=8, dtype=torch.float32):
    indices = torch.arange(n) * 3
    return Batch(numbers(n, 3, 32, 32, dtype=dtype), indices % CLASSES, indices, 0.0)


def pair(teacher="resnet20", student="resnet14", dtype=torch.float32):
    """Networks with batch-norm statistics that fit the data: with those of a fresh one logits are in the hundreds."""
    with seeded(0):
        made = [create_model(name, CLASSES, width=0.25).to(dtype) for name in (teacher, student)]
    for model in made:
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model(batch(dtype=dtype).images)
        for norm in norms:
            norm.momentum = 0.1
    return made[0].eval(), made[1]


def loss_of(teacher, student, **options):
    with seeded(1):
        method = distill.create("sakd", student, teacher, batch().images.to(next(student.parameters())), **options)
    return distill.Distillation(method.to(next(student.parameters())), teacher)


def own_parts(method):
    """Policy and adapters: what the policy's term trains."""
    return [p for module in (method.policy, method.to_teacher, method.to_student) for p in module.parameters()]


# --- the bare functions -------------------------------------------------------------------------------------


def test_selected_loss_of_the_spec():
    """KL of the spec's check (T = 4: 0.098609) for one image in four: the share of the batch is a quarter."""
    student = torch.tensor([[9.0, 0, 0], [1, 0, 0], [0, 9, 0], [0, 0, 9]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0, 0, 9.0], [2, 1, 0], [9, 0, 0], [0, 9, 0]], dtype=torch.float64)
    chosen = torch.tensor([False, True, False, False])
    got = selected_loss(lambda s, t: softened_kl(s, t, 4), chosen, student, teacher)
    assert got.item() == pytest.approx(0.098609 / 4, abs=1e-6)
    got.backward()
    assert student.grad[1].abs().sum() > 0 and student.grad[[0, 2, 3]].abs().sum() == 0


def test_selected_loss_is_the_masked_sum_over_the_whole_batch():
    student, teacher = numbers(9, 5), numbers(9, 5, seed=1)
    chosen = numbers(9, seed=2) > 0
    p, q = student.softmax(1), teacher.softmax(1)
    expected = ((q * (q.log() - p.log())).sum(1) * chosen).sum() / 9
    assert 0 < chosen.sum() < 9
    assert selected_loss(lambda s, t: softened_kl(s, t, 1), chosen, student, teacher).item() == pytest.approx(
        expected.item(), rel=1e-12
    )


def test_selected_loss_with_too_few_images():
    rows, nobody = numbers(4, 2), torch.zeros(4, dtype=torch.bool)
    assert selected_loss(lambda x: x.mean() / 0, nobody, rows).item() == 0
    one = torch.tensor([True, False, False, False])
    assert selected_loss(lambda x: x.square().mean(), one, rows, least=2).item() == 0
    assert selected_loss(lambda x: x.square().mean(), one, rows).item() > 0
    with pytest.raises(ValueError, match=r"\(4,\) for lengths 4, 3"):
        selected_loss(lambda x, y: x.mean(), one, rows, rows[:3])


def test_actions_are_hard_with_a_soft_gradient():
    """d soft / d score = soft (1 - soft) / T, soft = sigmoid((difference of scores + of noise) / T)."""
    scores = torch.tensor([[[0.3, -0.2], [-2.0, 1.0]]], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([[[0.5, 0.25], [0.9, 0.4]]], dtype=torch.float64)
    actions = spot_actions(scores, noise, 5.0)
    gumbel = -(-noise.log()).log()
    soft = torch.sigmoid(((scores + gumbel)[..., 0] - (scores + gumbel)[..., 1]) / 5)
    assert actions.tolist() == [[1.0, 0.0]]
    actions.sum().backward()
    slope = (soft * (1 - soft) / 5).detach()
    assert torch.allclose(scores.grad, torch.stack([slope, -slope], dim=2), rtol=1e-12)
    assert spot_actions(scores, noise, 0.1).tolist() == [[1.0, 0.0]]  # temperature shapes the gradient only


def test_actions_are_as_frequent_as_the_scores_say():
    scores = torch.tensor([[0.7, -0.3], [-10.0, 0.0]], dtype=torch.float64).expand(20_000, 2, 2)
    noise = torch.rand(20_000, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = spot_actions(scores, noise).mean(dim=0)
    assert share[0].item() == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.015)
    assert share[1] < 0.001
    assert spot_actions(scores[:1], torch.zeros(1, 2, 2)).isfinite().all()


def test_policy_loss_by_hand():
    one, two = torch.tensor(1.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    enough, few = torch.ones(4, dtype=torch.float64), torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    assert policy_loss(two, one, enough, 3.0).item() == 6
    assert policy_loss(one, two, enough, 3.0).item() == 1 / 3
    assert policy_loss(two, two, enough, 3.0).item() == 2
    assert policy_loss(two, one, few, 1.0).item() == 2 + (2 - 1)  # two of four must be distilled, one is
    few.requires_grad_(True)
    policy_loss(two, one, few).backward()
    assert few.grad.tolist() == [-1.0] * 4
    with pytest.raises(ValueError, match="above 0, got 0"):
        policy_loss(two, one, enough, 0)


def test_policy_loss_gives_the_student_no_gradient():
    grafted, own = (torch.tensor(x, requires_grad=True) for x in (2.0, 1.0))
    policy_loss(grafted, own, torch.zeros(2), 2.0).backward()
    assert grafted.grad.item() == 2 and own.grad is None


def test_grafting_by_hand():
    """Two spots of width 1. Student's parts: x + 1, 2 x; teacher's: 10 x, x - 3; adapters: 5 x there, -x back.

    Image 1 (a = 1, 0; 1): student gets -t = -3, teacher t = 3; they give -2 and 30; student keeps -2, teacher gets
    5 * -2 = -10; they give -4 and -13; at the output the teacher's -13.
    Image 2 (a = 0, 1; 0): student keeps 2, teacher gets 5 * 2 = 10; they give 3 and 100; student gets -100, teacher
    keeps 100; they give -200 and 97; at the output the student's -200.
    """
    student, teacher = [lambda x: x + 1, lambda x: 2 * x], [lambda x: 10 * x, lambda x: x - 3]
    adapters = [(lambda x: 5 * x, lambda x: -x)] * 2
    actions = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    maps = (torch.tensor([[2.0], [2.0]]).double(), torch.tensor([[3.0], [3.0]]).double())
    assert grafted_logits(student, teacher, maps, adapters, actions).tolist() == [[-13.0], [-200.0]]


# --- parts of networks --------------------------------------------------------------------------------------


# Text has no stages, and the MNIST network reads images of 28 pixels: tests/models has its own check of the parts.
@pytest.mark.parametrize("name", sorted(set(list_models()) - {"names_decoder", "mnist_cnn"}))
def test_parts_put_together_are_the_network(name):
    with seeded(0):
        model = create_model(name, CLASSES, width=0.25).eval()
    for size in (32, 64) if name == "vgg8" else (32,):
        x = batch().images[:2].repeat(1, 1, size // 32, size // 32)
        found = features(model, x)
        for number, stage in enumerate(found.stages):
            x = onward(model, number, x)
            assert torch.equal(x, stage), (name, size, number)
        assert torch.equal(onward(model, len(found.stages), x), found.logits)


def test_a_model_without_parts():
    with pytest.raises(TypeError, match=r"Linear has no onward"):
        onward(nn.Linear(2, 2), 0, torch.zeros(1, 2))


@pytest.mark.parametrize(
    "names", [("vgg13", "mobilenetv2_half"), ("wrn_16_2", "shufflenetv1"), ("resnet50", "resnet18")]
)
def test_grafting_everywhere_or_nowhere_is_one_of_the_networks(names):
    teacher, student = pair(*names)
    x, sizes = batch().images, [len(features(net, batch().images).stages) for net in pair(*names)]
    method = loss_of(teacher, student.eval(), base="at").method
    with torch.no_grad():
        s, t = features(student, x), features(teacher, x)
        networks = distill.Networks(student, teacher, x)
        for choice, expected in ((1.0, t.logits), (0.0, s.logits)):
            actions = torch.full((len(x), sizes[0] + 1), choice)
            assert torch.allclose(method._grafted(s, t, actions, networks), expected, atol=1e-5)


# --- who learns from what -----------------------------------------------------------------------------------


@BY_BASE
def test_terms_have_separate_gradients(options):
    teacher, student = pair()
    loss = loss_of(teacher, student, homogeneous=False, **options)
    terms = loss(student.train(), batch())
    assert set(terms) == {"cross_entropy", "kd", "feature", "policy"} and all(term > 0 for term in terms.values())
    own, students = own_parts(loss.method), list(student.parameters())
    policy = torch.autograd.grad(terms.pop("policy"), [*own, *students], retain_graph=True, allow_unused=True)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in policy[: len(own)])
    assert policy[len(own) :] == (None,) * len(students)
    rest = torch.autograd.grad(torch.stack(list(terms.values())).sum(), [*own, *students], allow_unused=True)
    assert rest[: len(own)] == (None,) * len(own)
    assert all(gradient is not None for gradient in rest[len(own) :])
    assert all(parameter.requires_grad for parameter in students)


@BY_BASE
def test_networks_keep_their_statistics_in_the_grafted_pass(options):
    teacher, student = pair("wrn_16_2", "wrn_16_2")
    kept = {key: value.clone() for key, value in teacher.state_dict().items()}
    once = copy.deepcopy(student)
    features(once.train(), batch().images)  # the student's own pass moves its statistics, and nothing else does
    loss = loss_of(teacher, student, **options)
    torch.stack(list(loss(student.train(), batch()).values())).sum().backward()
    assert all(torch.equal(value, student.state_dict()[key]) for key, value in once.state_dict().items())
    assert all(torch.equal(value, teacher.state_dict()[key]) for key, value in kept.items())
    assert student.training and not teacher.training and all(p.grad is None for p in teacher.parameters())


@BY_BASE
def test_the_grafted_pass_starts_from_the_student_in_eval_mode(options):
    teacher, student = pair()
    x, method = 2 * batch().images + 1, loss_of(teacher, student, **options).method  # other statistics than its own
    s, t = features(student.train(), x), features(teacher, x)
    evaluated = features(student.eval(), x)
    student.train()
    with torch.no_grad():
        for actions in (torch.zeros(8, len(method.to_teacher) + 1), torch.eye(8)[:, : len(method.to_teacher) + 1]):
            got = method._grafted(s, t, actions, distill.Networks(student, teacher, x))
            assert torch.allclose(got, method._grafted(evaluated, t, actions, method.networks), atol=1e-6)
            assert not torch.allclose(got, method._grafted(s, t, actions, method.networks), atol=1e-3)


@BY_BASE
def test_terms_are_those_of_their_definition(options):
    """Each term worked out anew in float64 from the choices that the method made."""
    teacher, student = pair(dtype=torch.float64)
    student.eval()  # so that the grafted pass starts from the same maps
    loss = loss_of(teacher, student, homogeneous=False, policy_factor=2.0, **options)
    b = batch(dtype=torch.float64)
    s, t = features(student, b.images), features(teacher, b.images)
    fresh = copy.deepcopy(loss.method)
    chosen = fresh.actions(s, t) > 0.5
    terms = loss(student, b)
    assert 1 < chosen.sum() < chosen.numel() - 1
    each = [softened_kl(*row, 4) for row in zip(s.logits.split(1), t.logits.split(1))]
    kl = torch.stack(each)[chosen[:, -1]]
    assert terms["kd"].item() == pytest.approx(kl.sum().item() / len(chosen), rel=1e-9)
    if options["base"] == "at":
        energies = [[F.normalize(x.square().mean(1).flatten(1)) for x in found.stages] for found in (s, t)]
        apart = [(a - c).square().mean(1) * chosen[:, j] for j, (a, c) in enumerate(zip(*energies))]
        assert terms["feature"].item() == pytest.approx(1000 * sum(x.sum().item() for x in apart) / len(chosen))
        logits = fresh._grafted(s, t, chosen.double(), fresh.networks)
    else:
        on = chosen[:, :1].double()
        to_teacher = (1 - on) * fresh.to_teacher[0](s.pooled) + on * t.pooled
        to_student = (1 - on) * s.pooled + on * fresh.to_student[0](t.pooled)
        out = chosen[:, 1:].double()
        logits = (1 - out) * student.head(to_student) + out * teacher.head(to_teacher)
    grafted, own = F.cross_entropy(logits, b.targets), terms["cross_entropy"]
    weighed = grafted * 2 if grafted > own else grafted / 2
    quota = max(0, len(chosen) / 2 - int(chosen[:, -1].sum()))
    assert terms["policy"].item() == pytest.approx(weighed.item() + quota, rel=1e-9)


def test_crd_sees_the_chosen_images_only():
    teacher, student = pair()
    loss = loss_of(teacher, student, homogeneous=False, **CRD)
    bank = loss.method.crd.student_bank.clone()
    chosen = copy.deepcopy(loss.method).actions(*(features(m, batch().images) for m in (student.train(), teacher)))
    student = pair()[1].train()
    loss(student, batch())
    moved = (loss.method.crd.student_bank != bank).any(dim=1).nonzero().flatten()
    assert moved.tolist() == batch().indices[chosen[:, 0] > 0.5].tolist() and 0 < len(moved) < 8


def test_alike_networks_start_with_distilling_everything():
    """So the adapters, which serve where a network is left, wait for the policy: it alone has a gradient at first."""
    teacher, student = pair()
    loss = loss_of(teacher, student, **CRD)
    loss(student, batch())["policy"].backward()
    assert (loss.method.policy.bias[::2] > 9).all() and (loss.method.policy.bias[1::2] < 1).all()
    assert loss.method.policy.weight.grad.abs().sum() > 0
    assert all(
        p.grad.abs().sum() == 0 for m in (loss.method.to_teacher, loss.method.to_student) for p in m.parameters()
    )
    for others in (loss_of(*pair("vgg8", "mobilenetv2_half"), **CRD), loss_of(*pair(), homogeneous=False, **CRD)):
        assert others.method.policy.bias.abs().max() < 1


def test_the_policy_learns_to_take_the_better_network():
    """The teacher is right about every image here, and the student about few."""
    teacher, student = pair()
    x = batch().images
    s, t = features(student.eval(), x), features(teacher, x)
    b = Batch(x, t.logits.argmax(dim=1), batch().indices, 0.0)
    assert (s.logits.argmax(dim=1) != b.targets).any()
    loss = loss_of(teacher, student, memory=False, homogeneous=False)
    optimiser = torch.optim.SGD(own_parts(loss.method), lr=0.1)
    shares, curve = [], []
    for _ in range(40):
        optimiser.zero_grad()
        terms = loss(student, b)
        terms["policy"].backward()
        optimiser.step()
        curve.append(terms["policy"].item())
        shares.append(loss.method.actions(s, t)[:, -1].mean().item())
    assert sum(curve[-10:]) < 0.9 * sum(curve[:10])
    assert sum(shares[-10:]) / 10 > 0.9 > sum(shares[:10]) / 10


# --- counts, groups, repetition -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("student", "teacher", "crd", "at"),
    [
        # 128 x 4 + 4 policy, 2 (64 x 64 + 64) adapters, 2 (64 x 128 + 128) CRD heads; 128 x 8 + 8 and 1x1 adapters
        (
            (((16, 32, 32), (32, 16, 16), (64, 8, 8)), 64),
            (((16, 32, 32), (32, 16, 16), (64, 8, 8)), 64),
            25_476,
            12_456,
        ),
        # MobileNetV2 and VGG13: the last stage is 2 px against 4 px, so one transposed 4x4 and one 3x3 convolution
        (
            (((12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)), 1280),
            (((128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)), 512),
            1_549_316,
            2_131_278,
        ),
    ],
    ids=["resnet56-resnet20", "vgg13-mobilenetv2_half"],
)
def test_trainable_extras(student, teacher, crd, at):
    shapes = Shapes(*student, 100), Shapes(*teacher, 100)
    for base, expected in (("crd", crd), ("at", at)):
        method = SAKD(*shapes, base=base, **(CRD if base == "crd" else {}))
        assert sum(p.numel() for p in method.parameters() if p.requires_grad) == expected


def test_policy_and_adapters_take_half_the_rate_and_a_decay_of_their_own():
    """One step of `fit` in float64, repeated by hand."""
    data = efflib.load_dataset("digits", "train").take(range(32))
    recipe = TrainingRecipe(epochs=1, lr=0.1, momentum=0, batch_size=32, augment="none")

    def made():
        with seeded(0):
            teacher, student = (
                create_model(n, 10, width=0.25, in_channels=1).double() for n in ("resnet20", "resnet14")
            )
            method = distill.create(
                "sakd",
                student,
                teacher,
                torch.zeros(2, 1, 8, 8).double(),
                homogeneous=False,
                labels=data_labels,
                negatives=8,
            )
        return student, distill.Distillation(method.double(), teacher)

    data_labels = torch.from_numpy(data.labels)
    student, loss = made()
    (group,) = loss.parameter_groups()
    assert {id(p) for p in group["params"]} == {id(p) for p in own_parts(loss.method)}
    fit(student, data, data, recipe=recipe, loss=loss, device="cpu", precision="fp64", progress=False)
    again, by_hand = made()
    (b,) = epoch_batches(DeviceSet(data, torch.device("cpu")), recipe, *normalisation(recipe, data), 0, 0)
    b = Batch(b.images.double(), b.targets, b.indices, b.progress)
    torch.stack(list(by_hand(again.train(), b).values())).sum().backward()
    for lr, decay, before, after in (
        (0.05, 1e-3, own_parts(by_hand.method), own_parts(loss.method)),
        (0.1, 5e-4, list(by_hand.method.crd.parameters()), list(loss.method.crd.parameters())),
        (0.1, 5e-4, list(again.parameters()), list(student.parameters())),
    ):
        for old, new in zip(before, after, strict=True):
            assert torch.allclose(old - lr * (old.grad + decay * old), new, rtol=1e-9, atol=1e-12)


@BY_BASE
def test_noise_is_of_the_step_and_not_of_the_global_generator(options):
    teacher, student = pair()
    s, t = (features(model, batch().images) for model in (student.eval(), teacher))
    one, other = (loss_of(teacher, student, homogeneous=False, **options).method for _ in range(2))
    state = torch.get_rng_state()
    first, second = one.actions(s, t), one.actions(s, t)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(other.actions(s, t), first) and not torch.equal(first, second)
    third = one.actions(s, t)
    other.load_state_dict(one.state_dict())  # as a resumed run does
    other.step -= 1
    assert torch.equal(other.actions(s, t), third)
    seeds = [loss_of(teacher, student, homogeneous=False, seed=seed, **options).method.actions(s, t) for seed in (0, 1)]
    assert torch.equal(seeds[0], first) and not torch.equal(seeds[0], seeds[1])


@BY_BASE
def test_an_interrupted_run_ends_like_an_unbroken_one(options, tmp_path):
    data = efflib.load_dataset("digits", "train").take(range(64))
    recipe = TrainingRecipe(epochs=2, lr=0.05, batch_size=32)
    if options.get("labels") is not None:
        options = {**options, "labels": torch.from_numpy(data.labels)}

    def run(stop_at=None, checkpoint=None):
        with seeded(0):
            teacher, student = (create_model(n, 10, width=0.25, in_channels=1) for n in ("resnet20", "resnet14"))
            method = distill.create("sakd", student, teacher, torch.zeros(2, 1, 8, 8), homogeneous=False, **options)
        loss = distill.Distillation(method, teacher)
        whole, steps = loss.forward, []

        def forward(model, b):
            steps.append(b.progress)
            if len(steps) == stop_at:
                raise KeyboardInterrupt
            return whole(model, b)

        loss.forward = forward
        settings = {"recipe": recipe, "loss": loss, "device": "cpu", "precision": "fp32", "progress": False}
        history = fit(student, data, data, checkpoint=checkpoint, **settings)
        return history, {**student.state_dict(), **loss.state_dict()}

    unbroken, weights = run()
    with pytest.raises(KeyboardInterrupt):
        run(stop_at=4, checkpoint=tmp_path / "c.pt")
    resumed, again = run(checkpoint=tmp_path / "c.pt")
    assert resumed.resumed_from == 1 and resumed.losses == unbroken.losses
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert int(weights["method.step"]) == 4


# --- precision, bad input -----------------------------------------------------------------------------------


@BY_BASE
def test_bf16_autocast_gives_the_same_terms_and_gradients(options):
    found = []
    for enabled in (False, True):
        teacher, student = pair("vgg8", "resnet18")
        loss = loss_of(teacher, student, **options)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            terms = loss(student.train(), batch())
        torch.stack([term.float() for term in terms.values()]).sum().backward()
        assert all(p.grad is not None for p in student.parameters())
        gradients = torch.cat([p.grad.flatten() for p in student.parameters()])
        found.append((terms, gradients, torch.cat([p.grad.flatten() for p in own_parts(loss.method)])))
    (wide, *exact), (narrow, *rounded) = found
    assert all(narrow[name].item() == pytest.approx(wide[name].item(), rel=0.03) for name in wide)
    assert all(F.cosine_similarity(a, c, dim=0) > 0.9 for a, c in zip(exact, rounded))


def test_called_with_features_alone_it_grafts_from_those():
    """The signature that all methods share: the networks are those given to `create`."""
    teacher, student = pair()
    b = batch()
    for options in BASES:
        with_images = loss_of(teacher, student.eval(), **options)(student, b)
        method = loss_of(teacher, student, **options).method
        alone = method(features(student, b.images), features(teacher, b.images), b.targets, b.indices, 0.0)
        assert {k: v.item() for k, v in alone.items()} == pytest.approx({k: v.item() for k, v in with_images.items()})
    shapes = Shapes(((8, 32, 32), (8, 16, 16), (16, 8, 8)), 16, CLASSES)
    with pytest.raises(ValueError, match="networks="):
        SAKD(shapes, shapes, base="at")(
            features(student, b.images), features(teacher, b.images), b.targets, b.indices, 0.0
        )


def test_bad_input():
    teacher, student = pair()
    with pytest.raises(ValueError, match="one of crd, at, got 'rkd'"):
        loss_of(teacher, student, base="rkd")
    with pytest.raises(ValueError, match=r"labels=\(N,\).*memory=False"):
        loss_of(teacher, student)
    with pytest.raises(ValueError, match="policy_temperature must be above 0, got 0"):
        loss_of(teacher, student, base="at", policy_temperature=0)
    with pytest.raises(ValueError, match="temperature must be above 0, got -1"):
        loss_of(teacher, student, base="at", temperature=-1)(student, batch())
    with pytest.raises(ValueError, match="policy_factor must be above 0, got -2"):
        loss_of(teacher, student, base="at", policy_factor=-2)(student, batch())
    with pytest.raises(ValueError, match="7 classes and the teacher 9"):
        loss_of(create_model("resnet20", 9, width=0.25), student, base="at")
    with pytest.raises(ValueError, match=r"sakd with base='at'.*3 stages \(8x32x32.*4 stages \(32x16x16"):
        loss_of(create_model("vgg8", CLASSES, width=0.25), student, base="at")
    with pytest.raises(ValueError, match="outside the memory bank of 40 images"):
        loss_of(teacher, student, **CRD)(student, Batch(batch().images, batch().targets, batch().indices + 100, 0.0))
    with pytest.raises(ValueError, match=r"sakd with memory=False .*at least 2, got 1"):
        loss_of(teacher, student, memory=False)(student.eval(), batch(n=1))
    shapes = [Shapes(((8, size, size),), 8, CLASSES) for size in (4, 6)]
    with pytest.raises(ValueError, match=r"8x4x4 to one of 8x6x6.*base='crd'"):
        SAKD(*shapes, base="at")
