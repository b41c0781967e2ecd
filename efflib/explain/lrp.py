"""Layer-wise relevance propagation (LRP) as one autograd call: every operation keeps its value, not its derivative.

For an operation with value z, a rule gives an expression p whose terms are the contributions of the inputs, and the
operation gets the derivative of p times the constant z / p. The relevance of any value is then the value times its
gradient: sums, residual additions and average pooling split it in proportion without code of their own.

    relevance of a_i = a_i * gradient = sum_j contribution_ij / p_j * relevance of z_j

The functions that a network calls are intercepted while it runs, whether modules or the code of a forward method call
them: nothing is traced, and no hook or weight of the model is touched. A batch norm right behind a convolution or
linear layer is folded into it first. Source: Bach et al. 2015; Montavon et al. 2019; section 2.9 of the DisWOT spec.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from efflib.explain.gradients import Forward
from efflib.text import unknown

LAYER_RULES = ("zero", "epsilon", "gamma", "zplus", "alpha2beta1")
FIRST_RULES = (*LAYER_RULES, "box")
PixelRange = tuple[float | Sequence[float], float | Sequence[float]]
SLACK = 1e-4  # of the range: how far pixels may lie outside it, for rounding

# Functions whose own gradient splits relevance as it should be: they add, average, pick or move values.
PLAIN = {
    *("add", "sub", "rsub", "neg", "sum", "mean", "avg_pool2d", "adaptive_avg_pool2d", "dropout", "dropout2d"),
    *("relu", "max_pool2d", "adaptive_max_pool2d", "getitem", "select", "narrow", "chunk", "split", "unbind"),
    *("cat", "concat", "stack", "pad", "flatten", "view", "view_as", "reshape", "expand", "expand_as", "repeat"),
    *("permute", "transpose", "movedim", "contiguous", "squeeze", "unsqueeze", "clone", "to", "float", "double"),
}
SCALING = {"mul", "div", "truediv"}  # plain if only one factor carries relevance
# Batch norm asks for these before it reads its input: they must not trigger the rule of the layer before it.
QUERIES = {"dim", "size", "shape", "ndim", "dtype", "device"}
WRITING = {"setitem", "copy", "zero", "fill"}  # overwrite parts or all of a tensor
# Elementwise with f(0) = 0: the relevance passes, also where f is saturated.
ACTIVATIONS = {"relu6", "hardtanh", "leaky_relu", "elu", "tanh", "silu", "gelu", "hardswish"}


@dataclass(frozen=True)
class Composite:
    """Which rule each kind of layer takes; `first` is that of the convolution that reads the pixels.

    Args:
        dense: rule of linear layers, a name of `LAYER_RULES`.
        convolution: rule of convolutions.
        first: rule of the first convolution, also "box"; by default as the others.

    Raises:
        ValueError: an unknown rule.
    """

    dense: str
    convolution: str
    first: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in ((self.dense, LAYER_RULES), (self.convolution, LAYER_RULES), (self.first, FIRST_RULES)):
            if name is not None and name not in allowed:
                raise ValueError(unknown("rule of a layer", name, allowed))


RULES = {name: Composite(name, name) for name in LAYER_RULES} | {
    "composite": Composite("epsilon", "gamma", "box"),
    "composite_zplus": Composite("epsilon", "zplus", "box"),
}


def propagate(
    function: Forward, x: Tensor, rule: str | Composite = "composite", *, epsilon: float = 1e-6, gamma: float = 0.25
) -> Tensor:
    """function(x), whose autograd gradient at x times x is the relevance of x.

    For maps inside a loss: the maps (N, h, w) are `kernels.relevance_map(x, gradient)`, with the gradient taken by
    `torch.autograd.grad(logits..., x, create_graph=True)`. Their derivative is approximate: the ratios z / p count as
    constants. Take the other loss terms from an ordinary forward pass.

    Args:
        function: a network or the rest of one, e.g. `partial(model.logits_from, "s16", as_in_eval=True)`; batch norms
            must use their running statistics.
        x: its input, which must require a gradient or depend on what does.
        rule: a name of `RULES` or a `Composite`; x are no pixels here, so the rule of the first convolution is that of
            the others.
        epsilon: of the epsilon rule.
        gamma: of the gamma rule.

    Returns:
        The values of function(x).

    Raises:
        ValueError: an unknown rule; a batch norm in train mode; x without gradient.
        NotImplementedError: the function calls an operation for which there is no rule; the message names it.
    """
    if not x.requires_grad:
        raise ValueError("propagate needs an x that requires a gradient: call x.requires_grad_() before")
    return Propagation(rule, epsilon, gamma).run(function, x)


class Propagation(TorchFunctionMode):
    """One forward pass under a rule.

    Args:
        rule, epsilon, gamma: as in `propagate`.
        pixel_range: lowest and highest pixel value, each a number or one per channel, where x are pixels; otherwise
            there is no first convolution. Between the pixels and this convolution they may be normalised, replicated
            and padded: the range goes the same way.

    After `run`, `first_inputs` is None or, if the rule of the first convolution was "box", a tensor of ones
    (N, C, H, W) whose gradient is the relevance of the pixels that this convolution read. (Black pixels have
    relevance under this rule, which no gradient times a value of 0 can give.)
    """

    def __init__(
        self, rule: str | Composite, epsilon: float, gamma: float, pixel_range: PixelRange | None = None
    ) -> None:
        super().__init__()
        self.rule = _composite(rule)
        self.epsilon = _not_negative("epsilon", epsilon)
        self.gamma = _not_negative("gamma", gamma)
        self.pixel_range = pixel_range
        self.first_inputs: Tensor | None = None
        self._first_seen = False
        self._box: tuple[Tensor, Tensor] | None = None
        # By id of the tensor, with the tensor, so that the id stays its own.
        self._linear: dict[int, _Linear] = {}
        self._overwritten: dict[int, tuple[Tensor, Tensor]] = {}

    def run(self, function: Forward, x: Tensor) -> Tensor:
        """function(x) with the values as ever and the derivatives of the rule."""
        if self.pixel_range is not None and self.rule.first == "box":
            self._box = _box_of_first(function, x, self.pixel_range)
        with self:
            outputs = function(x)
        return self._current(outputs)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if not _tensors([args, kwargs]):
            return func(*args, **kwargs)
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        name = func.__name__.strip("_")  # Tensor.__rsub__ -> "rsub", torch.relu_ -> "relu"
        if name in QUERIES or (name == "get" and func.__self__.__name__ in QUERIES):  # type: ignore[attr-defined]
            return func(*args, **kwargs)
        if name == "batch_norm":
            return self._batch_norm(func, *args, **kwargs)
        if func.__name__.endswith("_") and not func.__name__.endswith("__"):
            return self._in_place(getattr(torch, name, func), name, args, kwargs)
        if kwargs.get("inplace"):
            return self._in_place(func, name, args, {**kwargs, "inplace": False})
        return self._apply(func, name, self._current(args), self._current(kwargs))

    def _in_place(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Computed out of place; what is read later under the name of the old tensor is the new value."""
        if not _tensors(args[0]):
            raise _no_rule(f"{name} in place into a constant")
        current = self._current(args)
        result = self._apply(func, name, current, self._current(kwargs))
        for old in (args[0], current[0]):
            self._overwritten[id(old)] = (old, result)
        return result

    def _apply(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in ("conv2d", "linear"):
            return self._postponed(func, name, *args, **kwargs)
        if name in ACTIVATIONS:
            value, x = func(*args, **kwargs), args[0]
            return _share(x, value)
        if name in PLAIN or (name in SCALING and len(_tensors([args, kwargs])) == 1):
            return func(*args, **kwargs)
        if name in WRITING:
            raise _no_rule(name)
        result = func(*args, **kwargs)
        if _tensors(result):  # sizes, comparisons and the like carry no relevance
            raise _no_rule(f"{name} of two varying factors" if name in SCALING else name)
        return result

    def _postponed(
        self, func: Callable[..., Tensor], name: str, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any,
        **options: Any,
    ) -> Tensor:  # fmt: skip
        """The plain value; the rule is applied by the function that reads it, for that may be a batch norm."""

        def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return func(x, weight, bias, *rest, **options)

        first = name == "conv2d" and self.pixel_range is not None and not self._first_seen
        self._first_seen |= name == "conv2d"
        rule = self.rule.dense if name == "linear" else self.rule.convolution
        value = apply(x, weight, bias)
        layer = _Linear(apply, x, weight, bias, value, (self.rule.first or rule) if first else rule)
        self._linear[id(value)] = layer
        return value

    def _batch_norm(
        self, func: Callable[..., Tensor], x: Tensor, mean: Tensor | None, variance: Tensor | None,
        weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False, momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        """Folded into the layer before it, if there is one; otherwise a layer of its own, by the epsilon rule."""
        if training or mean is None or variance is None:
            raise ValueError(
                f"relevance needs batch norms that use their running statistics{_caller()}: call model.eval(), or "
                "as_in_eval=True for a part of mobilenetv2; statistics of the batch would mix its images"
            )
        layer = None if id(x) in self._overwritten else self._linear.get(id(x))
        if layer is None:
            x = self._current(x)
        value = func(x, mean, variance, weight, bias, False, momentum, eps)
        if layer is None:
            return value if self.rule.convolution == "zero" else _by_epsilon(value, self.epsilon)
        scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
        shift = ((0 if layer.bias is None else layer.bias) - mean) * scale + (0 if bias is None else bias)
        folded = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
        return self._by_rule(_Linear(layer.apply, layer.x, folded, shift, value, layer.rule))

    def _current(self, given: Any) -> Any:
        """Tensors (in any nesting) as they are to be read: after their rule, after what happened to them in place."""
        if isinstance(given, list | tuple):
            parts = [self._current(each) for each in given]
            return type(given)(*parts) if hasattr(given, "_fields") else type(given)(parts)
        if isinstance(given, dict):
            return {key: self._current(each) for key, each in given.items()}
        if not isinstance(given, Tensor):
            return given
        if id(given) in self._overwritten:
            return self._current(self._overwritten[id(given)][1])
        layer = self._linear.get(id(given))
        if layer is None:
            return given
        if layer.output is None:
            layer.output = self._by_rule(layer)
        return layer.output

    def _by_rule(self, layer: _Linear) -> Tensor:
        if layer.rule == "zero":
            return layer.value
        if layer.rule == "epsilon":
            return _by_epsilon(layer.value, self.epsilon)
        if layer.rule == "box":
            return self._by_box(layer)
        z, positive = layer.value, layer.contributions(1)
        if layer.rule == "gamma":
            favoured = torch.where(z > 0, positive, z - positive)
            return _share(z + self.gamma * favoured, z)
        if layer.rule == "zplus":
            # A negative output that no ReLU follows may have relevance and nothing positive: all its terms take it.
            return _share(torch.where(positive > 0, positive, z), z)
        return _share(positive, 2 * z) - _share(layer.contributions(-1), z)

    def _by_box(self, layer: _Linear) -> Tensor:
        """Contributions a w - l w+ - h w- = (a - l) w+ + (a - h) w-, each times a one whose gradient is wanted."""
        assert self._box is not None
        (low, high), x = self._box, layer.x.detach()
        if outside(x, low, high, 2 * SLACK):  # the images may be outside by SLACK
            raise ValueError(_not_in_box(x, low, high))
        self.first_inputs = torch.ones_like(x).requires_grad_()
        above = layer.apply(self.first_inputs * (x - low), layer.weight.clamp(min=0), None)
        below = layer.apply(self.first_inputs * (x - high), layer.weight.clamp(max=0), None)
        return _share(above + below, layer.value)


@dataclass
class _Linear:
    """A linear map that has been computed: value = apply(x, weight, bias); `output` is the same after its rule."""

    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    value: Tensor
    rule: str
    output: Tensor | None = None

    def contributions(self, sign: int) -> Tensor:
        """Sum of the contributions a w and b that have this sign; inputs may be negative."""
        weight = sign * self.weight
        bias = None if self.bias is None else (sign * self.bias).clamp(min=0)
        total = self.apply(self.x.clamp(min=0), weight.clamp(min=0), bias)
        if bool((self.x < 0).any()):
            total = total + self.apply(self.x.clamp(max=0), weight.clamp(max=0), None)
        return sign * total


class _Rescaled(torch.autograd.Function):
    """The value given, with the derivative of p times a constant ratio."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, value: Tensor, ratio: Tensor) -> Tensor:
        ctx.save_for_backward(ratio)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (ratio,) = ctx.saved_tensors
        return gradient * ratio, None, None


def _share(p: Tensor, value: Tensor, epsilon: float = 0.0) -> Tensor:
    """The value, whose relevance goes to the terms of p in proportion; nowhere if p is 0."""
    p_, value_ = p.detach(), value.detach()
    stable = torch.where(p_ >= 0, p_ + epsilon, p_ - epsilon)
    ratio = torch.where(stable.abs() > torch.finfo(p.dtype).tiny, value_ / stable, 0)
    return _Rescaled.apply(p, value_, ratio)


def _by_epsilon(value: Tensor, epsilon: float) -> Tensor:
    return value if epsilon == 0 else _share(value, value, epsilon)


class _Reached(Exception):
    """What the first convolution of a network reads."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


class _UntilConvolution(TorchFunctionMode):
    """Leaves a forward pass by `_Reached` at the first convolution with a varying argument."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ == "conv2d" and _tensors([args, kwargs]):
            raise _Reached(kwargs["input"] if "input" in kwargs else args[0])
        return func(*args, **kwargs)


def _box_of_first(function: Forward, images: Tensor, pixel_range: PixelRange) -> tuple[Tensor, Tensor] | None:
    """Lowest and highest value (1, C, h, w) that the first convolution reads; None if there is no convolution.

    They are what it reads of two images of one value each, the lowest and the highest pixel: right for whatever
    treats the channels of a pixel one by one and monotonically. `_by_box` checks that the images are in between.
    """
    found = []
    for bound in pixel_range:
        pixels = bound_of(bound, images).expand(1, *images.shape[1:]).requires_grad_()
        try:
            with _UntilConvolution():
                function(pixels.clone())  # a copy, so that layers may work in place
        except _Reached as reached:
            found.append(reached.x.detach())
    return (torch.minimum(*found), torch.maximum(*found)) if found else None


def _not_in_box(x: Tensor, low: Tensor, high: Tensor) -> str:
    return (
        f"the first convolution reads values from {float(x.min()):.4g} to {float(x.max()):.4g}, outside what the "
        f"network makes of the lowest and the highest pixel, {float(low.min()):.4g} to {float(high.max()):.4g} (per "
        "channel and position). The z^B rule needs pixels that are at most normalised before, each by itself: take a "
        "rule without z^B, e.g. 'gamma'"
    )


def bound_of(bound: float | Sequence[float], images: Tensor) -> Tensor:
    """A pixel value, or one per channel, in a shape that broadcasts against images (N, C, H, W)."""
    return torch.as_tensor(bound, dtype=images.dtype, device=images.device).reshape(1, -1, 1, 1)


def outside(x: Tensor, low: Tensor, high: Tensor, share: float) -> bool:
    """Whether any x lies outside its bounds (broadcast) by more than a share of the distance of the two."""
    slack = share * (high - low)
    return bool(((x < low - slack) | (x > high + slack)).any())


def _composite(rule: str | Composite) -> Composite:
    if isinstance(rule, Composite):
        return rule
    if rule not in RULES:
        raise ValueError(unknown("rule", rule, list(RULES)))
    return RULES[rule]


def _not_negative(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
    return value


def _tensors(given: Any) -> list[Tensor]:
    """The tensors that carry relevance in any nesting of lists, tuples and dictionaries."""
    if isinstance(given, Tensor):
        return [given] if given.requires_grad else []
    parts = given.values() if isinstance(given, dict) else given if isinstance(given, list | tuple) else ()
    return [found for part in parts for found in _tensors(part)]


def _no_rule(operation: str) -> NotImplementedError:
    return NotImplementedError(
        f"relevance has no rule for {operation}{_caller()}: explain a layer behind it, or take rule='gxa', which needs "
        f"the gradient only. There are rules for batch_norm, conv2d, linear, "
        f"{', '.join(sorted(PLAIN | SCALING | ACTIVATIONS))}"
    )


def _caller() -> str:
    """The module whose forward method called the function at hand, for messages."""
    for frame in inspect.stack():
        owner = frame.frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            return f" (called in {type(owner).__name__}.{frame.function})"
    return ""
