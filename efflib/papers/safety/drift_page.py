"""What the page of the drift check shows: tables, a figure, and sliders that repeat the simulation in the browser.

The sliders need no kernel: a script on the page repeats `drift.bits_after` in float32 (Math.fround after every
operation; a test compares both). Where the book's own script draws Plotly figures, the curve moves too; elsewhere the
size is told in words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from efflib.papers.safety.audit import CNN, DECODER, ROMAN, SHORT, load, log_lines, published_sizes
from efflib.papers.safety.drift import (
    EXPONENT,
    GAMMA,
    NETWORKS,
    PUBLISHED,
    START_BITS,
    Optimiser,
    bits_after,
    code_width,
    sizes_after,
    steps_to,
    tight_start_bytes,
)
from efflib.report.audit import findings_for
from efflib.report.figures import one_legend, themed
from efflib.report.html import html_table
from efflib.report.notebook import finding_list

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLAMP_BITS = 8  # about where a trained weight of 0.25 to 0.5 no longer fits at 2^EXPONENT
LONGEST = 32_000  # steps on the horizontal axes
LOOP = 10_000  # steps of the published loops
_NEAR = 0.1  # bytes: the published notebooks print one decimal
NAMES = {CNN: "CNN (MNIST)", DECODER: "decoder (names)"}


# --- words and tables -------------------------------------------------------------------------------------


def headline() -> Any:
    """What held: how many published sizes and log lines the simulation gives, and what it needs."""
    from IPython.display import Markdown

    sizes, lines = published_sizes(), log_lines()
    whole = [size for size in sizes if abs(size.match.off) < _NEAR]
    text = (
        f"**What held:** the optimiser alone gives {sum(line.same for line in lines)} of {len(lines)} quoted log lines "
        f"of the decoder to the printed digit, and passes within {_NEAR:g} bytes of {len(whole)} of {len(sizes)} "
        "further published sizes. No data, no network, no GPU; a re-run costs seconds."
    )
    return Markdown(text)


def printed_table() -> Any:
    """Every published size of a run from 32 bits beside the nearest one that the drift passes through."""
    rows = [
        {
            "network": SHORT[size.network],
            "published in": size.where,
            "row": size.method,
            "published, bytes": _bytes(size.match.wanted, 1),
            "simulated, bytes": _bytes(size.match.size, 2),
            "after steps": f"{size.match.steps:,}",
            "steps of the loop": "" if size.steps_stated is None else f"{size.steps_stated:,}",
            "apart, bytes": f"{size.match.off:+.2f}",
            "one step, bytes": f"{size.match.spacing:.1f}",
            "bits per weight": f"{8 * size.match.size / NETWORKS[size.network].weights:.3f}",
        }
        for size in published_sizes()
    ]
    return _table(rows, "Published sizes, and the drift of the optimiser alone", "printed")


def log_table() -> Any:
    """The decoder's log beside the drift, line by line."""
    rows = [
        {
            "step in the log": f"{line.step:,}",
            "optimiser steps": f"{line.step + 1:,}",
            "logged, bytes": f"{line.logged:,}",
            "simulated, bytes": _bytes(line.simulated, 2),
            "logged Q": f"{line.q_logged:.4f}",
            "simulated Q": f"{line.q_simulated:.4f}",
            "same": line.same,
        }
        for line in log_lines()
    ]
    return _table(rows, "The decoder's published log, line by line: AdamW, 32 bits at the start", "log")


def gamma_table(gammas: Sequence[float] = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)) -> Any:
    """Size of the CNN after the published loop for many gammas: Adam, Adam with a large eps, plain descent."""
    cnn, adam = NETWORKS[CNN], PUBLISHED[CNN]
    damped = Optimiser("adam", eps=load().facts["self_compressing"]["eps"])
    rows = []
    for gamma in gammas:
        descended = sum(
            layer.weights * (START_BITS - adam.learning_rate * cnn.gradient(layer.inputs, gamma) * LOOP) / 8
            for layer in cnn.layers
        )
        rows.append(
            {
                "gamma": f"{gamma:g}",
                "gradient of b, conv1 to conv4": f"{cnn.gradient(25, gamma):.1e} to {cnn.gradient(576, gamma):.1e}",
                f"Adam, eps {adam.eps:g}": _bytes(sizes_after(CNN, LOOP, adam, gamma=gamma)[-1], 0),
                f"Adam, eps {damped.eps:g}": _bytes(sizes_after(CNN, LOOP, damped, gamma=gamma)[-1], 0),
                "plain gradient descent": _bytes(descended, 0),
            }
        )
    return _table(rows, f"Bytes of the CNN after {LOOP:,} steps of rate 0.001 from {START_BITS:g} bits", "gamma")


def rounding_table(learning_rate: float) -> Any:
    """What a step of this size becomes in float32, by the range of b."""
    rows = []
    for low in (16, 8, 4, 2):
        unit = float(np.spacing(np.float32(low)))
        units = round(learning_rate / unit)
        rows.append(
            {
                "b between": f"{low} and {2 * low}",
                "unit of float32": f"2^{int(np.log2(unit))}",
                "units in the rate": f"{learning_rate / unit:.3f}",
                "rounded": f"{units:,}",
                "b falls per step by": f"{units * unit:.8f}",
            }
        )
    return _table(rows, f"A step of {learning_rate:g} in single precision", "rounding")


def own_table(optimiser: Optimiser, initial_bits: float, steps: int, gamma: float) -> Any:
    """Both networks under this page's own parameters."""
    rows = []
    for name, network in NETWORKS.items():
        sizes = sizes_after(name, steps, optimiser, initial_bits, gamma)
        reached = _first_below(name, optimiser, initial_bits, gamma)
        rows.append(
            {
                "network": NAMES[name],
                "bytes at the start": _bytes(sizes[0], 0),
                f"bytes after {steps:,} steps": _bytes(sizes[-1], 2),
                "bits per weight": f"{8 * sizes[-1] / network.weights:.4f}",
                f"steps to {CLAMP_BITS} bits": reached,
            }
        )
    told = (
        f"{optimiser.name}, rate {optimiser.learning_rate:g}, weight decay {optimiser.weight_decay:g}, gamma {gamma:g}"
    )
    return _table(rows, f"This page's own parameters: {told}, {initial_bits:g} bits at the start", "own")


def _first_below(name: str, optimiser: Optimiser, initial_bits: float, gamma: float) -> str:
    if initial_bits <= CLAMP_BITS:
        return "starts there"
    try:
        return f"{steps_to(NETWORKS[name].bytes_per_bit * CLAMP_BITS, name, optimiser, initial_bits, gamma).steps:,}"
    except ValueError:
        return "not reached"


def width_table() -> Any:
    """Bits that a weight's code needs, by the size of the weight."""
    rows = [
        {
            "largest weight of a channel": f"{weight:g}",
            f"its code, weight / 2^{EXPONENT}": round(weight * 2.0**-EXPONENT),
            "clipped below so many bits": code_width(weight),
        }
        for weight in (0.03, 0.1, 0.2, 0.25, 0.45, 0.6)
    ]
    return _table(rows, "Where the clamp begins", "widths")


def clamp_table() -> Any:
    """Steps until the published settings reach the clamp, beside the published loops."""
    rows = []
    for name, network in NETWORKS.items():
        match = steps_to(CLAMP_BITS * network.bytes_per_bit, name)
        rows.append(
            {
                "network": NAMES[name],
                "one bit per weight, bytes": _bytes(network.bytes_per_bit, 0),
                f"steps from {START_BITS:g} to {CLAMP_BITS} bits": f"{match.steps:,}",
                "bytes then": _bytes(match.size, 0),
                "steps of the published loop": f"{LOOP:,}",
            }
        )
    return _table(rows, "When the clamp would begin, with the published settings", "clamp")


def start_table() -> Any:
    """Bits of freshly drawn weights, by layer, and what they take together."""
    rows = []
    for name, network in NETWORKS.items():
        for inputs, weights in network.groups.items():
            rows.append(
                {
                    "network": SHORT[name],
                    "weights per channel": inputs,
                    "weights in all": f"{weights:,}",
                    "largest drawn weight": f"{inputs**-0.5:.3f}",
                    "bits that its code needs": code_width(inputs**-0.5),
                }
            )
    words = ", ".join(f"{SHORT[n]} {_bytes(tight_start_bytes(n), 0)} bytes" for n in NETWORKS)
    return _table(rows, f"Codes of freshly drawn weights. In all: {words}", "start")


def torch_check(steps: int, gradient: float = 1e-4, initial_bits: float = START_BITS) -> Any:
    """The simulation beside torch.optim on one float32 parameter, bit by bit."""
    import torch

    kinds = {"Adam": PUBLISHED[CNN], "AdamW": PUBLISHED[DECODER]}
    rows = []
    for name, optimiser in kinds.items():
        parameter = torch.nn.Parameter(torch.tensor([initial_bits]))
        options = {"lr": optimiser.learning_rate, "weight_decay": optimiser.weight_decay, "foreach": False}
        real = getattr(torch.optim, name)([parameter], **options)
        parameter.grad = torch.tensor([gradient])
        found = np.empty(steps + 1, dtype=np.float32)
        found[0] = initial_bits
        for step in range(1, steps + 1):
            real.step()
            found[step] = parameter.item()
        own = bits_after(steps, gradient, optimiser, initial_bits)
        rows.append(
            {
                "optimiser": f"torch.optim.{name}",
                "b at the end, torch": f"{found[-1]:.9g}",
                "b at the end, simulated": f"{own[-1]:.9g}",
                "steps with the same bits": f"{int((found[1:] == own[1:]).sum()):,} of {steps:,}",
            }
        )
    return _table(rows, f"The simulation against torch.optim, {steps:,} steps on a gradient of {gradient:g}", "torch")


def audit() -> Any:
    """The audit findings that concern this page, each linking to its place on the audit page."""
    from efflib.papers.safety.audit import findings

    return finding_list(findings_for(findings("drift"), "drift"))


def _table(rows: Sequence[dict[str, Any]], caption: str, name: str) -> Any:
    from IPython.display import HTML

    return HTML(html_table(rows, caption, f"safety-drift-{name}"))


def _bytes(size: float, places: int) -> str:
    """Bytes with thousands separators; published whole numbers stay whole."""
    text = f"{size:,.{places}f}"
    return text.removesuffix(".0")


# --- the figure -------------------------------------------------------------------------------------------


def figure(optimiser: Optimiser, initial_bits: float, steps: int, gamma: float) -> Any:
    """The published sizes on the line of the drift, for both networks, with this page's own settings beside it."""
    log = load().log("decoder_main")

    def draw(figure: Figure) -> None:
        for axes, name in zip(figure.subplots(1, 2), NETWORKS):
            network, own = NETWORKS[name], sizes_after(name, steps, optimiser, initial_bits, gamma)
            line = sizes_after(name, LONGEST)
            clamp = CLAMP_BITS * network.bytes_per_bit / 1000
            label = f"below {CLAMP_BITS} bits: weights are clipped"
            axes.axhspan(0, clamp, color="grey", alpha=0.25, linewidth=0, label=label)
            for sizes, style, whose in ((line, "C0-", "published"), (own, "C3--", "this page's")):
                axes.plot(*_thinned(sizes), style, label=f"optimiser alone, {whose} settings")
            if name == DECODER:
                places = [row["step"] + 1 for row in log], [row["bytes"] / 1000 for row in log]
                axes.plot(*places, "o", color="C1", markersize=4, fillstyle="none", label="published log")
            shown = [size for size in published_sizes() if size.network == name]
            for marker, printed in (("D", True), ("s", False)):
                chosen = [size for size in shown if (size.where == ROMAN[name]) == printed]
                label = "sizes of the tables" if printed else "sizes of other published runs"
                if chosen:
                    x, y = [size.match.steps for size in chosen], [size.match.wanted / 1000 for size in chosen]
                    axes.plot(x, y, marker, color="C2" if printed else "C1", fillstyle="none", label=label)
            axes.set(title=NAMES[name], xlabel="optimiser steps", xlim=(-500, LONGEST), ylim=(0, None))
        figure.axes[0].set_ylabel("size, kB (1,000 bytes)")
        one_legend(figure, 3)

    return themed(draw, (9, 4.2), _spoken())


def _thinned(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps and kB of every hundredth point, the last one included."""
    places = np.unique(np.append(np.arange(0, len(sizes), 100), len(sizes) - 1))
    return places, sizes[places] / 1000


def _spoken() -> str:
    points = [
        f"{SHORT[s.network]} {s.method} {s.match.wanted:,.0f} bytes at step {s.match.steps:,}"
        for s in published_sizes()
    ]
    return "Size against optimiser steps; the drift is a line that passes through: " + "; ".join(points)


# --- sliders ----------------------------------------------------------------------------------------------

RATES = (1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 7e-3, 1e-2)  # the paper's range
_BOX, _PLOT = "safety-drift-explorer", "safety-drift-plot"
_EVERY = 100  # steps between points of the curve


def explorer() -> Any:
    """Sliders for learning rate, bits at the start and steps: the size is simulated anew in the browser."""
    from IPython.display import HTML

    return HTML(explorer_html())


def explorer_html() -> str:
    """The sliders as HTML with their data and script; they begin at the published loop of the CNN."""
    options = "".join(_radio("network", name, words, name == CNN) for name, words in NAMES.items())
    kinds = {"adam": "Adam", "adamw": f"AdamW, weight decay {PUBLISHED[DECODER].weight_decay:g}"}
    choices = "".join(_radio("optimiser", name, words, name == "adam") for name, words in kinds.items())
    start = {"rate": RATES.index(1e-3), "bits": int(START_BITS), "steps": LOOP}
    sliders = "".join(
        f'<label for="{_BOX}-{name}">{words}</label><input type="range" id="{_BOX}-{name}" name="{name}" min="{low}" '
        f'max="{high}" step="1" value="{start[name]}"><output for="{_BOX}-{name}" name="{name}-shown"></output>'
        for name, words, low, high in (
            ("rate", "learning rate", 0, len(RATES) - 1),
            ("bits", "bits at the start", 1, int(START_BITS)),
            ("steps", "steps", 0, LONGEST),
        )
    )
    buttons = "".join(f'<button type="button">{escape(point["label"])}</button>' for point in _points())
    return (
        f"<style>{_STYLE}</style>"
        f'<form id="{_BOX}" class="drift-explorer" onsubmit="return false" aria-label="Simulate the drift">'
        f'<div class="choices"><span>{options}</span><span>{choices}</span></div>'
        f'<div class="sliders">{sliders}</div>'
        f'<p class="points">Published: {buttons}</p>'
        f'<p class="answer" aria-live="polite"><strong>{escape(answer(CNN, LOOP))}</strong></p>'
        f'<div class="nb-plotly" id="{_PLOT}"></div>'
        f'<script type="application/json" data-for="{_PLOT}">{_json(_plot())}</script>'
        f'<script type="application/json" class="drift-data">{_json(_data())}</script>'
        f"</form><script>{_SCRIPT}</script>"
    )


def answer(network: str, steps: int) -> str:
    """What the sliders say for a network's published optimiser after so many steps from 32 bits."""
    size = sizes_after(network, steps)[-1]
    bits = 8 * size / NETWORKS[network].weights
    share = 100 * bits / START_BITS
    return (
        f"After {steps:,} steps: {bits:.4f} bits per weight, {size:,.1f} bytes, {share:.1f} % of {START_BITS:g} bits."
    )


def _radio(name: str, value: str, words: str, chosen: bool) -> str:
    checked = " checked" if chosen else ""
    return f'<label><input type="radio" name="{name}" value="{value}"{checked}> {escape(words)}</label> '


def _points() -> list[dict[str, Any]]:
    """The published sizes as settings of the sliders."""
    return [
        {
            "label": f"{SHORT[size.network]}, {size.where if size.steps_stated is None else 'notebook'}, {size.method}",
            "network": size.network,
            "optimiser": PUBLISHED[size.network].name,
            "steps": size.match.steps,
            "size": size.match.wanted,
        }
        for size in published_sizes()
        if abs(size.match.off) < _NEAR
        or size.steps_stated is None  # not the run whose settings were changed on the way
    ]


def _data() -> dict[str, Any]:
    """What the script needs: networks as (weights per channel, weights), settings, points."""
    adam = PUBLISHED[CNN]
    networks = {
        name: {"groups": list(network.groups.items()), "weights": network.weights, "scalars": network.scalars}
        for name, network in NETWORKS.items()
    }
    return {
        "networks": networks,
        "rates": RATES,
        "betas": adam.betas,
        "eps": adam.eps,
        "gamma": GAMMA,
        "decays": {"adam": 0.0, "adamw": PUBLISHED[DECODER].weight_decay},
        "longest": LONGEST,
        "every": _EVERY,
        "clamp": CLAMP_BITS,
        "widest": START_BITS,
        "points": _points(),
    }


def _plot() -> dict[str, Any]:
    """The figure at the start, for the book's script and Plotly."""
    line = sizes_after(CNN, LONGEST)
    curve = {
        "type": "scatter",
        "mode": "lines",
        "name": "optimiser alone",
        "x": list(range(0, LONGEST + 1, _EVERY)),
        "y": [round(float(size), 1) for size in line[::_EVERY]],
    }
    here = {
        "type": "scatter",
        "mode": "markers",
        "name": "chosen steps",
        "marker": {"size": 12, "symbol": "diamond"},
        "x": [LOOP],
        "y": [round(float(line[LOOP]), 1)],
    }
    layout = {
        "height": 420,
        "margin": {"l": 70, "r": 20, "t": 20, "b": 50},
        "showlegend": False,
        "xaxis": {"title": {"text": "optimiser steps"}, "range": [0, LONGEST]},
        "yaxis": {"title": {"text": "bytes"}, "range": [0, 1.05 * START_BITS * NETWORKS[CNN].bytes_per_bit]},
        "shapes": [],
        "annotations": [],
    }
    return {"data": [curve, here], "layout": layout}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace("</", "<\\/")


_STYLE = """
.drift-explorer .choices span { display: block; }
.drift-explorer .choices label { display: inline-block; margin-right: 1.5em; }
.drift-explorer .sliders { display: grid; grid-template-columns: max-content minmax(0, 1fr) 5.5em; gap: .3em .8em; }
.drift-explorer input[type=range] { width: 100%; }
.drift-explorer output { text-align: right; font-variant-numeric: tabular-nums; }
.drift-explorer button { color: inherit; background: transparent; border: 1px solid currentColor; border-radius: .3em;
  margin: .15em .3em .15em 0; padding: .05em .5em; font-size: .875em; }
.drift-explorer .answer { font-variant-numeric: tabular-nums; margin-block: .8em; }
"""

# Repeats drift.bits_after: f() rounds to float32 after every operation, as float32 arithmetic does.
_SCRIPT = """
(() => {
  "use strict";
  const box = document.getElementById("__BOX__"), plot = document.getElementById("__PLOT__");
  const data = JSON.parse(box.querySelector(".drift-data").textContent), f = Math.fround, cache = new Map();

  function bitsAfter(steps, gradient, { rate, decay, bits: start }) {
    const [beta1, beta2] = data.betas, towards = f(1 - beta1), keep2 = f(beta2), add2 = f(1 - beta2), eps = f(data.eps);
    const keep = f(1 - rate * decay), given = f(gradient), bits = new Float32Array(steps + 1);
    let b = f(start), mean = 0, square = 0;
    bits[0] = b;
    for (let step = 1; step <= steps; step += 1) {
      const g = b > 0 ? given : 0;
      if (decay) b = f(b * keep);
      mean = f(mean + f(towards * f(g - mean)));
      square = f(f(square * keep2) + f(f(add2 * g) * g));
      const scale = f(-rate / (1 - beta1 ** step)), root = f(Math.sqrt(1 - beta2 ** step));
      b = f(b + f(f(scale * mean) / f(f(f(Math.sqrt(square)) / root) + eps)));
      bits[step] = b;
    }
    return bits;
  }

  function sizesAfter(name, chosen) {
    const key = JSON.stringify([name, chosen]);
    if (!cache.has(key)) {
      const network = data.networks[name], sizes = new Float64Array(data.longest + 1);
      for (const [inputs, weights] of network.groups) {
        const bits = bitsAfter(data.longest, data.gamma * inputs / network.scalars, chosen);
        bits.forEach((b, step) => { sizes[step] += weights * Math.max(b, 0) / 8; });
      }
      cache.clear();
      cache.set(key, sizes);
    }
    return cache.get(key);
  }

  const told = (value, places) => value.toLocaleString("en-US",
    { minimumFractionDigits: places, maximumFractionDigits: places });
  const field = (name) => box.elements.namedItem(name);

  function show() {
    const name = field("network").value, network = data.networks[name], steps = Number(field("steps").value);
    const chosen = { rate: data.rates[field("rate").value], decay: data.decays[field("optimiser").value],
      bits: Number(field("bits").value) };
    const sizes = sizesAfter(name, chosen), size = sizes[steps], bits = 8 * size / network.weights;
    field("rate-shown").value = chosen.rate;
    field("bits-shown").value = chosen.bits;
    field("steps-shown").value = told(steps, 0);
    let text = `After ${told(steps, 0)} steps: ${told(bits, 4)} bits per weight, ${told(size, 1)} bytes, `
      + `${told(100 * bits / data.widest, 1)} % of ${data.widest} bits.`;
    if (bits < data.clamp) {
      text += ` Below about ${data.clamp} bits weights are clipped, and a real run leaves this line.`;
    }
    box.querySelector(".answer strong").textContent = text;
    redraw(name, network, sizes, steps);
  }

  function redraw(name, network, sizes, steps) {
    const holder = box.querySelector("script[data-for]"), spec = JSON.parse(holder.textContent), x = [], y = [];
    for (let step = 0; step <= data.longest; step += data.every) { x.push(step); y.push(sizes[step]); }
    const clamp = data.clamp * network.weights / 8, range = [0, 1.05 * data.widest * network.weights / 8];
    const points = data.points.filter((point) => point.network === name);
    const shapes = points.map((point) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: point.size, y1: point.size,
      line: { color: "grey", width: 1, dash: "dot" } }));
    shapes.push({ type: "rect", xref: "paper", x0: 0, x1: 1, y0: 0, y1: clamp, line: { width: 0 },
      fillcolor: "rgba(128,128,128,0.25)" });
    const annotations = [{ xref: "paper", x: 0.02, y: clamp / 2, xanchor: "left", showarrow: false,
      text: `below ${data.clamp} bits: weights are clipped` }];
    spec.data[0].x = x; spec.data[0].y = y; spec.data[1].x = [steps]; spec.data[1].y = [sizes[steps]];
    Object.assign(spec.layout, { shapes, annotations });
    spec.layout.yaxis.range = range;
    holder.textContent = JSON.stringify(spec);  // what the book's script draws when it loads or the theme changes
    if (window.Plotly && plot.data) {
      window.Plotly.update(plot, { x: [x, [steps]], y: [y, [sizes[steps]]] },
        { shapes, annotations, "yaxis.range": range });
    }
  }

  box.addEventListener("input", show);
  box.querySelectorAll("button").forEach((button, place) => button.addEventListener("click", () => {
    const point = data.points[place];
    field("network").value = point.network;
    field("optimiser").value = point.optimiser;
    field("rate").value = data.rates.indexOf(0.001);
    field("bits").value = data.widest;
    field("steps").value = point.steps;
    show();
  }));
  show();
})();
""".replace("__BOX__", _BOX).replace("__PLOT__", _PLOT)
