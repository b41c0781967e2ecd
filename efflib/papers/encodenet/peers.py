"""What the pages of tables 4 and 5 show: equal-budget costs, published numbers, and what the peers hand on or gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import HTML, Markdown
from torch import Tensor, nn

from efflib.data import NORMALISATION, ImageSet, load_dataset
from efflib.explain import localisation
from efflib.kernels.attention_loss import energy
from efflib.models import count_macs, count_parameters, create_model, evaluating, features, shapes_only
from efflib.models.attention import BAMBlock, CBAMBlock, GAMBlock, SEBlock
from efflib.papers.baselines import split
from efflib.papers.encodenet import claims
from efflib.papers.encodenet.audit import difference_deviation, load
from efflib.papers.encodenet.autoencoder import converted
from efflib.papers.encodenet.cost import Cost, cost_of
from efflib.papers.encodenet.losses import converter
from efflib.papers.features import pixels_of
from efflib.papers.pictures import as_uint8, examples, small_objects, trained_model
from efflib.report.audit import half_up
from efflib.report.figures import image_grid, themed
from efflib.report.html import html_table, sentence
from efflib.report.verdict import interval_text, paired
from efflib.training import normalisation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.papers.table import PrintedTable, Table
    from efflib.report.notebook import TablePage
    from efflib.trials import Results, Store, Trial

NAMES = {
    "teacher": "teacher", "baseline": "alone", "baseline_long": "alone, as long as EncodeNet", "kd": "KD", "rkd": "RKD",
    "fitnet": "FitNet", "ft": "FT", "crd": "CRD", "dkd": "DKD", "se": "SE", "bam": "BAM", "cbam": "CBAM", "gam": "GAM",
    "gam_gc": "GAM, grouped", "encodenet": "EncodeNet, encoder frozen (literal)",
    "finetune": "EncodeNet, all layers fine-tuned",
}  # fmt: skip
TEST_IMAGES = 10_000  # of CIFAR-100


# --- both tables: what it costs ---------------------------------------------------------------------------


def cost_tables(page: TablePage) -> Any:
    """Tables: work and gain of every arm, at each recorded scale and, counted without any run, at the paper's."""
    from efflib.trials import collect

    found = {scale: shown.results for scale, shown in page.recorded.items()}
    if "paper" not in found:
        found["paper"] = collect(page.table, "paper", 1)
    return HTML("".join(html_table(*cost_rows(results)) for results in found.values()))


def cost_rows(results: Results) -> tuple[list[dict[str, str]], str]:
    """Rows and caption: per arm its training FLOPs, relative to the network trained alone, beside both gains.

    Args:
        results: of table 4 or 5 at one scale; cells that did not run have a cost all the same.
    """
    first = min(entry.seed for entry in results.entries)
    costs = [(entry.cell, cost_of(entry.trial)) for entry in results.entries if entry.seed == first]
    alone = {_place(cell): cost.whole for cell, cost in costs if cell["method"] == "baseline"}
    rows = [
        {"network": _place(cell), "arm": NAMES[cell["method"]]}
        | _cost_texts(cost, alone[_place(cell)])
        | _both_gains(results, cell)
        for cell, cost in costs
    ]
    empty = [name for name in rows[0] if not any(row[name] for row in rows)]
    caption = (
        f"Training of one seed at scale {results.scale}, in PFLOP (10¹⁵ FLOPs), and its gain over the network trained "
        "alone (points of accuracy, last epoch, mean ± 95 %, seeds)"
    )
    return [{name: text for name, text in row.items() if name not in empty} for row in rows], caption


def cost_words(table: Table, scale: str = "paper") -> Any:
    """EncodeNet's work beside KD's in words: both from nothing, and with the teacher or the own baseline at hand."""
    found: dict[str, dict[str, Cost]] = {}
    for cell, _, trial in table.entries(scale, 1, methods=["kd", "encodenet"]):
        found.setdefault(_place(cell), {})[cell["method"]] = cost_of(trial)
    told = []
    for place, arms in found.items():
        kd, ours = arms["kd"], arms["encodenet"]
        there = f"{ours.added / kd.added:.1f} times if teacher and baseline are there already"
        told.append(f"{ours.whole / kd.whole:.1f} times as much for {place}, {there}")
    return Markdown(f"At scale `{scale}`, EncodeNet with a frozen encoder costs, relative to KD: {'; '.join(told)}.")


def _cost_texts(cost: Cost, alone: float) -> dict[str, str]:
    return {
        "teacher or own baseline": _petaflop(cost.before),
        "paraphraser or autoencoder": _petaflop(cost.preparation),
        "the network": _petaflop(cost.network),
        "all": _petaflop(cost.whole),
        "all / alone": f"{cost.whole / alone:.1f}",
        "teacher or baseline given / alone": f"{cost.added / alone:.1f}",
    }


def _petaflop(flops: float) -> str:
    return f"{flops / 1e15:.3g}" if flops else ""


def _both_gains(results: Results, cell: Mapping[str, Any]) -> dict[str, str]:
    """An arm less the network alone: as printed, and paired by seed."""
    printed: PrintedTable = results.table.printed
    setting, method = _setting(cell), cell["method"]
    values = {c.keys["method"]: c.value for c in printed.numbers if _setting(c.keys) == setting}
    measured = paired(results.samples(**cell), results.samples(**setting, method="baseline"))
    told = {
        "printed less alone": f"{values[method] - values['baseline']:+.2f}" if method in values else "",
        "measured less alone": interval_text(measured, signed=True),
    }
    return dict.fromkeys(told, "") if method == "baseline" else told


def _setting(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if name != "method"}


def _place(cell: Mapping[str, Any]) -> str:
    """A cell's networks in words: a pair as teacher to student."""
    return cell["model"] if "model" in cell else f"{cell['teacher']} to {cell['student']}"


# --- both tables: printed numbers in their surroundings ---------------------------------------------------


def published_rows(table: str) -> list[dict[str, Any]]:
    """Published numbers for the networks of a table, beside the printed ones of the same network and method.

    Returns:
        One row per published number: network, method, the two teachers (table 4), printed (None where the paper has no
        such row), published, difference (printed - published), reference.
    """
    source = load()
    cells = source.tables[table].numbers
    role = "student" if "student" in cells[0].keys else "model"
    rows = []
    for reference in source.references.values():
        for value in reference["values"]:
            same = [cell for cell in cells if cell.keys[role] == value.get(role)]
            if not same or (role == "student" and "teacher" not in value):
                continue
            printed = next((cell.value for cell in same if cell.keys["method"] == value["method"]), None)
            row = {"network": value[role], "method": value["method"], "printed": printed, "published": value["value"]}
            row["difference"] = None if printed is None else printed - value["value"]
            if role == "student":
                row |= {"teacher": same[0].keys["teacher"], "published teacher": value["teacher"]}
            rows.append({**row, "reference": reference["name"], "source": reference["source"]})
    return rows


def published_table(table: str) -> Any:
    """Table: `published_rows` as a page's table, with the sources below."""
    rows = published_rows(table)
    shown = []
    for row in rows:
        line = {"network": row["network"], "method": NAMES[row["method"]]}
        line |= {"published": f"{row['published']:.2f}"}
        line |= {"printed": "" if row["printed"] is None else f"{row['printed']:.2f}"}
        line["printed less published"] = "" if row["difference"] is None else f"{row['difference']:+.2f}"
        if "teacher" in row:
            line["teacher, published"] = row["published teacher"]
            line["teacher, printed"] = row["teacher"]
        shown.append({**line, "published by": row["reference"]})
    sources = {row["reference"]: row["source"] for row in rows}
    told = "".join(f"<li>{escape(name)}: {escape(' '.join(text.split()))}</li>" for name, text in sources.items())
    caption = "Published accuracies (%) of the same networks on CIFAR-100. None of them was measured here"
    return HTML(f"{html_table(shown, caption)}<ul>{told}</ul>")


def leads_table(table: PrintedTable) -> Any:
    """Table: by how much the paper's EncodeNet leads each other row, in test images and in standard deviations.

    The deviation is that of a difference of two accuracies, each on its own draw of test images.
    """
    rows = []
    for ours in (cell for cell in table.numbers if cell.keys["method"] == "encodenet"):
        for other in (c for c in table.numbers if _setting(c.keys) == _setting(ours.keys) and c is not ours):
            lead, spread = ours.value - other.value, difference_deviation(ours.value, other.value)
            rows.append(
                {
                    "network": _place(ours.keys),
                    "EncodeNet less": NAMES[other.keys["method"]],
                    "points": f"{lead:+.2f}",
                    "test images": f"{lead * TEST_IMAGES / 100:+.0f}",
                    "sd of the difference": f"{spread:.2f}",
                    "points / sd": f"{lead / spread:+.1f}",
                }
            )
    caption = "Printed leads of EncodeNet, and the standard deviation (points) that such a difference has from the "
    return HTML(html_table(rows, f"{caption}choice of {TEST_IMAGES:,} test images alone, unpaired"))


# --- table 4: what is handed on ---------------------------------------------------------------------------

HANDED_ON = (
    "image", "KD:\nsoftened\nanswer", "RKD:\ndistances", "FitNet:\nmiddle map", "FT:\nlast map",
    "EncodeNet:\ntarget", "EncodeNet:\noutput",
)  # fmt: skip
TEMPERATURE = 4.0  # KD's in table 4


def handed_on(results: Results, store: Store, images: int = 4) -> Any:
    """Figure: training images, and what each method asks of the student for them.

    Args:
        results: of table 4 on rendered objects; the teacher and EncodeNet's autoencoder of its first seed and pair are
            shown.
        store: has their weights.
        images: of different classes.
    """
    first = results.entries[0]
    same = {e.cell["method"]: e.trial for e in results.entries if e.seed == first.seed and _same_pair(e, first)}
    found = [same[method] for method in ("encodenet", "finetune") if method in same]
    if not found:
        return sentence("This run has no EncodeNet, so there is no target to show.")
    encoder = found[0].parents["encoder"]
    train, _, _ = split(encoder.settings)  # type: ignore[arg-type]
    chosen = small_objects(train)[:images]
    parts = [*_of_the_teacher(same["teacher"], store, train.take(chosen)), *_of_encodenet(encoder, store, chosen)]
    rows = [list(line) for line in zip(train.images[chosen], *parts, strict=True)]
    alt = "Rendered training images, and what is asked of a student: " + ", ".join(HANDED_ON[1:]).replace("\n", " ")
    return image_grid(rows, HANDED_ON, [train.classes[label] for label in train.labels[chosen]], alt)


def _same_pair(one: Any, other: Any) -> bool:
    return _setting(one.cell) == _setting(other.cell)


@torch.no_grad()
def _of_the_teacher(trial: Trial, store: Store, data: ImageSet) -> list[np.ndarray]:
    """What the teacher says of each image: softened answer and distances as bars, two maps."""
    teacher, about = trained_model(trial, store), trial.settings
    found = features(teacher, pixels_of(data, *normalisation(about.training, data)))  # type: ignore[attr-defined]
    answer = (found.logits / TEMPERATURE).softmax(dim=1)
    apart = torch.cdist(found.pooled, found.pooled)
    middle = found.stages[1].mean(dim=1)
    last = energy(found.stages[-1]).unflatten(1, found.stages[-1].shape[2:])
    return [bars(answer), bars(apart), middle.numpy(), last.numpy()]


def _of_encodenet(trial: Trial, store: Store, chosen: np.ndarray) -> list[np.ndarray]:
    """Targets and outputs (n, H, W, C) of chosen training images, uint8."""
    model, book = converter(trial, store)
    about: Any = trial.settings
    train, _, _ = split(about)
    outputs = converted(model, torch.from_numpy(train.images[chosen]), *normalisation(about.training, train), "fp32")
    codes = book.images[book.train[torch.from_numpy(chosen)]]
    return [as_uint8(codes), as_uint8(outputs)]


def bars(values: Tensor, side: int = 40) -> np.ndarray:
    """Non-negative numbers (N, K) as N pictures (side, side) bool of K bars, the highest of each in full height.

    With more numbers than columns, the pictures are K wide and high.
    """
    side = max(side, values.shape[1])
    heights = (side * values / values.amax(dim=1, keepdim=True).clamp(min=1e-12)).round()
    column = torch.arange(side) * values.shape[1] // side
    level = torch.arange(side, 0, -1)[:, None]
    return (heights[:, None, column] >= level).numpy()


# --- table 5: sizes and places ----------------------------------------------------------------------------

_MODULES = (SEBlock, BAMBlock, CBAMBlock, GAMBlock)


@cache
def _built(method: str) -> nn.Module:
    """The network of a row of table 5 at 100 classes; it has shapes, no values."""
    with shapes_only():
        return create_model(claims.row_network(method), 100)


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Name in the network -> attention module, in forward order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _MODULES)}


def places(names: Sequence[str]) -> str:
    """Where modules sit, read from their names: `stage2.0.attention` ends a branch, `stage2.attention` a stage."""
    if not names:
        return ""
    stages = list(dict.fromkeys(name.split(".")[0].removeprefix("stage") for name in names))
    in_branch = all(len(name.split(".")) == 3 for name in names)
    return f"{'end of every residual branch, stages' if in_branch else 'after stages'} {', '.join(stages)}"


def size_rows(printed: PrintedTable) -> list[dict[str, Any]]:
    """Per row of table 5: modules, places, parameters built and printed, multiply-accumulates.

    Returns:
        method, modules, where, inside (parameters of the modules), built, printed (Decimal, millions), equal (to the
        printed decimals), macs. EncodeNet's classifier is the plain network: its decoder is thrown away.
    """
    counts, rows = claims.parameter_counts(), []
    for method in ("baseline", *claims.ATTENTION, "encodenet"):
        network = _built(method)
        found = attention_modules(network)
        built = counts.get(method, counts["baseline"])
        millions = printed.cell(method=method).millions
        places_printed = -int(millions.as_tuple().exponent)
        row = {"method": method, "modules": len(found), "where": places(list(found)), "built": built}
        row |= {"inside": sum(map(count_parameters, found.values())), "printed": millions}
        row["equal"] = half_up(Decimal(built) / 10**6, places_printed) == millions
        rows.append({**row, "macs": count_macs(network)})
    return rows


def sizes_table(printed: PrintedTable) -> Any:
    """Table: `size_rows`, with what each row adds to the plain ResNet50."""
    found = size_rows(printed)
    plain = found[0]
    rows = [
        {
            "row": {**NAMES, "baseline": "ResNet50", "encodenet": "EncodeNet"}[row["method"]],
            "modules": str(row["modules"] or ""),
            "where": row["where"],
            "parameters, built": f"{row['built']:,}",
            "printed, M": f"{row['printed']}",
            "equal": "yes" if row["equal"] else "no",
            "added": f"{100 * (row['built'] / plain['built'] - 1):.1f} %" if row["modules"] else "",
            "GMACs": f"{row['macs'] / 1e9:.3f}",
            "GMACs / ResNet50": f"{row['macs'] / plain['macs']:.2f}",
        }
        for row in found
    ]
    return HTML(html_table(rows, "The networks of table 5 at 100 classes and 32 x 32 pixels, counted by building them"))


# --- table 5: gates at work -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gates:
    """How open a module's gates are, per image: (N, C) means over positions, (N, h, w) means over channels.

    channel or spatial is None where the module has no gate that differs between channels or between positions.
    """

    channel: Tensor | None
    spatial: Tensor | None


def gates(model: nn.Module, data: ImageSet) -> dict[str, Gates]:
    """Module's name -> its gates for the images of a set, in eval mode."""
    seen: dict[str, Gates] = {}
    with evaluating(model), torch.no_grad(), _watched(model, seen):
        model(pixels_of(data, *NORMALISATION[data.name]))
    return seen


@contextmanager
def _watched(model: nn.Module, seen: dict[str, Gates]) -> Iterator[None]:
    def note(name: str) -> Any:
        return lambda module, inputs: seen.__setitem__(name, gates_of(module, inputs[0]))

    handles = [module.register_forward_pre_hook(note(name)) for name, module in attention_modules(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gates_of(module: nn.Module, x: Tensor) -> Gates:
    """The gates of one attention module for its input (N, C, H, W)."""
    if isinstance(module, SEBlock):
        return Gates(module.gate(x).flatten(1), None)
    if isinstance(module, BAMBlock):
        gate = module.gate(x)
        return Gates(gate.mean(dim=(2, 3)), gate.mean(dim=1))
    if isinstance(module, CBAMBlock | GAMBlock):
        channel = module.channel_gate(x)
        return Gates(channel.mean(dim=(2, 3)), module.spatial_gate(x * channel).mean(dim=1))
    raise TypeError(f"{type(module).__name__} is no attention module: take one of attention_modules(model)")


def last_of_stages(names: Sequence[str]) -> dict[str, str]:
    """Stage -> name of its last module."""
    return {name.split(".")[0]: name for name in names}


def gating_networks(results: Results, store: Store) -> dict[str, nn.Module]:
    """Words -> trained network of each attention row of the first seed."""
    first = results.entries[0].seed
    found = [entry for entry in results.entries if entry.seed == first and entry.cell["method"] in claims.ATTENTION]
    return {NAMES[entry.cell["method"]]: trained_model(entry.trial, store) for entry in found}


def channel_figure(networks: Mapping[str, nn.Module], data: ImageSet | None = None) -> Any:
    """Figure: mean channel gates of each class, in the last module of each stage; channels sorted by their mean.

    Args:
        networks: of `gating_networks`.
        data: images of every class; the rendered test images, when None.
    """
    if not networks:
        return sentence("No network with attention modules ran, so there are no gates to draw.")
    data = load_dataset("objects32", "test") if data is None else data
    lines = {name: _class_means(model, data) for name, model in networks.items()}

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(lines), max(map(len, lines.values())), squeeze=False, sharey=True)
        for axes in panels.flat:
            axes.set_axis_off()
        for row, (name, stages) in zip(panels, lines.items(), strict=True):
            for axes, (stage, means) in zip(row, stages.items(), strict=False):
                axes.set_axis_on()
                drawn = axes.imshow(means, vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
                axes.set_title(f"{name}, {stage.replace('stage', 'stage ')}", fontsize="small")
                axes.set_xticks([])
                axes.set_xlabel(f"{means.shape[1]} channels", fontsize="small")
            row[0].set_yticks(range(len(data.classes)), data.classes, fontsize="x-small")
        figure.colorbar(drawn, ax=panels, label="gate", shrink=0.8)

    told = "; ".join(
        f"{name} {stage}: {means.min():.2f} to {means.max():.2f}"
        for name, stages in lines.items()
        for stage, means in stages.items()
    )
    return themed(draw, (9, 0.4 + 2.1 * len(lines)), f"Mean channel gates by class, smallest to largest: {told}")


def _class_means(model: nn.Module, data: ImageSet) -> dict[str, np.ndarray]:
    """Stage -> (classes, C) mean gates of its last module, channels sorted by their mean."""
    found = gates(model, data)
    means = {}
    for stage, name in last_of_stages(list(found)).items():
        values = _channel(found[name])
        by_class = torch.stack([values[torch.from_numpy(data.labels == n)].mean(0) for n in range(len(data.classes))])
        means[stage] = by_class[:, by_class.mean(dim=0).argsort()].numpy()
    return means


def _channel(found: Gates) -> Tensor:
    if found.channel is None:
        raise ValueError("these gates do not differ between channels")
    return found.channel


def explained_by_class(values: Tensor, labels: Tensor) -> float:
    """Share of the variance over images that the classes' means explain, summed over columns (eta squared).

    Args:
        values: (N, C). labels: (N,).

    Returns:
        0 if class means do not differ, 1 if images of a class do not; NaN where nothing varies. Labels that say nothing
        give about (classes - 1) / (N - 1).
    """
    mean = values.double().mean(dim=0)
    total = float((values.double() - mean).square().sum())
    between = 0.0
    for number in labels.unique():
        own = values[labels == number].double()
        between += len(own) * float((own.mean(dim=0) - mean).square().sum())
    return between / total if total else float("nan")


def gates_table(networks: Mapping[str, nn.Module], data: ImageSet | None = None) -> Any:
    """Table: per network and stage, how open the channel gates are, how much they vary, and what of it is the class."""
    data = load_dataset("objects32", "test") if data is None else data
    labels, rows = torch.from_numpy(data.labels), []
    for name, model in networks.items():
        found = gates(model, data)
        for stage, module in last_of_stages(list(found)).items():
            values = _channel(found[module])
            rows.append(
                {
                    "network": name,
                    "last module of": stage.replace("stage", "stage "),
                    "channels": str(values.shape[1]),
                    "mean gate": f"{float(values.mean()):.2f}",
                    "sd over channels": f"{float(values.mean(dim=0).std()):.3f}",
                    "sd over images": f"{float(values.std(dim=0).mean()):.3f}",
                    "of it explained by the class": f"{100 * explained_by_class(values, labels):.0f} %",
                }
            )
    if not rows:
        return sentence("No network with attention modules ran, so there are no gates to measure.")
    chance = 100 * (len(data.classes) - 1) / (len(data) - 1)
    caption = f"Channel gates for {len(data):,} test images; labels that say nothing would explain {chance:.1f} %"
    return HTML(html_table(rows, caption))


def spatial_maps(model: nn.Module, data: ImageSet) -> dict[str, Tensor]:
    """Stage -> (N, H, W) spatial gate of its last module, bilinear to the image; maps of one cell are left out."""
    found = gates(model, data)
    maps = {}
    for stage, name in last_of_stages(list(found)).items():
        spatial = found[name].spatial
        if spatial is not None and spatial.shape[1] > 1:
            size = data.images.shape[1:3]
            maps[stage] = F.interpolate(spatial[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return maps


def spatial_strip(networks: Mapping[str, nn.Module], images: int = 5) -> Any:
    """Figure: rendered objects down, and the spatial gates of each network that has some across."""
    data = examples().take(range(images))
    maps = {
        f"{name},\n{stage.replace('stage', 'stage ')}": each.numpy()
        for name, model in networks.items()
        for stage, each in spatial_maps(model, data).items()
    }
    if not maps:
        return sentence("No network with spatial gates ran: SE has none.")
    rows = [[data.images[n], *(each[n] for each in maps.values())] for n in range(len(data))]
    alt = f"Rendered objects, then spatial gates, yellow is open: {', '.join(maps)}".replace("\n", " ")
    return image_grid(rows, ["image", *maps], [data.classes[label] for label in data.labels], alt)


def spatial_table(networks: Mapping[str, nn.Module], data: ImageSet | None = None) -> Any:
    """Table: whether spatial gates open on the objects, whose pixels are known, more than on the background."""
    data = load_dataset("objects32", "test") if data is None else data
    objects, rows = torch.from_numpy(np.asarray(data.masks)), []
    for name, model in networks.items():
        for stage, maps in spatial_maps(model, data).items():
            measured = localisation(maps, objects)
            on, off = (float(maps[pixels].mean()) for pixels in (objects, ~objects))
            row = {"network": name, "last module of": stage.replace("stage", "stage ")}
            row |= {"mean gate on objects": f"{on:.3f}", "on background": f"{off:.3f}"}
            rows.append({**row, "ranking (AUC)": f"{measured['auc']:.2f}"})
    if not rows:
        return sentence("No network with spatial gates ran: SE has none.")
    caption = f"Spatial gates and the true object pixels, {len(data):,} test images; AUC 0.5 is guessing"
    return HTML(html_table(rows, caption))
