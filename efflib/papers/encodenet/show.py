"""Live pictures and measurements for EncodeNet's chapter and its ablation: codes, mixtures, clusters, the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from IPython.display import HTML, Markdown
from torch import Tensor, nn

from efflib.data import ImageSet
from efflib.papers.baselines import ClassifierConfig, split
from efflib.papers.encodenet import audit, clustering
from efflib.papers.encodenet.autoencoder import ConvertingAutoencoder, converted, nearness
from efflib.papers.encodenet.codebook import Codebook, Ranking, ranking
from efflib.papers.encodenet.losses import converter
from efflib.papers.features import labels_of
from efflib.papers.pictures import as_uint8, trained_model
from efflib.report.figures import image_grid, themed
from efflib.report.html import html_table
from efflib.training import normalisation, predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from efflib.trials import Store, Trial


# --- what the chapter looks at ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A baseline, its codebook and autoencoders of it: what the chapter's pictures are made from.

    settings: of the baseline. network: it. models: autoencoders by name. book: their codes. ranked: how sure the
    network is of each training image. precision: in which the codebook was made; another one can turn near-ties.
    """

    settings: ClassifierConfig
    network: nn.Module
    models: Mapping[str, ConvertingAutoencoder]
    book: Codebook
    train: ImageSet
    test: ImageSet
    ranked: Ranking
    precision: str


def scene(trials: Mapping[str, Trial], store: Store) -> Scene:
    """Everything behind recorded autoencoders of one baseline.

    Args:
        trials: autoencoders by name, with one codebook.
        store: has the weights.

    Raises:
        ValueError: autoencoders with different codebooks.
        FileNotFoundError: weights that are not here; run the trials first.
    """
    books = {trial.parents["codebook"] for trial in trials.values()}
    if len(books) != 1:
        raise ValueError(f"one scene has one codebook; these {len(trials)} autoencoders have {len(books)}")
    (source,) = books
    settings: Any = source.parents["baseline"].settings
    network = trained_model(source.parents["baseline"], store)
    pairs = {name: converter(trial, store) for name, trial in trials.items()}
    train, _, test = split(settings)
    precision = next(record.precision for record in store.find(source) if record.status == "ok")
    ranked = ranking(predict(network, train, settings.training, "cpu", precision), labels_of(train))
    book = next(iter(pairs.values()))[1]
    models = {name: model for name, (model, _) in pairs.items()}
    return Scene(settings, network, models, book, train, test, ranked, precision)


def _flat(data: ImageSet, places: Tensor) -> Tensor:
    """(n, D) float64 in [0, 1], channels first as the codes are."""
    chosen = torch.from_numpy(data.images[places.numpy()])
    return chosen.permute(0, 3, 1, 2).flatten(1).double() / 255


def _outputs(shown: Scene, model: ConvertingAutoencoder, data: ImageSet) -> Tensor:
    """(N, D) float64: the flattened conversions of all images."""
    mean, std = normalisation(shown.settings.training, data)
    parts = torch.from_numpy(data.images).split(128)
    return torch.cat([converted(model, part, mean, std, shown.precision) for part in parts]).flatten(1).double()


# --- the codebook view: the loss is a score of probabilities ----------------------------------------------


def expected_loss(codes: Tensor, truth: Tensor, guess: Tensor) -> Tensor:
    """Mean squared error to expect when the output is a mixture of codes and the target is one code by chance.

    Args:
        codes: (M, D).
        truth: (N, M), probability p of each code as target; rows sum to one.
        guess: (N, M), weights q of the output, `guess @ codes`; rows sum to one.

    Returns:
        (N,): sum_m p_m |q T - t_m|^2 / D, by definition.
    """
    apart = torch.cdist(guess @ codes, codes, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (truth * apart).sum(dim=1) / codes.shape[1]


def excess(codes: Tensor, truth: Tensor, guess: Tensor) -> Tensor:
    """The same less its smallest value: (q - p)^T G (q - p) / D with the Gram matrix G = T T^T (spec, section 1).

    Args, Returns: as `expected_loss`.
    """
    apart = guess - truth
    return torch.einsum("nm,mk,nk->n", apart, _gram(codes), apart)


def _gram(codes: Tensor) -> Tensor:
    return codes @ codes.T / codes.shape[1]


def confusion_costs(codes: Tensor) -> Tensor:
    """(M (M - 1) / 2,): mean squared difference of every two codes, the price of certainty about the wrong one."""
    return torch.pdist(codes).square() / codes.shape[1]


def formula_table(book: Codebook, draws: int = 500, seed: int = 0) -> Any:
    """Table: the formula against its definition for random p and q, and what it costs to confuse two codes.

    Codes of noise stand beside the representatives: all pairs of them are equally far apart.
    """
    chance = torch.Generator().manual_seed(seed)
    codes = book.images.flatten(1).double()
    noise = torch.rand(codes.shape, generator=chance, dtype=torch.float64)
    rows = [
        _formula_row(name, each, draws, chance) for name, each in (("representatives", codes), ("noise images", noise))
    ]
    return HTML(html_table(rows, f"The excess loss on {len(codes)} codes, for {draws} random pairs p, q each"))


def _formula_row(name: str, codes: Tensor, draws: int, chance: torch.Generator) -> dict[str, Any]:
    truth, guess = (_random_probabilities(draws, len(codes), chance) for _ in range(2))
    measured = expected_loss(codes, truth, guess) - expected_loss(codes, truth, truth)
    difference = (excess(codes, truth, guess) - measured).abs().max() / measured.max()
    costs = confusion_costs(codes)
    return {
        "codes": name,
        "formula and definition agree to 1e-9": bool(difference < 1e-9),
        "only q = p has no excess": bool(_least_curvature(codes) > 1e-9),
        "confusing two codes costs, least": f"{costs.min():.4f}",
        "mean": f"{costs.mean():.4f}",
        "most": f"{costs.max():.4f}",
    }


def _random_probabilities(count: int, codes: int, chance: torch.Generator) -> Tensor:
    """(count, codes) float64, uniform on the simplex."""
    drawn = -torch.rand((count, codes), generator=chance, dtype=torch.float64).clamp_min(1e-300).log()
    return drawn / drawn.sum(dim=1, keepdim=True)


def _least_curvature(codes: Tensor) -> Tensor:
    """Smallest eigenvalue of the metric on differences of probabilities, relative to the largest."""
    count = len(codes)
    basis = torch.linalg.qr(torch.eye(count, dtype=codes.dtype)[:, 1:] - 1 / count).Q  # columns sum to zero
    found = torch.linalg.eigvalsh(basis.T @ _gram(codes) @ basis)
    return found[0] / found[-1]


# --- the codebook view: what a trained autoencoder puts out -----------------------------------------------


def mixtures(outputs: Tensor, codes: Tensor) -> Tensor:
    """Weights of the codes in each output, by least squares; they sum to one and may be negative.

    Args:
        outputs: (N, D).
        codes: (M, D).

    Returns:
        (N, M).
    """
    edges = (codes[1:] - codes[0]).T  # (D, M - 1)
    rest = torch.linalg.lstsq(edges, (outputs - codes[0]).T).solution.T
    return torch.cat([1 - rest.sum(dim=1, keepdim=True), rest], dim=1)


def explained(outputs: Tensor, codes: Tensor) -> float:
    """Share of the outputs' variance (around their mean) that mixtures of the codes reach: at most 1."""
    missed = (outputs - mixtures(outputs, codes) @ codes).square().sum()
    return float(1 - missed / (outputs - outputs.mean(dim=0)).square().sum())


def heaviest_class(weights: Tensor, classes: Tensor) -> Tensor:
    """(N,): the class whose codes have the largest sum of weights (N, M); `classes` (M,) are those of the codes."""
    per_class = weights.new_zeros(len(weights), int(classes.max()) + 1).index_add_(1, classes, weights)
    return per_class.argmax(dim=1)


def mixture_rows(shown: Scene, draws: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    """What each autoencoder's outputs for the test images are made of; for `mixture_table` and `mixture_words`.

    variance in the span of the codes, and of as many other training images (mean of several draws); heaviest class
    and nearest representative: how often right, in percent. score and rest: where the error towards the codes lies,
    within the span of the codes and outside of it; their sum is the mean squared error.
    """
    codes, labels = shown.book.images.flatten(1).double(), labels_of(shown.test)
    others = _other_images(shown, draws, seed)
    rows = []
    for name, model in shown.models.items():
        outputs = _outputs(shown, model, shown.test)
        weights = mixtures(outputs, codes)
        inside = weights @ codes
        truth = torch.eye(len(codes), dtype=torch.float64)[shown.book.test]
        nearest = nearness(outputs, codes, shown.book.classes).argmax(dim=1)
        rows.append(
            {
                "name": name,
                "codes": explained(outputs, codes),
                "others": fmean(explained(outputs, each) for each in others),
                "heaviest": _right(heaviest_class(weights, shown.book.classes), labels),
                "nearest": _right(nearest, labels),
                "score": float(excess(codes, truth, weights).mean()),
                "rest": float((outputs - inside).square().mean()),
                "mse": float((outputs - codes[shown.book.test]).square().mean()),
            }
        )
    return rows


def _right(found: Tensor, labels: Tensor) -> float:
    return 100 * float((found == labels).double().mean())


def _other_images(shown: Scene, draws: int, seed: int) -> list[Tensor]:
    """As many training images as there are codes, none of them a representative, several times."""
    chance = torch.Generator().manual_seed(seed)
    free = torch.ones(len(shown.train), dtype=torch.bool)
    free[shown.book.members] = False
    places = torch.nonzero(free)[:, 0]
    orders = [torch.randperm(len(places), generator=chance)[: len(shown.book.images)] for _ in range(draws)]
    return [_flat(shown.train, places[order]) for order in orders]


def mixture_table(rows: Sequence[Mapping[str, Any]], guessing: float = 10.0) -> Any:
    """The outcome of `mixture_rows` as a table; `guessing` is right so often, in percent."""
    texts = [
        {
            "trained towards": row["name"],
            "variance in the span of the codes": f"{row['codes']:.1%}",
            "in that of as many other images": f"{row['others']:.1%}",
            "heaviest class is right": f"{row['heaviest']:.1f} %",
            "nearest representative is right": f"{row['nearest']:.1f} %",
            "error towards the codes": f"{row['mse']:.4f}",
            "of it: score of the mixture": f"{row['score']:.4f}",
            "outside the span": f"{row['rest']:.4f}",
        }
        for row in rows
    ]
    caption = f"Outputs for the test images as mixtures of the codes; guessing would be right for {guessing:g} %"
    return HTML(html_table(texts, caption))


def mixture_words(rows: Sequence[Mapping[str, Any]]) -> Any:
    """The table's outcome as sentences, made from its numbers."""
    parts = [
        f"Trained towards {row['name']}: the codes' span holds {100 * (row['codes'] - row['others']):+.1f} points more "
        f"of the outputs' variance than that of other images; the heaviest class is right for {row['heaviest']:.1f} % "
        f"of the test images, the nearest representative for {row['nearest']:.1f} %."
        for row in rows
    ]
    return Markdown("\n".join(f"- {part}" for part in parts))


# --- figure 2: clusters -----------------------------------------------------------------------------------


def features_of(shown: Scene, source: clustering.Source = "baseline_penultimate") -> Tensor:
    """(N, D): what is clustered, for the training images."""
    settings = shown.settings
    return clustering.cluster_features(source, shown.train, shown.network, settings.training, precision=shown.precision)


def silhouette_table(shown: Scene, sources: Sequence[clustering.Source], k: int = 3, seed: int = 0) -> Any:
    """Table: silhouette of k clusters per class, for several features and for noise of the first one's shape."""
    labels, classes = labels_of(shown.train), shown.train.classes
    columns: dict[str, Tensor] = {source: features_of(shown, source) for source in sources}
    columns["normal noise"] = _noise(next(iter(columns.values())).shape, seed)
    found = {name: _silhouettes(points, labels, classes, k) for name, points in columns.items()}
    rows: list[dict[str, str]] = []
    for number, title in enumerate((*classes, "mean")):
        texts = {name: f"{fmean(each) if title == 'mean' else each[number]:.3f}" for name, each in found.items()}
        rows.append({"class": title, **texts})
    return HTML(html_table(rows, f"Silhouette of {k} clusters in each class, by the features that are clustered"))


def _silhouettes(points: Tensor, labels: Tensor, classes: tuple[str, ...], k: int) -> list[float]:
    found = clustering.silhouettes(points, clustering.cluster(points, labels, classes, k=k), labels)
    return [float("nan") if each is None else each for each in found]


def _noise(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clusters_strip(shown: Scene, label: int, images: int = 8) -> Any:
    """Figure 2: images of every cluster of one class, its representative first."""
    book = shown.book
    rows, lines = [], []
    for place, code in enumerate(torch.nonzero(book.classes == label)[:, 0].tolist()):
        inside = torch.nonzero(book.train == code)[:, 0].tolist()
        first = int(book.members[code])
        chosen = [first, *(number for number in inside if number != first)][:images]
        blank = np.zeros_like(shown.train.images[0])
        rows.append([*shown.train.images[chosen], *[blank] * (images - len(chosen))])
        lines.append(f"cluster {place}\n{len(inside)} images")
    columns = ["represen-\ntative", *[""] * (images - 1)]
    name = shown.train.classes[label]
    return image_grid(rows, columns, lines, f"Rendered images of the class {name}, one line per cluster")


# --- figure 3: the elbow ----------------------------------------------------------------------------------

Curves = dict[str, dict[str, list[float]]]  # data -> "images" or "scalars" -> inertia of k clusters over one cluster


def elbow_curves(shown: Scene, seed: int = 0) -> Curves:
    """Inertia for k = 1 .. 9: of this baseline's features, of noise of their shape, and of five true clusters.

    "images" is k-means as it is meant, "scalars" that of the authors' earlier code, which clusters the single numbers
    of the feature matrix (spec, section 2.3).
    """
    points, labels, classes = features_of(shown), labels_of(shown.train), shown.train.classes
    found: Curves = {}
    for name, values in (("features", points), ("normal noise of their shape", _noise(points.shape, seed))):
        both = {"images": clustering.inertias, "scalars": clustering.flattened_inertias}
        found[name] = {
            kind: clustering.mean_ratios(make(values, labels, classes)).tolist() for kind, make in both.items()
        }
    five = audit.demonstration()["five clusters"]
    found["five true clusters"] = {"images": list(five["points"]), "scalars": list(five["flattened"])}
    return found


def elbow_table(curves: Curves) -> Any:
    """Table: the knee of every curve, how high it is, and what nine clusters leave."""
    rows = []
    for name, both in curves.items():
        for kind, curve in both.items():
            bend = clustering.knee(curve)
            row = {"data": name, "k-means of": kind, "knee": str(bend.k), "height of the knee": f"{bend.height:.3f}"}
            rows.append(row | {"inertia, 9 clusters / 1": f"{curve[-1] / curve[0]:.3f}"})
    return HTML(html_table(rows, "Knees of the curves above; the height is 0 for a straight line"))


def elbow_figure(curves: Curves) -> Any:
    """Figure 3: both kinds of curves, each with its knee."""
    titles = {"images": "k-means of the images", "scalars": "k-means of the flattened matrix"}

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (kind, title) in zip(panels, titles.items(), strict=True):
            for place, (name, both) in enumerate(curves.items()):
                curve, bend = both[kind], clustering.knee(both[kind])
                axes.plot(range(1, len(curve) + 1), curve, "o-", markersize=3, color=f"C{place}", label=name)
                axes.plot(bend.k, curve[bend.k - 1], "o", markersize=11, fillstyle="none", color=f"C{place}")
            axes.set(title=title, xlabel="clusters per class, k", ylim=(0, 1.05), xticks=range(1, 10, 2))
        panels[0].set_ylabel("inertia, one cluster = 1")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")

    knees = [
        f"{name}, {titles[kind]}: knee {clustering.knee(curve).k}"
        for name, both in curves.items()
        for kind, curve in both.items()
    ]
    return themed(draw, (8, 3.6), f"Inertia by number of clusters, knees circled. {'; '.join(knees)}")


# --- figure 4: entropy ------------------------------------------------------------------------------------


def by_entropy(shown: Scene, code: int, images: int = 10) -> Tensor:
    """Places of images of one (class, cluster) in the training set, from the lowest to the highest entropy."""
    inside = torch.nonzero(shown.book.train == code)[:, 0]
    ordered = inside[shown.ranked.entropy[inside].argsort(stable=True)]
    count = min(images, len(ordered))
    return ordered[torch.linspace(0, len(ordered) - 1, count).round().long()]


def entropy_strip(shown: Scene, code: int, images: int = 10) -> Any:
    """Figure 4: images of one cluster from the lowest to the highest entropy; wrongly classified ones are marked."""
    chosen = by_entropy(shown, code, images)
    entropies, right = shown.ranked.entropy[chosen].tolist(), shown.ranked.correct[chosen].tolist()
    columns = [f"{H:.3f}" + ("" if good else "\nwrong") for H, good in zip(entropies, right, strict=True)]
    name = shown.train.classes[int(shown.book.classes[code])]
    alt = f"Rendered images of one cluster of {name} by rising entropy in nats: {', '.join(columns)}"
    return image_grid([list(shown.train.images[chosen.numpy()])], columns, ["H, nats"], alt.replace("\n", " "))


def entropy_histogram(shown: Scene) -> Any:
    """Figure: entropies of all training images, rightly and wrongly classified, and of the representatives."""
    ranked, chosen = shown.ranked, shown.ranked.entropy[shown.book.members]
    most = float(np.log(len(shown.train.classes)))
    groups = {
        "classified rightly": ranked.entropy[ranked.correct],
        "classified wrongly": ranked.entropy[~ranked.correct],
    }

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.hist([each.numpy() for each in groups.values()], bins=np.linspace(0, most, 31).tolist(), stacked=True,
                  label=list(groups))  # fmt: skip
        axes.axvline(most, color="grey", linewidth=0.8, linestyle="--")
        axes.plot(chosen, np.zeros(len(chosen)), "|", color="C3", markersize=14, clip_on=False, label="representatives")
        axes.set(xlabel="entropy H in nats (dashed: all classes equally likely)", ylabel="training images")
        figure.legend(loc="outside lower center", ncols=3, fontsize="small")

    told = "; ".join(f"{len(each)} {name}, median {each.median():.3f}" for name, each in groups.items() if len(each))
    ends = f"{chosen.min():.3f} to {chosen.max():.3f}"
    return themed(draw, (7, 3.2), f"Histogram of the entropy in nats: {told}; representatives {ends}")


# --- figure 5: conversions --------------------------------------------------------------------------------


def conversion_strip(shown: Scene, images: int = 4) -> Any:
    """Figure 5: inputs, what each autoencoder makes of them, the target, and the code that weighs most in the output.

    That code is taken from the outputs of the first autoencoder. Training images above, test images below.
    """
    codes, first = shown.book.images.flatten(1).double(), next(iter(shown.models))
    rows: list[list[np.ndarray]] = []
    lines: list[str] = []
    for data, assignment in ((shown.train, shown.book.train), (shown.test, shown.book.test)):
        chosen = np.array([np.flatnonzero(data.labels == label)[0] for label in range(images)])
        some = data.take(chosen)
        outputs = {name: _outputs(shown, model, some) for name, model in shown.models.items()}
        heaviest = mixtures(outputs[first], codes).argmax(dim=1)
        parts = [*outputs.values(), codes[assignment[torch.from_numpy(chosen)]], codes[heaviest]]
        drawn = [_pictures(part, some) for part in parts]
        rows += [[some.images[n], *(pictures[n] for pictures in drawn)] for n in range(images)]
        lines += [f"{data.split}:\n{data.classes[label]}" for label in some.labels]
    columns = ["input", *(f"output,\n{name}" for name in shown.models), "code\n(target)", "heaviest\ncode"]
    alt = "Training and test images, outputs of autoencoders trained towards "
    alt += f"{', '.join(shown.models)}, then target code and heaviest code"
    return image_grid(rows, columns, lines, alt)


def _pictures(values: Tensor, like: ImageSet) -> np.ndarray:
    """(N, D) in [0, 1] -> (N, H, W, C) uint8."""
    height, width, channels = like.images.shape[1:]
    return as_uint8(values.reshape(-1, channels, height, width))
