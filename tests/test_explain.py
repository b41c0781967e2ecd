"""Saliency and Grad-CAM: the closed form of BIMask's spec, captum as the oracle, the pitfalls, and bad input."""

from __future__ import annotations

import captum.attr
import pytest
import torch
import torch.nn.functional as F

from efflib.explain import find_layer, frozen, grad_cam, localisation, pooling, saliency
from efflib.models import convolutions, create_model
from efflib.training import seeded

MODELS = ("vgg8", "resnet20", "wrn_52_2")


def network(name, dtype=torch.float64):
    """A narrow network with non-trivial batch-norm statistics, in eval mode."""
    with seeded(0, name):
        model = create_model(name, 10, width=0.5).to(dtype)
        model.train()(torch.randn(16, 3, 32, 32, dtype=dtype))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    return model.eval()


def images(n=4, dtype=torch.float64):
    return torch.randn(n, 3, 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(5))


def closed_form(model, x):
    """s = 1/(D h w) sum_d |W_cd| |gamma_d| / sqrt(v_d + eps) 1[u > 0]  (spec, section 2.3)."""
    seen = {}
    handle = pooling(model).register_forward_pre_hook(lambda m, inputs: seen.update(map=inputs[0]))
    with torch.no_grad():
        classes = model(x).argmax(1)
    handle.remove()
    norm = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)][-1]
    head = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
    gain = norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
    active = (seen["map"] > 0).to(x.dtype)
    D, h, w = active.shape[1:]
    return torch.einsum("nd,d,ndij->nij", head.weight[classes].abs(), gain, active).detach() / (D * h * w)


@pytest.mark.parametrize("name", MODELS)
def test_layer_gradient_has_the_closed_form(name):
    model, x = network(name), images()
    # For WRN the map before the last batch norm is the block's sum: its gradient is that of the last convolution.
    expected = F.interpolate(closed_form(model, x)[:, None], size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    got = saliency(model, x)
    assert got.shape == (4, 32, 32)
    assert (got - expected).abs().max() < 1e-10 * expected.max() + 1e-12
    assert got.flatten(1).std(1).min() > 0


def test_toy_of_the_spec():
    """D = 2, 2x2 map, W_c = (1, -3), unit batch-norm gain, gates given."""
    gates = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    weights = torch.tensor([1.0, -3.0])
    u = (gates * 2 - 1).requires_grad_(True)
    score = (u.relu().mean(dim=(1, 2)) * weights).sum()
    (gradient,) = torch.autograd.grad(score, u)
    assert gradient.abs().mean(0).tolist() == [[0.125, 0.5], [0.0, 0.375]]


@pytest.mark.parametrize("name", MODELS)
def test_cheap_gradient_equals_full_autograd(name):
    model, x = network(name), images()
    layer = find_layer(model, -2)
    seen = {}
    handle = layer.register_forward_hook(lambda m, i, out: seen.update(out=out))
    logits = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), seen["out"])
    full = F.interpolate(gradient.abs().mean(1)[:, None], size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    assert (saliency(model, x, layer=-2) - full).abs().max() < 1e-12


def test_grad_cam_equals_captum():
    model, x = network("resnet20", torch.float32), images(dtype=torch.float32)
    target = torch.tensor([1, 5, 3, 3])
    layer = dict(model.named_modules())["stage2.1"]
    oracle = captum.attr.LayerGradCam(model, layer).attribute(x, target, relu_attributions=True)
    oracle = F.interpolate(oracle, size=(32, 32), mode="bilinear", align_corners=False)[:, 0].detach()
    ours = grad_cam(model, x, layer="stage2.1", target=target)
    assert (ours - oracle).abs().max() <= 1e-5 * oracle.max()
    assert torch.equal(saliency(model, x, layer="stage2.1", target=target, method="gradcam"), ours)


def test_input_gradient_equals_captum():
    model, x = network("vgg8", torch.float32), images(dtype=torch.float32)
    target = torch.tensor([0, 9, 4, 4])
    oracle = captum.attr.Saliency(model).attribute(x.clone().requires_grad_(), target).amax(1)
    assert torch.allclose(saliency(model, x, method="input_grad", target=target), oracle, rtol=1e-4, atol=1e-7)


def test_gradient_before_the_pooling_is_constant_in_space():
    """Why the raw convolution is hooked (A3): at the pooling's input the gradient has no order of pixels."""
    model, x = network("resnet20"), images()
    constant = saliency(model, x, layer="pooling input").flatten(1)
    assert constant.mean() > 0 and constant.std(1).max() < 1e-12 * constant.mean()


@pytest.mark.parametrize(
    "options", [{"method": "grad_x_act"}, {"reduce": "max_abs"}, {"reduce": "abs_sum"}, {"score": "prob"}]
)
def test_variants_differ_from_the_default(options):
    model, x = network("resnet20"), images()
    default, other = saliency(model, x), saliency(model, x, **options)
    assert other.shape == default.shape and torch.isfinite(other).all()
    assert (other / other.amax() - default / default.amax()).abs().max() > 1e-3


def test_model_is_left_as_it_was():
    model = create_model("resnet14", 10, width=0.5).train()
    model.stage1.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    saliency(model, images(2, torch.float32))
    assert model.training and all(m.training for m in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="inside"), frozen(model):
        raise RuntimeError("inside")
    assert model.training


def test_batches_do_not_mix():
    model, x = network("vgg8", torch.float32), images(6, torch.float32)
    whole, parts = saliency(model, x), torch.cat([saliency(model, x[:1]), saliency(model, x[1:])])
    assert (whole - parts).abs().max() <= 1e-6 * whole.max()


def test_bad_input():
    model, x = create_model("resnet14", 10, width=0.5), images(2, torch.float32)
    with pytest.raises(ValueError, match=r"no layer 'stage9'.*stage3.1.conv2"):
        saliency(model, x, layer="stage9")
    with pytest.raises(ValueError, match=f"from -{len(convolutions(model))} to"):
        saliency(model, x, layer=-99)
    with pytest.raises(ValueError, match="layer_grad, input_grad"):
        saliency(model, x, method="gradients")
    with pytest.raises(ValueError, match="mean_abs, max_abs"):
        saliency(model, x, reduce="sum")
    with pytest.raises(ValueError, match="logit, logprob, prob"):
        saliency(model, x, score="loss")
    with pytest.raises(ValueError, match="predicted, got 'true'"):
        saliency(model, x, target="true")
    with pytest.raises(ValueError, match="one class per image"):
        saliency(model, x, target=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="no global average pooling"):
        grad_cam(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten()), x)


def test_localisation_by_hand():
    objects = torch.zeros(2, 2, 2, dtype=torch.bool)
    objects[:, 0, 0] = True
    maps = torch.tensor([[[3.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [2.0, 0.0]]])
    found = localisation(maps, objects)
    assert found["pointing"] == 0.5 and found["area"] == 0.25
    assert found["inside"] == pytest.approx((0.75 + 0.25) / 2)
    # Second image: the object pixel beats one background pixel, ties with one, loses to one.
    assert found["auc"] == pytest.approx((1 + 0.5) / 2)
    ties = localisation(torch.ones(2, 2, 2), objects)
    assert ties == {"pointing": 0.25, "inside": 0.25, "auc": 0.5, "area": 0.25}


def test_localisation_bad_input():
    with pytest.raises(ValueError, match="alike"):
        localisation(torch.ones(2, 2, 2), torch.ones(2, 3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="object and background"):
        localisation(torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))
