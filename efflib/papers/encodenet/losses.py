"""What the pages of tables 1 and 2 show: losses on comparable terms, converted images, costs, and how gains arise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from IPython.display import HTML
from torch import Tensor

from efflib.data import ImageSet
from efflib.papers.baselines import new_model, split
from efflib.papers.encodenet import arms
from efflib.papers.encodenet.audit import accuracy_deviation, difference_deviation, findings
from efflib.papers.encodenet.autoencoder import ConvertingAutoencoder, converted
from efflib.papers.encodenet.codebook import Codebook
from efflib.papers.encodenet.cost import Cost, cost_of
from efflib.papers.features import labels_of
from efflib.papers.pictures import as_uint8, trained_model
from efflib.report.figures import image_grid, themed
from efflib.report.html import html_table, sentence
from efflib.report.measures import measure_of
from efflib.report.verdict import Interval, interval, interval_text, paired
from efflib.training import normalisation, predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.report.tables import TableComparison
    from efflib.trials import Store, Trial

TARGETS, SPLITS = ("class", "cluster"), ("train", "test")
SPLIT_NAMES = {"train": "training images", "test": "test images"}
NAMES = {
    "encodenet": "encoder frozen (literal)",
    "finetune": "all layers fine-tuned",
    "baseline_long": "baseline of equal budget",
}


# --- table 1: losses --------------------------------------------------------------------------------------


def errors_table(results: Any) -> Any:
    """Table: the loss of every autoencoder beside what an output without any or with half the knowledge would cost."""
    metrics = ("train_mse", "test_mse", "constant_mse", "class_known_mse", "train_nmse", "test_nmse")
    caption = f"Losses on comparable terms, scale {results.scale}: MSE per value of an image in [0, 1]; NMSE is the "
    return _measured(results, metrics, f"{caption}MSE over that of the best constant output; mean ± 95 % (seeds)")


def recognition_table(results: Any) -> Any:
    """Table: whether the outputs show the right class, however near they are to their targets."""
    caption = f"Which class do the outputs show? Scale {results.scale}, test images, mean ± 95 % (seeds)"
    return _measured(results, ("nearest_representative", "decoded_accuracy"), caption)


def _measured(results: Any, metrics: Sequence[str], caption: str) -> Any:
    """One row per cell with the metrics that any of its records has."""
    measures = [measure_of(results.table, metric) for metric in metrics]
    rows = []
    for cell in _distinct(entry.cell for entry in results.entries):
        texts = {each.title: interval_text(each.samples(results, **cell), each.decimals) for each in measures}
        rows += [{**cell, **texts}] if any(texts.values()) else []
    return HTML(html_table(rows, caption) if rows else f"<p>Nothing is measured at scale {results.scale} yet.</p>")


def _distinct(cells: Iterable[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for cell in cells:
        if dict(cell) not in found:
            found.append(dict(cell))
    return found


def relative_headline(page: Any) -> Any:
    """What clustering changes relative to the constant output, at the largest recorded scale; None without records."""
    from IPython.display import Markdown

    if not page.recorded:
        return None
    results = page.show_scale().results
    parts = []
    for model, dataset in dict.fromkeys((e.cell["model"], e.cell["dataset"]) for e in results.entries):
        for part in SPLITS:
            cluster, single = (_loss(results, model, dataset, t, f"{part}_nmse") for t in ("cluster", "class"))
            text = interval_text(paired(cluster, single), 4, signed=True)
            parts += [f"{model}, {dataset}, {SPLIT_NAMES[part]} {text}"] if text else []
    told = "Relative to what a constant output costs (NMSE), `cluster` less `class`: "
    return Markdown(f"{told}{'; '.join(parts)} (mean ± half the 95 % interval, number of seeds).") if parts else None


def _loss(results: Any, model: str, dataset: str, target: str, metric: str) -> dict[int, float]:
    return results.samples(metric=metric, model=model, dataset=dataset, target=target)


def printed_shares(comparison: TableComparison) -> Any:
    """Table: printed losses over the loss of a constant output, as the audit estimates it and as it was measured."""
    (finding,) = (each for each in findings("table1") if each.id == "encodenet-6")
    rows = []
    for row in finding.rows:
        model, target = row["model"], row["target"]
        constant = _loss(comparison.results, model, "cifar10", target, "constant_mse")
        shown = {"model": model, "target": target, "printed loss": row["printed"]}
        shown["constant output, estimated"] = f"{finding.numbers[f'expected_{target}']:.4f}"
        shown["printed / estimated"] = row["share of a constant output's loss"]
        shown["constant output, measured"] = interval_text(constant, 4)
        rows.append(shown)
    if not any(row["constant output, measured"] for row in rows):
        for row in rows:
            del row["constant output, measured"]
    return HTML(html_table(rows, "Printed losses beside that of a constant output (CIFAR-10)"))


def loss_figure(comparison: TableComparison) -> Any:
    """Figure: loss relative to the best constant output per network, target and split, with intervals over seeds."""
    results = comparison.results
    places = list(dict.fromkeys((e.cell["model"], e.cell["dataset"]) for e in results.entries))
    arms_shown = list(product(TARGETS, SPLITS))
    found = {
        (place, arm): interval(samples)
        for place, arm in product(places, arms_shown)
        if (samples := _loss(results, *place, arm[0], f"{arm[1]}_nmse"))
    }
    floors = {place: fmean(samples.values()) for place in places if (samples := _class_known(results, *place))}
    if not found:
        return sentence(f"No loss is measured at scale {results.scale} yet, so there is nothing to draw.")
    places = [place for place in places if any(key[0] == place for key in found)]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, arm in enumerate(arms_shown):
            chosen = [(places.index(place), each) for (place, other), each in found.items() if other == arm]
            _bars(axes, chosen, number, f"{arm[0]}, {SPLIT_NAMES[arm[1]]}")
        axes.axhline(1, color="grey", linewidth=1, label="best constant output")
        for place, floor in floors.items():
            at = places.index(place)
            label = "class known, cluster not" if place == next(iter(floors)) else "_nolegend_"
            axes.hlines(floor, at, at + 0.4, color="C3", linestyle="--", label=label)
        axes.set_xticks(range(len(places)), [f"{model}\n{dataset}" for model, dataset in places])
        axes.set(ylabel="NMSE", xlim=(-0.6, len(places) - 0.4))
        figure.legend(loc="outside lower center", ncols=3, fontsize="small")

    spoken = "; ".join(f"{' '.join((*place, *arm))} {each.text(3)}" for (place, arm), each in found.items())
    alt = f"Loss over that of the best constant output at scale {results.scale}: {spoken}"
    return themed(draw, (max(7, 3 + 1.5 * len(places)), 4), alt)


def _class_known(results: Any, model: str, dataset: str) -> dict[int, float]:
    """Seed -> share of the constant's loss that knowing the class but not the cluster leaves, for cluster codes."""
    known, constant = (
        _loss(results, model, dataset, "cluster", metric) for metric in ("class_known_mse", "constant_mse")
    )
    return {seed: known[seed] / constant[seed] for seed in known.keys() & constant.keys()}


def _bars(axes: Any, chosen: Sequence[tuple[int, Interval]], number: int, label: str) -> None:
    """One kind of bar, beside the others of its network; pale for test images."""
    x = [at + 0.2 * (number - 1.5) for at, _ in chosen]
    widths = [float("nan") if each.half_width is None else each.half_width for _, each in chosen]
    look = {"color": f"C{number // 2}", "alpha": 0.5 if number % 2 else 1.0}
    axes.bar(x, [each.mean for _, each in chosen], 0.18, label=label, **look)
    axes.errorbar(x, [each.mean for _, each in chosen], yerr=widths, fmt="none", ecolor="grey", capsize=3)


# --- table 1: converted images ----------------------------------------------------------------------------


def converter(trial: Trial, store: Store) -> tuple[ConvertingAutoencoder, Codebook]:
    """The network and the codes of a recorded autoencoder, in eval mode.

    Raises:
        FileNotFoundError: the weights of the autoencoder or of its codebook are not here; run the trial first.
    """
    source = trial.parents["codebook"]
    kept = store.weights_of([record for record in store.find(source) if record.status == "ok"])
    if kept is None:
        raise FileNotFoundError(f"no codes of {source.label} in {store.cache}: run it first")
    book = Codebook(**kept[1])

    def build(config: Any) -> ConvertingAutoencoder:
        return ConvertingAutoencoder(new_model(config), book, config.bottleneck, config.decoder_width)

    model: Any = trained_model(trial, store, build)
    return model, book


def conversions(results: Any, store: Store, images: int = 3) -> Any:
    """Figure: images of the training and the test set, and what each kind of target asks and gets.

    Args:
        results: of table 1; the autoencoders of its first network and seed are shown.
        store: has their weights.
        images: classes shown of either set, one image each.
    """
    first = results.entries[0]
    same = [e for e in results.matching(model=first.cell["model"]) if e.seed == first.seed]
    shown = {entry.cell["target"]: entry for entry in same}
    train, _, test = split(first.trial.settings)
    lines: list[list[np.ndarray]] = []
    names: list[str] = []
    for part, data in (("train", train), ("test", test)):
        chosen = np.array([np.flatnonzero(data.labels == number)[0] for number in range(images)])
        parts = [_asked_and_got(entry, store, data, part, chosen) for entry in shown.values()]
        names += [f"{part}:\n{data.classes[data.labels[n]]}" for n in chosen]
        for place, number in enumerate(chosen):
            lines.append([data.images[number], *(picture[place] for pair in parts for picture in pair)])
    columns = ["input", *(f"{target}:\n{word}" for target in shown for word in ("target", "output"))]
    alt = f"Rendered training and test images, with the target and the output of autoencoders of {', '.join(shown)}"
    return image_grid(lines, columns, names, f"{alt} codes")


def _asked_and_got(
    entry: Any, store: Store, data: ImageSet, part: str, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and outputs (n, H, W, C) of the chosen images, uint8."""
    model, book = converter(entry.trial, store)
    scaling = normalisation(entry.trial.settings.training, data)
    outputs = converted(model, torch.from_numpy(data.images[chosen]), *scaling, entry.record.precision)
    codes = (book.train if part == "train" else book.test)[torch.from_numpy(chosen)]
    return as_uint8(book.images[codes]), as_uint8(outputs)


# --- table 2: what it costs -------------------------------------------------------------------------------


def costs(scale: str, parent: Trial) -> dict[str, Cost]:
    """Reading of the second stage, frozen or fine-tuned -> what EncodeNet costs on a baseline's trial at a scale."""
    return {reading: cost_of(arms.encodenet(scale, parent, reading)) for reading in ("encodenet", "finetune")}


def _networks(table: Any, scale: str) -> dict[str, Trial]:
    """Network -> baseline of seed 0 on the first data set of a scale; a data set of as many images costs the same."""
    found: dict[str, Trial] = {}
    for cell, _, trial in table.entries(scale, 1, methods=["encodenet"]):
        if cell["method"] == "baseline":
            found.setdefault(cell["model"], trial)
    return found


def cost_table(table: Any, scales: Iterable[str]) -> Any:
    """Table: training FLOPs of every stage, per network and scale, and the baseline's epochs that cost as much."""
    rows = []
    for scale in dict.fromkeys(scales):
        for model, parent in _networks(table, scale).items():
            frozen, finetuned = costs(scale, parent).values()
            stages = {
                "autoencoder": frozen.preparation,
                "second stage, frozen": frozen.network,
                "second stage, fine-tuned": finetuned.network,
            }
            rows.append(
                {
                    "scale": scale,
                    "network": model,
                    "baseline, PFLOP": f"{frozen.before / 1e15:.3g}",
                    **{name: f"{flops / 1e15:.3g}" for name, flops in stages.items()},
                    "rho, frozen": f"{frozen.extra:.1f}",
                    "rho, fine-tuned": f"{finetuned.extra:.1f}",
                    "epochs of the baseline": str(_epochs(parent)),
                    "of equal budget": str(arms.whole_epochs(scale, parent)),
                }
            )
    caption = (
        "Training of one seed in PFLOP (10¹⁵ FLOPs; 2 per multiply-accumulate, a backward pass counts as two forward "
    )
    caption += "passes); rho: autoencoder and second stage over the baseline"
    return HTML(html_table(rows, caption))


def cost_warning(table: Any, scale: str = "paper") -> Any:
    """How much longer EncodeNet trains than the baseline it is compared with, in words."""
    from IPython.display import Markdown

    whole = {model: 1 + arms.extra_cost(scale, parent) for model, parent in _networks(table, scale).items()}
    least, most = (choose(whole, key=whole.__getitem__) for choose in (min, max))
    return Markdown(
        f"**A warning about cost.** At scale `{scale}`, EncodeNet's classifier is the product of {whole[least]:.1f} "
        f"({least}) to {whole[most]:.1f} ({most}) times the FLOPs that train its baseline. A gain over a baseline that "
        "was trained once says nothing about where it comes from; the baseline of equal budget is the comparison that "
        "does."
    )


# --- table 2: how the accuracy comes about ----------------------------------------------------------------


def stage_curves(results: Any) -> Any:
    """Figure: test accuracy by epoch of the second stage in both readings, and by all FLOPs spent on training.

    Args:
        results: of table 2; the first network with a recorded second stage is shown, curves are means over its seeds.
    """
    shown = [e for e in results.entries if e.usable and e.cell["method"] in NAMES]
    if not shown:
        names = ", ".join(NAMES)
        return sentence(f"None of {names} is recorded at scale {results.scale} yet: nothing to draw.")
    setting = {name: shown[0].cell[name] for name in ("model", "dataset")}
    curves = {method: _curve(results, **setting, method=method) for method in ("baseline", *NAMES)}
    curves = {method: curve for method, curve in curves.items() if len(curve)}
    parent = results.matching(**setting, method="baseline")[0].trial
    spent = costs(results.scale, parent)
    before = 1 + spent["encodenet"].preparation / spent["encodenet"].before

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
        for place, (method, curve) in enumerate(curves.items()):
            name = NAMES.get(method, method)
            if method != "baseline_long":
                left.plot(range(1, len(curve) + 1), curve, "o-", markersize=3, color=f"C{place}")
            work = _work(method, len(curve), spent, _epochs(parent))
            right.plot(work, curve, "o-", markersize=3, color=f"C{place}", label=name)
        right.axvspan(1, before, color="grey", alpha=0.2, linewidth=0, label="the autoencoder is trained")
        left.set(title="by epoch of the stage", xlabel="epoch", ylabel="test accuracy, %")
        right.set(title="by work", xlabel="training FLOPs in all, baseline = 1")
        figure.legend(loc="outside lower center", ncols=3, fontsize="small")

    spoken = ", ".join(f"{NAMES.get(method, method)} {curve[-1]:.1f} %" for method, curve in curves.items())
    where = f"{setting['model']}, {setting['dataset']}, scale {results.scale}"
    return themed(draw, (9, 4), f"Test accuracy while training, {where}; at the end: {spoken}")


def _curve(results: Any, **cell: Any) -> np.ndarray:
    """Test accuracy per epoch, mean over the usable records of a cell."""
    found = [entry.record.metrics["curves"]["test"] for entry in results.matching(**cell) if entry.usable]
    return np.mean(found, axis=0) if found else np.array([])


def _work(method: str, epochs: int, spent: Mapping[str, Cost], whole: int) -> np.ndarray:
    """Training FLOPs in all after each epoch, in units of the baseline's, which takes `whole` epochs."""
    done = np.arange(1, epochs + 1)
    if method in ("baseline", "baseline_long"):
        return done / whole
    own = spent[method]
    return 1 + (own.preparation + own.network * done / epochs) / own.before


def _epochs(parent: Trial) -> int:
    about: Any = parent.settings
    return about.training.epochs


# --- table 2: how sure one is of a difference --------------------------------------------------------------


def printed_noise(table: Any) -> Any:
    """Table: printed gains beside the spread that the choice of test images alone gives such a difference."""
    rows = []
    for cell in table.printed.numbers:
        base = table.printed.baseline(cell.keys)
        if base is not None:
            gain, spread = cell.value - base.value, difference_deviation(cell.value, base.value)
            keys = {name: cell.keys[name] for name in ("model", "dataset")}
            rows.append({**keys, "gain": f"{gain:+.2f}", "sd, unpaired": f"{spread:.2f}", "gain / sd": gain / spread})
    caption = "Printed gains (points) and the standard deviation of a difference of two accuracies on independent "
    return HTML(html_table(rows, f"{caption}draws of 10,000 test images; initial weights add to it"))


def disagreements(results: Any, store: Store) -> Any:
    """Table: on how many test images an arm and its baseline differ, in both directions, with McNemar's exact test.

    Args:
        results: of table 2; its first network and seed are compared.
        store: has their weights; the test images must be here too.
    """
    from scipy.stats import binomtest

    first = results.entries[0]
    same = [e for e in results.entries if e.seed == first.seed and e.cell["model"] == first.cell["model"]]
    same = [e for e in same if e.cell["dataset"] == first.cell["dataset"]]
    right = {entry.cell["method"]: _right(entry, store) for entry in same}
    base = right.pop("baseline")
    rows = []
    for method, own in right.items():
        gained, lost = int((own & ~base).sum()), int((~own & base).sum())
        alone = [accuracy_deviation(100 * float(each.double().mean()), len(base)) for each in (own, base)]
        p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        rows.append(
            {
                "arm": NAMES.get(method, method),
                "only the arm is right": str(gained),
                "only the baseline is right": str(lost),
                "difference (points)": f"{100 * (gained - lost) / len(base):+.1f}",
                "sd, same images": f"{paired_deviation(gained, lost, len(base)):.2f}",
                "sd, if unpaired": f"{math.hypot(*alone):.2f}",
                "p (McNemar, exact)": f"{p:.2g}" if p >= 1e-4 else "< 0.0001",
            }
        )
    where = f"{first.cell['model']}, {first.cell['dataset']}, seed {first.seed}"
    caption = f"On how many of {len(base):,} test images only one of two networks is right ({where})"
    return HTML(html_table(rows, caption))


def paired_deviation(gained: int, lost: int, images: int) -> float:
    """Standard deviation in points of a difference of accuracies on the same test images.

    Args:
        gained, lost: images on which only the first, or only the second, network is right.
        images: in all.
    """
    mean = (gained - lost) / images
    return 100 * math.sqrt(((gained + lost) / images - mean**2) / images)


def _right(entry: Any, store: Store) -> Tensor:
    """(N,) bool: which test images a recorded classifier names correctly, in the precision of its record."""
    about: Any = entry.trial.settings
    _, _, test = split(about)
    logits = predict(trained_model(entry.trial, store), test, about.training, "cpu", entry.record.precision)
    return logits.argmax(dim=1) == labels_of(test)
