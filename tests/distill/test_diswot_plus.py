"""DisWOT+: values of its spec, the identity of its maps, who gets which gradient, modes, precision, bad input."""

from __future__ import annotations

import copy
import math
from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from efflib import distill
from efflib.distill.diswot_plus import DISTANCES, class_map, relation_loss, semantic_loss
from efflib.explain import propagate
from efflib.kernels import gradcam_map, gram_distance, relevance_map
from efflib.models import create_model, features
from efflib.training import Batch, seeded

CLASSES = 4
WEIGHTS = ("ce_weight", "kd_weight", "semantic_weight", "relation_weight")
COMBINATIONS = [(target, distance) for target, distances in DISTANCES.items() for distance in distances]
VARIANTS = [
    {},
    {"layers": "s16"},
    {"map": "gxa", "semantic_target": "map", "distance": "l2_unit", "layers": "s16+s32"},
    {"map": "gxa", "semantic_target": "map", "distance": "cosine", "relation": "cosine", "layers": "s16"},
    {"map": "lrp", "semantic_target": "map", "distance": "cosine", "relation": "cosine", "layers": "s16"},
]
EACH_VARIANT = pytest.mark.parametrize("options", VARIANTS, ids=lambda o: " ".join(map(str, o.values())) or "default")


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def batch(n=8, dtype=torch.float32, size=64):
    images = torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Batch(images.to(dtype), torch.arange(n) % CLASSES, torch.arange(n), 0.0)


def network(head, depth=11, dtype=torch.float32, seed=0):
    """A narrow one with the batch's statistics: with those of a fresh batch norm its maps would vanish."""
    return copy.deepcopy(_network(head, depth, dtype, seed))


@cache
def _network(head, depth, dtype, seed):
    with seeded(seed):
        model = create_model("mobilenetv2", CLASSES, width=0.35, depth=depth, head=head, image_size=64).to(dtype)
        for module in model.head.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()  # logits apart, so that networks differ in what they predict
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model(batch(dtype=dtype).images)
            model.head[-1].bias -= model.eval()(batch(dtype=dtype).images).mean(0)  # not one class for all images
        for norm in norms:
            norm.momentum = 0.1
    return model.train()


def pair(head="gap", dtype=torch.float32):
    return network("flatten", dtype=dtype, seed=1).eval(), network(head, dtype=dtype)


def loss_of(teacher, student, **options):
    method = distill.create(
        "diswot_plus", student, teacher, batch(2, next(student.parameters()).dtype).images, **options
    )
    return distill.Distillation(method, teacher)


def only(term):
    return {weight: float(weight == term) for weight in WEIGHTS}


# --- bare losses --------------------------------------------------------------------------------------------


def test_the_gram_toy_of_the_spec():
    """Section 7: F_t = I, F_s = [[1, 0], [1, 0]], as maps and as features."""
    teacher, student = torch.eye(2).view(2, 1, 2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(2, 1, 2)
    for distance, expected in (("fro", 0.7653669), ("cosine", 0.2928932)):
        assert semantic_loss(student, teacher, "gram", distance).item() == pytest.approx(expected, abs=2e-7)
        assert relation_loss(student[:, None], teacher[:, None], distance).item() == pytest.approx(expected, abs=2e-7)


def test_the_kl_toy_of_the_spec():
    """z_t = (2, 0, 0, 0), z_s = 0, T = 4: 16 KL = 0.4325248, and CE of the uniform 1.3862944."""
    teacher, student = pair()
    images = batch(2).images
    method = loss_of(teacher, student, temperature=4.0).method
    s, t = features(student, images), features(teacher, images)
    logits = torch.tensor([[2.0, 0.0, 0.0, 0.0]] * 2)
    found = method.measure(s._replace(logits=torch.zeros(2, 4)), t._replace(logits=logits), torch.zeros(2).long())
    assert found["unweighted_kd"].item() == pytest.approx(0.4325248, rel=1e-5)
    assert found["unweighted_cross_entropy"].item() == pytest.approx(1.3862944, abs=1e-6)


@pytest.mark.parametrize("head", ["gap", "flatten"])
def test_the_map_toy_of_the_spec(head):
    """Section 7: A_1 = (1, 3), A_2 = (2, 0), S = 1 with either head."""
    A = torch.tensor([[1.0, 3.0], [2.0, 0.0]]).view(1, 2, 1, 2).requires_grad_()
    weights = torch.tensor([[0.5, 0.5], [-0.5, -0.5]] if head == "gap" else [[1.0, 0.0], [0.0, -1.0]])
    logits = F.linear(A.flatten(1), weights.view(1, 4))
    maps = [
        class_map(A, logits, torch.zeros(1).long(), kind, relu=False, create_graph=True) for kind in ("gradcam", "gxa")
    ]
    assert logits.item() == 1 and maps[0].flatten().tolist() == [-0.5, 1.5]
    assert maps[1].flatten().tolist() == ([-0.5, 1.5] if head == "gap" else [1.0, 0.0])


@pytest.mark.parametrize(("target", "distance"), COMBINATIONS)
def test_semantic_loss_against_loops(target, distance):
    s, t = numbers(5, 3, 4).relu(), numbers(5, 3, 4, seed=1).relu()
    a, b = ([[value for row in each for value in row] for each in maps.tolist()] for maps in (s, t))

    def dot(x, y):
        return sum(p * q for p, q in zip(x, y))

    if target == "gram":
        expected = gram_distance(s, t, "l2" if distance == "fro" else "cosine").item()
    elif distance == "l2":
        expected = sum(dot([p - q for p, q in zip(x, y)], [p - q for p, q in zip(x, y)]) for x, y in zip(a, b)) / 5
    else:
        cosines = [dot(x, y) / math.sqrt(dot(x, x) * dot(y, y)) for x, y in zip(a, b)]
        expected = sum((1 if distance == "cosine" else 2) * (1 - cosine) for cosine in cosines) / 5
    assert semantic_loss(s, t, target, distance).item() == pytest.approx(expected, rel=1e-10)
    single = semantic_loss(s.float(), t.float(), target, distance)
    assert single.dtype == torch.float32 and single.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("target", "distance"), COMBINATIONS)
def test_semantic_gradients_go_to_the_student_only(target, distance):
    s, t = numbers(4, 2, 3).requires_grad_(), numbers(4, 2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: semantic_loss(s, t, target, distance), (s,))
    semantic_loss(s, t, target, distance).backward()
    assert t.grad is None and s.grad.abs().sum() > 0


def test_relation_gradients_go_to_the_student_only():
    s, t = numbers(4, 2, 3, 3).requires_grad_(), numbers(4, 5, 2, 2, seed=1).requires_grad_()
    for distance in ("fro", "cosine"):
        assert torch.autograd.gradcheck(lambda s, distance=distance: relation_loss(s, t, distance), (s,))
    relation_loss(s, t).backward()
    assert t.grad is None


def test_cosine_is_half_of_the_squared_normalised_distance():
    """Section 2.4: the same minimiser, another scale of the gradient."""
    for seed in range(4):
        s, t = numbers(6, 4, 4, seed=seed).relu(), numbers(6, 4, 4, seed=seed + 9).relu()
        fro, cosine = (semantic_loss(s, t, "gram", distance).item() for distance in ("fro", "cosine"))
        assert cosine == pytest.approx((fro**2 - 1e-12) / 2, rel=1e-9)
        unit, cosine = (semantic_loss(s, t, "map", distance).item() for distance in ("l2_unit", "cosine"))
        assert cosine == pytest.approx(unit / 2, rel=1e-9) and 0 <= cosine <= 1


def test_only_raw_l2_depends_on_the_scale():
    s, t = numbers(5, 3, 3).relu(), numbers(5, 3, 3, seed=1).relu()
    for target, distance in COMBINATIONS:
        values = [semantic_loss(factor * s, t, target, distance).item() for factor in (1.0, 1e6, 1e-14)]
        assert (values[1:] == pytest.approx([values[0]] * 2, rel=1e-6)) == (distance != "l2"), (target, distance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_tiny_maps_are_at_distance_zero(dtype):
    """Magnitude 1e-10: a library cosine with its eps on the norms returns 5e-5."""
    tiny = 1e-10 * numbers(6, 4, 4, dtype=dtype).relu()
    for target, distance in COMBINATIONS:
        exact = 1e-6 if distance == "fro" else 0.0  # the 1e-12 under the root
        assert semantic_loss(tiny, tiny, target, distance).item() == pytest.approx(exact, abs=2e-6), (target, distance)
        assert semantic_loss(3 * tiny, tiny, target, distance).item() == pytest.approx(exact, abs=2e-6)


@pytest.mark.parametrize(("target", "distance"), COMBINATIONS)
def test_zero_maps(target, distance):
    s, t = numbers(4, 3, 3).relu(), numbers(4, 3, 3, seed=1).relu()
    s[0], t[1] = 0, 0
    leaf = s.clone().requires_grad_()
    found = semantic_loss(leaf, t, target, distance)
    found.backward()
    assert found.isfinite() and leaf.grad.isfinite().all()
    if distance in ("l2_unit", "cosine") and target == "map":
        assert leaf.grad[:2].abs().max() == 0 and leaf.grad[2:].abs().min() < leaf.grad[2:].abs().max()
        rest = semantic_loss(s[2:], t[2:], target, distance).item()
        assert found.item() == pytest.approx(rest / 2, rel=1e-12)  # two of four count 0
    none = torch.zeros(4, 3, 3, requires_grad=True)
    semantic_loss(none, t, target, distance).backward()
    assert none.grad.isfinite().all()


# --- maps of the networks -----------------------------------------------------------------------------------


def maps_of(model, layer, kind, images, labels):
    A = model.maps(images)[layer].detach().requires_grad_()
    return class_map(A, model.logits_from(layer, A, as_in_eval=True), labels, kind, relu=False)


def difference(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def test_the_identity_of_maps_before_a_global_average():
    """Section 2.3: one map at the last layer of every `gap` member, two at the teacher's and at earlier layers."""
    work = batch(dtype=torch.float64)
    for head, layer, same in (("gap", "s32", True), ("flatten", "s32", False), ("gap", "s16", False)):
        for depth in (11, 17) if same else (11,):
            model = network(head, depth, torch.float64).eval()
            found = [maps_of(model, layer, kind, work.images, work.targets) for kind in ("gradcam", "gxa")]
            assert (difference(*found) < 1e-12) == same, (head, layer)
            assert same or difference(*found) > 0.05


def test_the_identity_of_dsc_holds_before_its_average_only():
    model, work = network("dsc", dtype=torch.float64).eval(), batch(dtype=torch.float64)
    assert difference(*(maps_of(model, "s32", kind, work.images, work.targets) for kind in ("gradcam", "gxa"))) > 0.05
    before, behind = model.reduce[:2], model.reduce[2:]
    A = before(model.maps(work.images)["s32"]).detach().requires_grad_()
    found = [class_map(A, model.head(behind(A)), work.targets, kind, relu=False) for kind in ("gradcam", "gxa")]
    assert difference(*found) < 1e-12


def test_map_is_the_kernel_on_the_gradient_of_the_logit():
    model, work = network("flatten", dtype=torch.float64).eval(), batch(dtype=torch.float64)
    A = model.maps(work.images)["s16"].detach().requires_grad_()
    logits = model.logits_from("s16", A)
    for kind, kernel in (("gradcam", gradcam_map), ("gxa", relevance_map)):
        for n in range(2):
            (g,) = torch.autograd.grad(logits[n, work.targets[n]], A, retain_graph=True)
            found = class_map(A, logits, work.targets, kind, create_graph=True)
            assert torch.allclose(found[n], kernel(A, g)[n], rtol=1e-12, atol=0)
            assert g[:n].abs().sum() == 0  # evaluation does not mix the images


@pytest.mark.parametrize("head", ["gap", "dsc"])
@EACH_VARIANT
def test_terms_of_a_batch_are_the_bare_losses(options, head):
    """The whole method against its definition: fresh passes, maps one network at a time."""
    teacher, student = pair(head, torch.float64)
    work, options = batch(dtype=torch.float64), dict(options)
    found = loss_of(teacher, student, **options, ce_weight=0.4, kd_weight=0.3, semantic_weight=0.2, relation_weight=0.1)
    with seeded(3):
        terms = found(copy.deepcopy(student).train(), work)
    reference = copy.deepcopy(student).train()
    with seeded(3):
        own = features(reference, work.images)  # moves the running statistics, which the maps then read
    reference_maps = copy.deepcopy(student).train().maps(work.images)
    guide = features(teacher, work.images)
    semantic, relation = [], []
    layers = options.get("layers", "s32").split("+")
    for layer in layers:
        each = []
        for model, A in ((reference, reference_maps[layer]), (teacher, teacher.maps(work.images)[layer])):
            A = A.detach().requires_grad_()
            behind = partial(model.logits_from, layer, as_in_eval=True)
            kind = options.get("map", "gradcam")
            logits = propagate(behind, A) if kind == "lrp" else behind(A)
            each.append((class_map(A, logits, work.targets, "gxa" if kind == "lrp" else kind), A.detach()))
        structure = options.get("semantic_target", "gram"), options.get("distance", "fro")
        semantic.append(semantic_loss(each[0][0], each[1][0], *structure).item())
        relation.append(relation_loss(each[0][1], each[1][1], options.get("relation", "fro")).item())
    kl = F.kl_div((own.logits / 4).log_softmax(1), (guide.logits / 4).softmax(1), reduction="batchmean").item()
    expected = {
        "cross_entropy": 0.4 * F.cross_entropy(own.logits, work.targets).item(),
        "kd": 0.3 * 16 * kl,
        "semantic": 0.2 * sum(semantic) / len(layers),
        "relation": 0.1 * sum(relation) / len(layers),
    }
    # The ratios of LRP divide by small numbers: rounding of the two passes grows.
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-4 if kind == "lrp" else 1e-9)
    assert all(value > 0 for value in expected.values())


# --- gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["gap", "dsc"])
@pytest.mark.parametrize("layers", ["s32", "s16", "s16+s32", "last"])
def test_semantic_gradients_reach_head_and_backbone(layers, head):
    teacher, student = pair(head)
    before = copy.deepcopy(teacher.state_dict())
    options = {
        "map": "gxa",
        "semantic_target": "map",
        "distance": "cosine",
        "layers": layers,
        **only("semantic_weight"),
    }
    terms = loss_of(teacher, student, **options)(student.train(), batch())
    assert terms.keys() == {"cross_entropy", "semantic"} and terms["cross_entropy"].item() == 0
    terms["semantic"].backward()
    for part in (student.head, student.backbone):
        assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0
    # All that lies behind the map takes part, but for biases of the logits: those only shift the score.
    silent = {n for n, p in student.named_parameters() if p.grad is None or not p.grad.any()}
    assert not {name for name in silent if name.endswith("weight") and not name.startswith("backbone")}
    assert student.backbone[0][0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters()) and not teacher.training
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("layers", ["s32", "s16"])
def test_relation_gradients_reach_the_backbone(layers):
    teacher, student = pair()
    loss_of(teacher, student, layers=layers, **only("relation_weight"))(student.train(), batch())["relation"].backward()
    assert student.backbone[0][0].weight.grad.abs().sum() > 0
    assert not any(p.grad is not None and p.grad.any() for p in student.head.parameters())


@pytest.mark.parametrize(("layer", "kind"), [("s32", "gradcam"), ("s16", "gxa")])
def test_second_derivatives_against_differences(layer, kind):
    """d L_sem / d w along a random direction of all parameters, in eval mode, so that the two passes are functions."""
    teacher, student = pair("dsc", torch.float64)
    student.eval()
    options = {"map": kind, "semantic_target": "map", "distance": "l2_unit", "layers": layer, "relu": False}
    loss, work = loss_of(teacher, student, **options, **only("semantic_weight")), batch(4, torch.float64)
    loss(student, work)["semantic"].backward()
    parameters = list(student.parameters())
    direction = [numbers(*p.shape, seed=number) * p.detach().abs().mean() for number, p in enumerate(parameters)]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction) if p.grad is not None)

    def at(step):
        with torch.no_grad():
            for p, d in zip(parameters, direction):
                p += step * d
            value = loss(student, work)["semantic"].item()
            for p, d in zip(parameters, direction):
                p -= step * d
        return value

    h = 1e-8  # ReLU6 has kinks: small enough to meet none
    assert slope == pytest.approx((at(h) - at(-h)) / (2 * h), rel=1e-3)


def test_equal_networks():
    """No distance and no NaN in the gradient, where the root has its steepest point."""
    student = network("gap").eval()
    teacher = copy.deepcopy(student)
    terms = loss_of(teacher, student)(student, batch())
    assert terms["semantic"].item() < 1e-5 and terms["relation"].item() < 1e-5 and terms["kd"].item() < 1e-6
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())


def test_a_frozen_backbone_trains_the_head():
    teacher, student = pair()
    student.backbone.requires_grad_(False)
    terms = loss_of(teacher, student)(student.train(), batch())
    assert not terms["relation"].requires_grad  # section 4.2: no claim about it can be made so
    terms["semantic"].backward()
    assert student.head[0].weight.grad.abs().sum() > 0


# --- modes, dropout, statistics -----------------------------------------------------------------------------


@EACH_VARIANT
def test_dropout_does_not_enter_the_maps(options):
    """The high-order terms of two draws of dropout are equal, the logits' terms are not; one stream for all methods."""
    teacher, student = pair()
    found, drawn = [], []
    for seed in (1, 2, 1):
        with seeded(seed):
            terms = loss_of(teacher, student, **options)(copy.deepcopy(student).train(), batch())
            drawn.append(torch.rand(()))
        found.append({name: term.item() for name, term in terms.items()})
    assert found[0] == found[2] and found[0]["cross_entropy"] != found[1]["cross_entropy"]
    assert [found[0][name] for name in ("semantic", "relation")] == [
        found[1][name] for name in ("semantic", "relation")
    ]
    with seeded(1):
        loss_of(teacher, student, **only("kd_weight"))(copy.deepcopy(student).train(), batch())
        assert torch.equal(torch.rand(()), drawn[0])  # as many random numbers as KD: runs of one seed are paired


@EACH_VARIANT
def test_statistics_move_as_in_plain_training(options):
    teacher, student = pair()
    plain, distilled = copy.deepcopy(student).train(), copy.deepcopy(student).train()
    with seeded(0):
        features(plain, batch().images)
    with seeded(0):
        loss_of(teacher, student, **options)(distilled, batch())
    other = distilled.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in plain.state_dict().items())
    assert all(module.training for module in distilled.modules())


def test_target_classes():
    teacher, student = pair("gap", torch.float64)
    work = batch(dtype=torch.float64)
    guess = features(teacher, work.images).logits.argmax(1)
    own = features(student.eval(), work.images).logits.argmax(1)
    assert (guess != work.targets).any() and (own != guess).any()

    def value(target, targets):
        loss = loss_of(teacher, student, target=target, relu=False, **only("semantic_weight"))
        return loss(student, Batch(work.images, targets, work.indices, 0.0))["semantic"].item()

    assert value("teacher_pred", work.targets) == pytest.approx(value("label", guess), rel=1e-12)
    assert value("teacher_pred", work.targets) != pytest.approx(value("label", work.targets), rel=1e-3)
    assert value("own_pred", work.targets) == value("own_pred", guess)
    A, B = (model.maps(work.images)["s32"].detach().requires_grad_() for model in (student, teacher))
    maps = [
        class_map(x, model.logits_from("s32", x), classes, relu=False)
        for model, x, classes in ((student, A, own), (teacher, B, guess))
    ]
    assert value("own_pred", work.targets) == pytest.approx(semantic_loss(*maps).item(), rel=1e-10)


def test_true_lrp_before_a_global_average_is_the_same_map_again():
    """Section 2.3: GAP and dense layers by the epsilon rule; it takes earlier layers for another map."""
    student = network("gap", dtype=torch.float64).eval()
    base = {"semantic_target": "map", "distance": "l2_unit", **only("semantic_weight")}
    twin = network("gap", dtype=torch.float64, seed=4).eval()

    def value(**options):
        return loss_of(twin, student, **base, **options)(student, batch(dtype=torch.float64))["semantic"].item()

    assert value(map="lrp") == pytest.approx(value(map="gradcam"), rel=1e-3)
    assert value(map="lrp", layers="s16") != pytest.approx(value(map="gxa", layers="s16"), rel=0.01)


def test_measure():
    teacher, student = pair("gap", torch.float64)
    student.eval()
    work = batch(dtype=torch.float64)
    method = loss_of(teacher, student, map="gxa", layers="s16").method
    s, t = features(student, work.images), features(teacher, work.images)
    with torch.no_grad():  # as after training
        found = method.measure(s, t, work.targets)
        without = method.measure(s, t)
    terms = method(s, t, work.targets, work.indices, 0.0)
    for name, term in terms.items():
        assert 0.25 * found[f"unweighted_{name}"].item() == pytest.approx(term.item(), rel=1e-12)
    assert not any(value.requires_grad for value in found.values())
    assert found.keys() - without.keys() == {"unweighted_cross_entropy"}
    relabelled = method.measure(s, t, t.logits.argmax(1))  # without labels: the class that the teacher predicts
    assert without == {name: relabelled[name] for name in without}


def test_the_share_of_zero_maps():
    """With the last layer's weights at -1 every contribution is negative; half of the images keep their class."""
    teacher, student = pair()
    for model in (teacher, student):
        dense = model.head[-1]
        nn.init.constant_(dense.weight, 1.0)
        with torch.no_grad():
            dense.weight[:2] = -1.0
    nn.init.constant_(student.head[3].weight, 1.0)
    nn.init.constant_(student.head[0].weight, 1.0)
    method = loss_of(teacher, student.eval()).method
    images = batch().images
    found = method.measure(features(student, images), features(teacher, images), torch.arange(8) % 4)
    assert found["zero_maps_student"].item() == 0.5 and 0 <= found["zero_maps_teacher"].item() < 1


def test_weights_of_zero_cost_nothing():
    teacher, student = pair()
    loss = loss_of(teacher, student, ce_weight=0.5, kd_weight=0.5, semantic_weight=0.0, relation_weight=0.0)
    with seeded(0):
        found = loss(student.train(), batch())
    with seeded(0):
        options = {"ce_weight": 0.5, "kd_weight": 0.5}
        plain = distill.Distillation(distill.create("kd", student, teacher, batch().images, **options), teacher)
        expected = plain(student.train(), batch())
    assert found.keys() == expected.keys() == {"cross_entropy", "kd"}
    assert {k: v.item() for k, v in found.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-5
    )


def test_any_network_with_stages_can_use_its_last_map():
    """Also where sizes differ: similarities of the images need no equal maps."""
    with seeded(0):
        teacher, student = create_model("resnet20", 4, width=0.5), create_model("mobilenetv2_half", 4, width=0.25)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    work = Batch(images, torch.arange(4), torch.arange(4), 0.0)
    method = distill.create("diswot_plus", student, teacher, images)
    terms = distill.Distillation(method, teacher)(student.train(), work)
    terms["semantic"].backward()
    assert terms["semantic"] > 0 and student.head.weight.grad.abs().sum() > 0 and student.conv1.weight.grad.any()


# --- precision ----------------------------------------------------------------------------------------------


@EACH_VARIANT
def test_bf16_autocast_gives_finite_and_close_terms(options):
    """The gradient of the cross-entropy alone differs by as much: a fresh MobileNetV2 is rough in bf16."""
    teacher, student = pair()
    found = []
    for enabled in (False, True):
        model = copy.deepcopy(student).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), seeded(2):
            terms = loss_of(teacher, student, **options)(model, batch())
        assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
        torch.stack(list(terms.values())).sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        found.append({name: term.item() for name, term in terms.items()})
    assert found[1] == pytest.approx(found[0], rel=0.1, abs=0.04)


@EACH_VARIANT
def test_bf16_features_give_close_gradients(options):
    """From the same features, rounded: what the method adds to the rounding of the networks."""
    teacher, student = pair()
    work, found = batch(), []
    with torch.no_grad():
        s, t = features(student.eval(), work.images), features(teacher, work.images)
    for low in (False, True):
        dtype = torch.bfloat16 if low else torch.float32
        leaves = [stage.detach().to(dtype).requires_grad_() for stage in s.stages]
        guide = t._replace(stages=tuple(stage.to(dtype) for stage in t.stages))
        method = loss_of(teacher, student, **options).method
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            terms = method(s._replace(stages=tuple(leaves)), guide, work.targets, work.indices, 0.0)
        (terms["semantic"] + terms["relation"]).backward()
        gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
        assert gradients
        assert all(gradient.dtype == dtype for gradient in gradients)
        found.append((terms, torch.cat([gradient.float().flatten() for gradient in gradients])))
    (wide, exact), (narrow, rounded) = found
    for name in ("semantic", "relation"):
        assert narrow[name].item() == pytest.approx(wide[name].item(), rel=0.2)
    assert F.cosine_similarity(exact, rounded, dim=0) > 0.8


def test_maps_are_made_in_float32_under_autocast():
    """From the same features the head's pass under autocast is that without: only the features are rounded."""
    teacher, student = pair()
    loss, work = loss_of(teacher, student, **only("semantic_weight")), batch()
    s, t = features(student.eval(), work.images), features(teacher, work.images)
    plain = loss.method(s, t, work.targets, work.indices, 0.0)["semantic"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss.method(s, t, work.targets, work.indices, 0.0)["semantic"], plain)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "s8"}, r"unknown layer of MobileNetV2 for diswot_plus: 's8'.*Valid: last, s16, s32"),
        ({"layers": "s16,s32"}, r"layer of MobileNetV2.*'s16,s32'.*Valid: last, s16, s32"),
        ({"layers": ""}, r"layer of MobileNetV2.*''.*Valid: last, s16, s32"),
        ({"map": "cam"}, r"map of diswot_plus: 'cam'.*Valid: gradcam, gxa, lrp"),
        ({"relation": "l2"}, r"relation of diswot_plus: 'l2'.*Valid: fro, cosine"),
        ({"target": "labels"}, r"target of diswot_plus: 'labels'.*Did you mean 'label'.*teacher_pred, own_pred"),
        (
            {"distance": "l2"},
            r"semantic_target='gram' with distance='l2' is undefined; valid: 'gram' with fro, cosine; 'map' with l2, ",
        ),
        (
            {"semantic_target": "map"},
            r"semantic_target='map' with distance='fro' is undefined; valid: .*l2_unit, cosine",
        ),
        ({"semantic_target": "maps"}, r"semantic_target='maps' with distance='fro' is undefined"),
        ({"weights": 1.0}, r"option of diswot_plus: 'weights'.*semantic_weight"),
    ],
)
def test_options_that_are_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        loss_of(*pair(), **options)


@pytest.mark.parametrize("temperature", [0.0, -4.0])
def test_temperature_must_be_positive(temperature):
    teacher, student = pair()
    with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
        loss_of(teacher, student, temperature=temperature)(student, batch())


def test_networks_that_do_not_fit():
    teacher, student = pair()
    with pytest.raises(ValueError, match="10 classes and the teacher 4"):
        loss_of(teacher, create_model("mobilenetv2", 10, width=0.35))
    student.backbone[0][2].inplace = True
    with pytest.raises(ValueError, match=r"backbone\.0\.2 of MobileNetV2 work in place.*inplace=False"):
        loss_of(teacher, student)


def test_batches_that_do_not_fit():
    teacher, student = pair()
    for weights in ("semantic_weight", "relation_weight"):
        with pytest.raises(ValueError, match="at least 2, got 1"):
            loss_of(teacher, student.eval(), **only(weights))(student, batch(1))
    options = {"semantic_target": "map", "distance": "cosine"}
    terms = loss_of(teacher, student, **options, **only("semantic_weight"))(student, batch(1))
    assert terms["semantic"].isfinite()  # compares an image's own two maps


def test_bare_losses_name_both_shapes():
    with pytest.raises(ValueError, match=r"\(3, 2, 2\) from the student and \(3, 4, 4\) from the teacher.*'gram'"):
        semantic_loss(torch.ones(3, 2, 2), torch.ones(3, 4, 4), "map", "cosine")
    with pytest.raises(ValueError, match=r"equal N, got \(3, 2, 2\) and \(2, 2, 2\)"):
        semantic_loss(torch.ones(3, 2, 2), torch.ones(2, 2, 2))
    with pytest.raises(ValueError, match=r"same B images, got \(3, 2, 2, 2\) and \(2, 2, 2, 2\)"):
        relation_loss(torch.ones(3, 2, 2, 2), torch.ones(2, 2, 2, 2))
    with pytest.raises(ValueError, match="unknown relation: 'l2'"):
        relation_loss(torch.ones(3, 2, 2, 2), torch.ones(3, 2, 2, 2), "l2")
    with pytest.raises(ValueError, match="unknown map: 'cam'"):
        class_map(torch.ones(1, 1, 1, 1), torch.ones(1, 2), torch.zeros(1).long(), "cam")
