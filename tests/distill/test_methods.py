"""Every method on small networks: its own terms, its gradients, a teacher that stays, bad input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from efflib import distill
from efflib.distill import pkgd
from efflib.models import create_model, features
from efflib.training import Batch, seeded

PAIRS = [("resnet20", "resnet14"), ("vgg13", "vgg8"), ("resnet8x4", "shufflenetv2"), ("vgg8", "mobilenetv2_half")]
CLASSES, IMAGES = 7, 40
BANK = {"labels": torch.arange(IMAGES) % CLASSES, "negatives": 16}
OPTIONS = {"crd": BANK, "sakd": BANK}
PAST_WARMUP = 30.0


def batch(progress=PAST_WARMUP, n=6):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, 32, 32, generator=generator)
    indices = torch.arange(n) * 3
    return Batch(images, indices % CLASSES, indices, progress)


def pair(teacher, student):
    with seeded(0):
        return create_model(teacher, CLASSES, width=0.25), create_model(student, CLASSES, width=0.25)


def loss_of(name, teacher, student, **options):
    with seeded(1):
        method = distill.create(name, student, teacher, batch().images, **{**OPTIONS.get(name, {}), **options})
    return distill.Distillation(method, teacher)


# SCKD reads both last stages with one projector, so it fits pairs with equal last stages only.
COMBINATIONS = [
    (name, names) for name in sorted(distill.METHODS) for names in PAIRS if name != "sckd" or names == PAIRS[0]
]


@pytest.mark.parametrize(
    ("name", "names"), COMBINATIONS, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_terms_gradients_and_the_teacher(name, names):
    teacher, student = pair(*names)
    loss = loss_of(name, teacher, student)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    terms = loss(student.train(), batch())
    assert terms.keys() >= {"cross_entropy"} and all(term.ndim == 0 for term in terms.values())
    assert all(term > 0 for key, term in terms.items() if key != "cross_entropy"), terms
    torch.stack(list(terms.values())).sum().backward()
    for key, parameter in loss.method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name}: {key} receives no gradient"
    own = sum(float(p.grad.abs().sum()) for p in loss.method.parameters() if p.grad is not None)
    assert own > 0 or not [p for p in loss.method.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in student.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert not any(key.startswith("_teacher") for key in loss.state_dict())
    assert not teacher.training and all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("name", sorted(distill.METHODS))
def test_student_moves_differently_than_with_cross_entropy_and_kd(name):
    def trained(loss):
        teacher, student = pair("resnet20", "resnet14")
        loss = loss(teacher, student)
        parameters = [*student.parameters(), *(p for p in loss.parameters() if p.requires_grad)]
        optimiser = torch.optim.SGD(parameters, lr=0.05)
        for _ in range(2):
            optimiser.zero_grad()
            torch.stack(list(loss(student.train(), batch()).values())).sum().backward()
            optimiser.step()
        return torch.cat([p.detach().flatten() for p in student.parameters()])

    class Plain(torch.nn.Module):
        def forward(self, model, b):
            return {"cross_entropy": F.cross_entropy(features(model, b.images).logits, b.targets)}

    moved = trained(lambda t, s: loss_of(name, t, s))
    assert (moved - trained(lambda t, s: Plain())).abs().max() > 1e-6
    if name != "kd":
        assert (moved - trained(lambda t, s: loss_of("kd", t, s))).abs().max() > 1e-6


@pytest.mark.parametrize(("name", "first"), [("dkd", 1 / 20), ("reviewkd", 0), ("rpkd", 0), ("pkgd", 0)])
def test_warmups(name, first):
    teacher, student = pair("resnet20", "resnet14")
    loss = loss_of(name, teacher, student)
    term = "kd" if name == "dkd" else "feature"
    full, start = (loss(student.eval(), batch(progress))[term].item() for progress in (PAST_WARMUP, 0.9))
    assert start == pytest.approx(first * full, rel=1e-4)
    half = loss(student.eval(), batch(10.0))[term].item()
    assert half == pytest.approx((11 if name == "dkd" else 10) / 20 * full, rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"modules": "none"},
        {"modules": "align"},
        {"modules": "ddag"},
        {"modules": "mlff"},
        {"modules": "mlff", "mlff_side": "student"},
        {"target": "fused", "fused_stop_gradient": True},
        {"align": "abf"},
        {"attention": "separate"},
        {"attention": "separate_full", "gate": False},
        {"score": "l2", "qkv_conv": True},
        {"score": "none", "spatial_transpose": True, "decoder_last_relu": False, "share_encoder": False},
        {"ddag_trainable": False},
        pkgd.code_variant(),
        pkgd.code_variant(trained=True),
    ],
    ids=lambda o: " ".join(f"{k}={v}" for k, v in o.items())[:60],
)
def test_pkgd_options(options):
    teacher, student = pair("resnet20", "resnet14")
    loss = loss_of("pkgd", teacher, student, **options)
    terms = loss(student.train(), batch())
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.isfinite() for term in terms.values())
    trainable = [p for p in loss.method.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trainable)
    frozen = options.get("ddag_resample") or not options.get("ddag_trainable", True)
    assert frozen == any(not p.requires_grad for p in loss.method.parameters())
    if options != {"ddag_trainable": False}:  # that one differs only after the first step
        default = loss_of("pkgd", teacher, student)(student, batch())["feature"].item()
        assert terms.get("feature", torch.zeros(())).item() != pytest.approx(default, rel=1e-6)


def test_pkgd_mixing_learns_through_the_guide_only():
    teacher, student = pair("resnet20", "resnet14")
    loss = loss_of("pkgd", teacher, student)
    loss(student.train(), batch())["feature"].backward()
    gradients = [float(p.grad.abs().sum()) for p in loss.method.mixing.parameters()]
    assert sum(gradients) > 0


def test_pkgd_random_guide_is_drawn_anew_each_step_and_a_frozen_one_is_not():
    teacher, student = pair("resnet20", "resnet14")
    student.eval()
    for options, same in ((pkgd.code_variant(), False), ({"ddag_trainable": False}, True)):
        loss = loss_of("pkgd", teacher, student, **options)
        loss.method.eval()
        one, two = (loss(student, batch())["feature"].item() for _ in range(2))
        assert (one == two) == same


def test_pkgd_pads_odd_sizes():
    guide = pkgd.Guide((8, 7, 5))
    x = torch.randn(2, 8, 7, 5)
    assert guide(x, x).shape == x.shape


def test_crd_memory():
    teacher, student = pair("resnet20", "resnet14")
    loss = loss_of("crd", teacher, student)
    bank = loss.method.student_bank.clone()
    loss(student.train(), batch())
    changed = (loss.method.student_bank != bank).any(dim=1).nonzero().flatten()
    assert changed.tolist() == batch().indices.tolist()
    assert torch.allclose(loss.method.student_bank[changed].norm(dim=1), torch.ones(len(changed)))
    others = loss.method._others(torch.tensor([0, 1, 2]))
    assert (loss.method.labels[others] != torch.tensor([[0], [1], [2]])).all()
    assert {"method.student_bank", "method.normaliser", "method.step"} <= loss.state_dict().keys()
    outside = Batch(batch().images, batch().targets, batch().indices + 100, 0.0)
    with pytest.raises(ValueError, match="outside the memory bank of 40 images"):
        loss(student, outside)
    light = loss_of("crd", teacher, student, memory=False, labels=None)
    assert light(student, batch())["feature"] > 0
    with pytest.raises(ValueError, match="at least 2, got 1"):
        light(student.eval(), batch(n=1))


def test_bad_input():
    teacher, student = pair("resnet20", "resnet14")
    x = batch().images
    with pytest.raises(ValueError, match=r"unknown method: 'dkdd'.*Did you mean 'dkd'"):
        distill.create("dkdd", student, teacher, x)
    with pytest.raises(ValueError, match=r"unknown option of kd: 'temprature'.*temperature"):
        distill.create("kd", student, teacher, x, temprature=4)
    with pytest.raises(ValueError, match="above 0, got 0"):
        loss_of("kd", teacher, student, temperature=0.0)(student, batch())
    with pytest.raises(ValueError, match="7 classes and the teacher 9"):
        distill.create("kd", student, create_model("resnet20", 9, width=0.25), x)
    vgg = create_model("vgg8", CLASSES, width=0.25)
    for name in ("at", "reviewkd", "rpkd", "pkgd"):
        with pytest.raises(ValueError, match=r"3 stages \(8x32x32.*4 stages \(32x16x16"):
            distill.create(name, student, vgg, x)
    with pytest.raises(ValueError, match="full, ddag, mlff"):
        distill.create("pkgd", student, teacher, x, modules="all")


COUNTS = {
    ("resnet56", "resnet20"): (9_824, 16_044, 5_040, 13_528, 114_278, 114_278),
    ("resnet110", "resnet32"): (9_824, 16_044, 5_040, 13_528, 114_278, 114_278),
    ("resnet32x4", "resnet8x4"): (152_960, 223_884, 65_268, 191_572, 1_808_774, 1_808_774),
    ("wrn_40_2", "wrn_16_2"): (38_592, 58_700, 17_596, 49_964, 453_830, 453_830),
    ("wrn_40_2", "wrn_40_1"): (19_648, 58_700, 17_596, 49_964, 216_006, 227_270),
    ("vgg13", "vgg8"): (872_192, 1_408_272, 369_253, 1_083_429, 9_847_560, 9_847_560),
    ("resnet32x4", "shufflenetv1"): (569_728, 223_884, 65_268, 191_572, 4_607_366, 3_616_134),
    ("resnet32x4", "shufflenetv2"): (419_456, 223_884, 65_268, 191_572, 4_195_718, 3_616_134),
    ("wrn_40_2", "shufflenetv1"): (284_864, 58_700, 17_596, 49_964, 2_984_646, 1_813_190),
    ("vgg13", "mobilenetv2_half"): (771_328, 1_408_272, 369_253, 1_083_429, 9_640_712, 9_847_560),
    ("resnet50", "mobilenetv2_half"): (3_021_312, 13_988_368, 3_921_605, 11_882_053, 27_933_192, 30_171_656),
}


@pytest.mark.parametrize("names", sorted(COUNTS), ids="-".join)
def test_trainable_extras_have_the_counts_of_the_spec(names):
    """Section 2.7 of the PKGD spec: align, MLFF, DDAG plain and with qkv, ReviewKD, what RP KD adds to it."""
    from efflib.distill.common import Shapes

    student, teacher = (Shapes(*FULL[name]) for name in reversed(names))
    with torch.device("meta"):
        plain, code = pkgd.PKGD(student, teacher), pkgd.PKGD(student, teacher, score="l2", qkv_conv=True)
        review, preview = (distill.METHODS[name](student, teacher) for name in ("reviewkd", "rpkd"))
    count = {key: sum(p.numel() for p in m.parameters()) for key, m in {"r": review, "p": preview}.items()}
    parts = [sum(p.numel() for p in m.parameters()) for m in (plain.align, plain.mixing, plain.guides, code.guides)]
    parts[2] += len(plain.guides)  # the spec counts the scalar that only `score="l2"` has
    assert (*parts, count["r"], count["p"] - count["r"]) == COUNTS[names]


def _thin(*widths):
    return tuple((C, 32 >> i, 32 >> i) for i, C in enumerate(widths)), widths[-1], 100


FULL = {
    **dict.fromkeys(("resnet20", "resnet32", "resnet56", "resnet110", "wrn_40_1"), _thin(16, 32, 64)),
    **dict.fromkeys(("resnet8x4", "resnet32x4"), _thin(64, 128, 256)),
    **dict.fromkeys(("wrn_16_2", "wrn_40_2"), _thin(32, 64, 128)),
    **dict.fromkeys(("vgg8", "vgg13"), (((128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)), 512, 100)),
    "resnet50": (((256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)), 2048, 100),
    "mobilenetv2_half": (((12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)), 1280, 100),
    "shufflenetv1": (((240, 16, 16), (480, 8, 8), (960, 4, 4)), 960, 100),
    "shufflenetv2": (((116, 16, 16), (232, 8, 8), (464, 4, 4)), 1024, 100),
}


@pytest.mark.parametrize("name", ["ft", "sckd"])
def test_preparation_trains_its_part_and_freezes_it(name):
    teacher, student = pair("resnet20", "resnet14")
    loss = loss_of(name, teacher, student, prepare_epochs=4, prepare_lr=0.01 if name == "ft" else 1e-3)
    part = loss.method.paraphraser if name == "ft" else loss.method.projector
    before = {key: value.clone() for key, value in part.state_dict().items()}
    kept = {key: value.clone() for key, value in teacher.state_dict().items()}

    def batches(epoch, view):
        other = torch.Generator().manual_seed(10 * epoch + view)
        noise = 0.1 * torch.randn(batch().images.shape, generator=other)
        return [Batch(batch().images + noise, batch().targets, batch().indices, float(epoch))]

    def quality():
        maps = features(teacher, batch().images).stages[-1]
        if name == "ft":
            return F.mse_loss(part(maps), maps).item()
        views, labels = part.views(maps), batch().targets
        return distill.sckd.supervised_contrastive_loss(views.repeat(2, 1), labels.repeat(2), 0.07).item()

    with torch.no_grad():
        first = quality()
    loss.method.prepare(distill.PrepareContext(teacher, batches, torch.device("cpu")))
    with torch.no_grad():
        assert quality() < first
    assert any(not torch.equal(before[key], value) for key, value in part.state_dict().items())
    assert all(torch.equal(kept[key], value) for key, value in teacher.state_dict().items())
    loss.train()
    assert not part.training and not any(p.requires_grad for p in part.parameters())


def test_sckd_names_shapes_that_do_not_meet():
    teacher, student = pair("vgg13", "mobilenetv2_half")
    with pytest.raises(ValueError, match=r"\(40, 2, 2\) and \(128, 4, 4\)"):
        distill.create("sckd", student, teacher, batch().images)


def test_fit_trains_student_and_extras_together():
    """The whole way through the trainer: extras move, the teacher does not, each term has its curve."""
    import efflib
    from efflib.training import TrainingRecipe, fit

    data = efflib.load_dataset("digits", "train").take(range(96))
    recipe = TrainingRecipe(epochs=2, lr=0.02, batch_size=32)
    with seeded(0):
        teacher, student = (create_model(n, 10, width=0.25, in_channels=1) for n in ("resnet20", "resnet14"))
        method = distill.create("fitnet", student, teacher, torch.zeros(2, 1, 8, 8))
    kept = {key: value.clone() for key, value in teacher.state_dict().items()}
    start = method.regressor[0].weight.clone()
    history = fit(student, data, data, recipe=recipe, loss=distill.Distillation(method, teacher), precision="fp32")
    assert set(history.losses) == {"train_cross_entropy", "train_feature", "train_loss"}
    assert not torch.equal(start, method.regressor[0].weight)
    assert all(torch.equal(kept[key], value) for key, value in teacher.state_dict().items())
