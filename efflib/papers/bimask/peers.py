"""What the pages of tables 4 and 5 show: curricula at work, networks' attention, and differences between arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from IPython.display import HTML
from torch import Tensor, nn

from efflib.curricula import PROTOCOL_EPOCHS
from efflib.curricula.cbs import CBS, blurred_layers
from efflib.curricula.efficienttrain import EfficientTrain, low_frequency_crop
from efflib.curricula.lerac import LeRaC, layers_of
from efflib.curricula.pacing import pool_size, self_taught_scores
from efflib.data import NORMALISATION, ImageSet, load_dataset
from efflib.kernels.attention_loss import energy
from efflib.kernels.augment import normalise
from efflib.models import evaluating, features
from efflib.papers.bimask import claims
from efflib.papers.bimask.audit import seeds_for
from efflib.papers.pictures import examples
from efflib.report.figures import image_grid, themed
from efflib.report.html import html_table
from efflib.report.verdict import interval, interval_text, paired
from efflib.trials.recipes import get_recipe
from efflib.trials.trial import with_parents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.report.tables import TableComparison

Samples = Mapping[int, float]
_signed = partial(interval_text, signed=True)  # of a difference


# --- table 4: curricula at work ---------------------------------------------------------------------------


def curricula_strip(model: nn.Module, epochs: Sequence[int] = (0, 10, 20, 40, 130, 190)) -> Any:
    """Figure: over the 200 epochs of the protocol, the image that EfficientTrain shows and a map that CBS has blurred.

    Args:
        model: a trained network for 32 px images; the map is of its first convolution, the channel with most contrast.
        epochs: points in training, one column each.
    """
    data = examples().take([0])
    image = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    sizes = [EfficientTrain().size_at(epoch, PROTOCOL_EPOCHS, image.shape[2]) for epoch in epochs]
    crops = [low_frequency_crop(image, size)[0].clamp(0, 1).permute(1, 2, 0).numpy() for size in sizes]
    maps = _blurred_maps(model, data, epochs)
    columns = [
        f"epoch {epoch}\n{size} px, σ {CBS().sigma_at(epoch):.2f}" for epoch, size in zip(epochs, sizes, strict=True)
    ]
    alt = "One rendered object in the low frequencies that EfficientTrain shows, and a feature map as CBS blurs it, "
    return image_grid(
        [crops, maps], columns, ["EfficientTrain", "CBS"], f"{alt}at epochs {', '.join(map(str, epochs))}"
    )


def _blurred_maps(model: nn.Module, data: ImageSet, epochs: Sequence[int]) -> list[np.ndarray]:
    """One channel (h, w) of the first convolution's output under CBS, at each epoch."""
    curriculum, seen, found = CBS(), [], []
    with curriculum.attached(model), evaluating(model), torch.no_grad():
        # Registered after CBS's own hook, this one sees the blurred map.
        watch = blurred_layers(model)[0].register_forward_hook(lambda layer, inputs, out: seen.append(out[0]))
        for epoch in epochs:
            curriculum.step(epoch)
            model(normalise(torch.from_numpy(data.images), *NORMALISATION[data.name]))
            found.append(seen[-1])
        watch.remove()
    channel = int(found[-1].flatten(1).std(dim=1).argmax())
    return [each[channel].numpy() for each in found]


def schedules(model: nn.Module, images: int = 50_000, k: float = 5.0) -> Any:
    """Figure: LeRaC's rates of the layers over its first epochs, and the share of the images in the pool.

    Args:
        model: its layers, as LeRaC counts them.
        images: of the training set.
        k: LeRaC's warm-up in epochs.
    """
    names = [name for name, _ in layers_of(model)]
    shown = [0, len(names) // 3, 2 * len(names) // 3, len(names) - 1]
    epochs = np.linspace(0, k + 1, 61)
    rates = np.array([LeRaC(k=k).factors(float(epoch), 0.1, len(names)) for epoch in epochs]) * 0.1
    seen = np.arange(0, 80_001, 250)
    pools = [pool_size(int(count), images) / images for count in seen]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for place, number in enumerate(shown):
            left.semilogy(epochs, rates[:, number], label=names[number], color=f"C{place}")
        left.set(title="LeRaC", xlabel="epoch", ylabel="learning rate of a layer")
        left.legend(fontsize="small")
        right.step(seen / images, pools, where="post", color="C0")
        right.set(
            title="Self-taught, LCDnet-CL", xlabel="epoch", ylabel="share of the images in the pool", ylim=(0, 1.05)
        )

    low = f"{rates[0, -1]:.0e}"
    alt = f"Learning rates of {len(shown)} layers from {low} to 0.1 within {k:g} epochs; pools from 4 % to all images"
    return themed(draw, (8, 3.2), alt)


def easiest_and_hardest(model: nn.Module, count: int = 6, images: int = 400) -> Any:
    """Figure: the training images that a trained network finds easiest and hardest (self-taught scores)."""
    data = load_dataset("objects32", "train").take(range(images))
    found = self_taught_scores(model, data, "cifar_rd", "cpu", "fp32")
    order = found.argsort(descending=True).tolist()
    chosen = [order[:count], order[-count:]]
    rows = [[data.images[n] for n in line] for line in chosen]
    alt = (
        f"The {count} easiest and the {count} hardest of {images} rendered images, by a trained network's own certainty"
    )
    return image_grid(rows, [""] * count, ["easiest", "hardest"], alt)


def compute(table: Any, scale: str) -> Any:
    """Table: what each arm costs in all, its scorer and the network it starts from included; 1 is the baseline."""
    rows: list[dict[str, Any]] = []
    entries = list(table.entries(scale, 1))
    own: dict[tuple[str, str], float] = {}
    for cell, _, trial in entries:
        place = (cell["model"], cell["dataset"])
        flops = sum(get_recipe(each.recipe).flops(each.settings) for each in with_parents([trial]))
        own.setdefault(place, flops)  # the baseline comes first
        row = next((row for row in rows if row["arm"] == cell["method"]), None)
        if row is None:
            rows.append(row := {"arm": cell["method"]})
        row[", ".join(place)] = f"{flops / own[place]:.2f}"
    return HTML(html_table(rows, f"Operations of each arm at scale {scale}, relative to the baseline"))


def equal_compute(results: Any) -> Any:
    """Table: each arm before and after BIMask's further epochs on originals, and what BIMask has over the latter."""
    rows = []
    for model, dataset in dict.fromkeys((entry.cell["model"], entry.cell["dataset"]) for entry in results.entries):
        arm = partial(_arm, results, model, dataset)
        for method in ("baseline", *claims.CURRICULA):
            longer = arm(method + claims.EQUAL)
            row = {
                "model": model,
                "dataset": dataset,
                "arm": method,
                "less the baseline": _signed(paired(arm(method), arm("baseline"))) if method != "baseline" else "",
                "trained longer, less the baseline": _signed(paired(longer, arm("baseline"))),
                "BIMask less the longer one": _signed(paired(arm("bimask"), longer)),
            }
            rows += [row] if longer or arm(method) else []
    caption = (
        f"The same further epochs for all, scale {results.scale}: points of accuracy (last epoch), mean ± 95 % (seeds)"
    )
    return HTML(html_table(rows, caption))


def _arm(results: Any, model: str, dataset: str, method: str) -> Samples:
    return results.samples(model=model, dataset=dataset, method=method)


# --- table 5: two teachers --------------------------------------------------------------------------------


def attention_strip(networks: Mapping[str, nn.Module], images: int = 5) -> Any:
    """Figure: rendered images down, and each network's attention across: mean of squares of a late stage."""
    data = examples().take(range(images))
    pixels = normalise(torch.from_numpy(data.images), *NORMALISATION[data.name])
    maps = {name: _attention(model, pixels) for name, model in networks.items()}
    rows = [[data.images[n], *(each[n] for each in maps.values())] for n in range(len(data))]
    names = [data.classes[label] for label in data.labels]
    told = ", ".join(networks).replace("\n", " ")
    return image_grid(rows, ["image", *maps], names, f"Rendered images and the attention of {told}")


def _attention(model: nn.Module, pixels: Tensor) -> np.ndarray:
    """(N, h, w) attention of the last stage that still has 8 x 8 cells."""
    with evaluating(model), torch.no_grad():
        stage = [each for each in features(model, pixels).stages if each.shape[2] >= 8][-1]
    return energy(stage).unflatten(1, stage.shape[2:]).numpy()


def teacher_effects(results: Any) -> dict[tuple[str, str], Samples]:
    """(data set, method) -> student of the enhanced teacher less student of the plain one, paired by seed."""
    found: dict[tuple[str, str], Samples] = {}
    for entry in results.entries:
        cell = entry.cell
        if cell["method"] in claims.DISTILLERS and (cell["dataset"], cell["method"]) not in found:
            taught = [
                results.samples(dataset=cell["dataset"], method=cell["method"], setting=setting)
                for setting in claims.TEACHERS
            ]
            found[cell["dataset"], cell["method"]] = paired(taught[1], taught[0])
    return found


def teacher_figure(comparison: TableComparison) -> Any:
    """Figure: the enhanced teacher's effect on each pair with its interval, beside the printed difference."""
    effects = {pair: samples for pair, samples in teacher_effects(comparison.results).items() if samples}
    scale = comparison.results.scale
    if not effects:
        return HTML(
            f"<p>No student of both teachers is measured at scale {scale} yet, so there is nothing to draw.</p>"
        )
    found = {pair: interval(samples) for pair, samples in effects.items()}
    printed = {
        pair: difference for pair in found if (difference := _printed_effect(comparison.table, *pair)) is not None
    }
    places = list(found)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        widths = [float("nan") if each.half_width is None else each.half_width for each in found.values()]
        means = [each.mean for each in found.values()]
        axes.errorbar(means, range(len(places)), xerr=widths, fmt="o", markersize=4, capsize=3, label="measured")
        if printed:
            y = [places.index(pair) for pair in printed]
            axes.plot(list(printed.values()), y, "D", color="C1", fillstyle="none", label="printed")
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.set_yticks(range(len(places)), [f"{method}, {dataset}" for dataset, method in places])
        axes.invert_yaxis()
        axes.set_xlabel(
            "student of the enhanced teacher less student of the plain one, points (mean and 95 % interval)"
        )
        figure.legend(loc="outside lower center", ncols=2, fontsize="small")

    spoken = "; ".join(f"{method} {dataset} {each.text(signed=True)}" for (dataset, method), each in found.items())
    return themed(draw, (8, 1.4 + 0.4 * len(places)), f"Effect of the enhanced teacher at scale {scale}: {spoken}")


def teacher_headline(page: Any) -> Any:
    """The pooled effect in words, at the largest recorded scale; nothing where nothing is recorded."""
    from IPython.display import Markdown

    if not page.recorded:
        return None
    pools = _pools(teacher_effects(page.show_scale().results))
    told = "; ".join(
        f"{name}, {len(pairs)} methods: {_signed(means)}" for name, pairs, means, _ in pools if name != "all"
    )
    sentence = (
        "Students of the enhanced teacher less those of the same seed's plain one, mean over the methods measured: "
    )
    return (
        Markdown(f"{sentence}{told} points (last epoch, mean ± half the 95 % interval, number of seeds).")
        if told
        else None
    )


def pooled(comparison: TableComparison) -> Any:
    """Table: the effect pooled over methods, per data set and over both, with each seed and with each run as a sample.

    The pairs of one seed share teachers and initial weights, so that pairs and seeds are not independent samples; the
    means of different seeds are.
    """
    rows = []
    for name, pairs, means, every in _pools(teacher_effects(comparison.results)):
        printed = [_printed_effect(comparison.table, *pair) for pair in pairs]
        known = [value for value in printed if value is not None]
        rows.append(
            {
                "data set": name,
                "pairs": str(len(pairs)),
                "printed mean": f"{fmean(known):+.3f}" if known else "",
                "one sample per seed (claim e)": _signed(means),
                "one per pair and seed (not independent)": _signed(every),
            }
        )
    if not rows:
        return HTML(f"<p>No student of both teachers is measured at scale {comparison.results.scale} yet.</p>")
    caption = f"Effect of the enhanced teacher, pooled, scale {comparison.results.scale}: points, mean ± 95 % (samples)"
    return HTML(html_table(rows, caption))


Pool = tuple[str, list[tuple[str, str]], Samples, Samples]


def _pools(effects: Mapping[tuple[str, str], Samples]) -> list[Pool]:
    """(name, pairs, mean over the pairs by seed, every single difference) of each data set, and of all if several."""
    measured = {pair: samples for pair, samples in effects.items() if samples}
    groups = {dataset: [pair for pair in measured if pair[0] == dataset] for dataset, _ in measured}
    if len(groups) > 1:
        groups["all"] = list(measured)
    found: list[Pool] = []
    for name, pairs in groups.items():
        seeds = sorted(set.intersection(*(set(measured[pair]) for pair in pairs)))
        means = {seed: fmean(measured[pair][seed] for pair in pairs) for seed in seeds}
        every = dict(enumerate(value for pair in pairs for value in measured[pair].values()))
        found.append((name, pairs, means, every))
    return found


def seeds_for_a_tenth(results: Any) -> Any:
    """Table: seeds that would show a difference of 0.1 points in 80 of 100 experiments, assumed and measured spread."""
    rows = [
        {
            "spread (sd, points)": f"{spread:.2f}, assumed for one run",
            "compared": "two arms, unrelated runs",
            "seeds per arm": str(seeds_for(0.1, spread)),
        }
        for spread in (0.1, 0.15, 0.2)
    ]
    for (dataset, method), samples in teacher_effects(results).items():
        spread = interval(samples).std if len(samples) > 1 else None
        if spread:
            # The spread of a paired difference holds both arms: sqrt(2) times that of one.
            needed = seeds_for(0.1, spread / 2**0.5)
            about = {"compared": f"{method}, {dataset}: paired by seed", "seeds per arm": str(needed)}
            rows.append({"spread (sd, points)": f"{spread:.2f}, measured difference", **about})
    return HTML(html_table(rows, "Seeds that a difference of 0.1 points takes (5 % level, 80 % power)"))


def _printed_effect(table: Any, dataset: str, method: str) -> float | None:
    cells = [c for c in table.printed.numbers if (c.keys["dataset"], c.keys["method"]) == (dataset, method)]
    values = {cell.keys["setting"]: cell.value for cell in cells}
    return values[claims.TEACHERS[1]] - values[claims.TEACHERS[0]] if values else None
