"""Findings 11 to 14, published runs: restoration, other sizes, variance, and the logged loss."""

from __future__ import annotations

from decimal import Decimal

from efflib.papers.safety.audit.evidence import CNN, DECODER, METHODS, ROMAN, SHORT, TEXT, Printed
from efflib.papers.safety.drift import NETWORKS, q_after, sizes_after
from efflib.report.audit import Finding, exact, half_up, words_of

# --- restoration and pruning ------------------------------------------------------------------------------


def write_through_view() -> str:
    """What PyTorch says when a trained bit depth is written through a view of it, as the notebooks' restoration does.

    Returns:
        The error's first sentence, or "" if the write succeeds.
    """
    import torch

    bits = torch.nn.Parameter(torch.full((4, 1, 1, 1), -1.0))
    try:
        bits.view(-1)[torch.tensor([0])] = 2.0
    except RuntimeError as error:
        return str(error).partition(".")[0]
    return ""


def restoration(printed: Printed) -> Finding:
    fact = printed.facts["restoration_code"]
    ends = {n: float(8 * sizes_after(n, 10_000)[-1]) / NETWORKS[n].weights for n in NETWORKS}
    least = {n: float(8 * min(printed.size(n, m) for m in METHODS)) / NETWORKS[n].weights for n in NETWORKS}
    needed = next(n for n in range(1, 100) if int(fact["fraction"] * n) > 0)
    said = write_through_view()
    rows = tuple(
        {
            "network": SHORT[n],
            "bits after the loop's 10,000 steps": half_up(Decimal(ends[n]), 2),
            "bits at the smallest printed size": half_up(Decimal(least[n]), 2),
        }
        for n in NETWORKS
    )
    text = (
        "The paper's safety mechanism gives bits back where the preservation set suffers. In the published notebooks "
        f"it could not act: it looks for channels with b <= 0, while the bit depths end at {ends[CNN]:.1f} (CNN) and "
        f"{ends[DECODER]:.1f} (decoder); it restores int({fact['fraction']:g} n) of n such channels, none for fewer "
        f"than {needed}; and it writes through a view of a trained parameter, "
        + (f'which PyTorch refuses ("{said}")' if said else "which this version of PyTorch allows")
        + f". An older notebook restores int({fact['fraction']:g} x {fact['layers']}) = "
        f"{int(fact['fraction'] * fact['layers'])} layers. Only an older script for another decoder could act; no "
        "output of it is in the repository. Nothing is removed physically in any notebook, so that the shorter steps "
        "of Fig. 1(b) must have another origin. We implement both and log every event."
    )
    numbers = {f"bits_{SHORT[n]}": ends[n] for n in NETWORKS} | {"needed": needed, "refused": bool(said)}
    numbers |= {f"least_{SHORT[n]}": least[n] for n in NETWORKS}
    numbers |= {"layers_restored": int(fact["fraction"] * fact["layers"])}
    title = "Restoration and removal appear not to have acted in the published runs"
    quotes = words_of(TEXT, "restored", "increase", "pruned", "accelerates")
    sources = printed.sources("restoration_code", "main_code")
    tables = ("table1", "table2", "figures")
    return Finding("safety-11", title, text, "text", "major", tables, rows, numbers, quotes, sources)


# --- other published runs ---------------------------------------------------------------------------------


def other_runs(printed: Printed) -> Finding:
    names = ("cnn_two_bits_unsafe", "self_compression_demo", "cnn_earlier", "cnn_main")
    rows = [
        {
            "published in": ROMAN[CNN],
            "method": method,
            "accuracy, %": printed.score(CNN, method),
            "bytes": f"{printed.size(CNN, method):,.0f}",
        }
        for method in METHODS
    ]
    for name in names:
        line = printed.logged(name)
        rows.append(
            {
                "published in": f"{printed.references[name]['name']} ({line['initial_bits']} bits at the start)",
                "method": line["method"],
                "accuracy, %": Decimal(f"{line['value']:.2f}"),
                "bytes": f"{line['bytes']:,.0f}",
            }
        )
    unsafe = printed.logged("cnn_two_bits_unsafe")
    ratio = float(printed.size(CNN, "unsafe")) / unsafe["bytes"]
    better = exact(unsafe["value"]) - printed.score(CNN, "unsafe")
    sizes = printed.facts["readme"]["sizes"]
    ours = {m: 100 * sizes[m] / sizes["float"] for m in ("unsafe", "safe")}
    theirs = {m: 100 * float(printed.size(CNN, m) / printed.size(CNN, "float")) for m in ("unsafe", "safe")}
    text = (
        f"Table I has the unsafe method at {printed.score(CNN, 'unsafe'):.1f} % and "
        f"{printed.size(CNN, 'unsafe'):,} bytes. The authors' own notebook that starts at two bits reaches "
        f"{unsafe['value']:.2f} % ({better:+.2f} points) with {unsafe['bytes']:,.0f} bytes, {ratio:.1f} times less. "
        f"The repository's README prints the three accuracies of Table I beside other sizes, {sizes['float']}, "
        f"{sizes['unsafe']} and {sizes['safe']} bytes: {ours['unsafe']:.0f} and {ours['safe']:.0f} % of the first, "
        f"where Table I has {theirs['unsafe']:.0f} and {theirs['safe']:.0f} %."
    )
    numbers = {"ratio": ratio, "better": float(better), "readme_unsafe": ours["unsafe"], "readme_safe": ours["safe"]}
    title = "The authors' own two-bit run is eleven times smaller, and more accurate"
    sources = printed.sources(*names, "readme")
    tables = ("table1", "pareto")
    return Finding("safety-12", title, text, "baselines", "major", tables, tuple(rows), numbers, (), sources)


def variance(printed: Printed) -> Finding:
    spread = [name for name in TEXT if name.startswith("variance")]
    stated = printed.score(CNN, "float")
    published = [printed.logged(name)["value"] for name in ("cnn_main", "cnn_earlier")]
    misses = [100 - float(stated), *(100 - value for value in published)]
    runs = [table.runs for table in printed.tables.values()]
    rows = tuple({"where": TEXT[name].where, "as printed": TEXT[name].words} for name in spread)
    text = (
        f"Less variance is claimed in {len(spread)} parts of the paper, but no number of runs, no seed, no deviation "
        f"and no train-test gap is given ({sum(run is not None for run in runs)} of {len(runs)} columns state runs). "
        f"The float CNN's {stated} % is low for this network on MNIST: in two published logs of it, at more than 20 "
        f"bits per weight, where quantisation changes next to nothing, it reaches {published[0]:.2f} and "
        f"{published[1]:.2f} %, {misses[0] / misses[1]:.1f} and {misses[0] / misses[2]:.1f} times fewer errors. Those "
        "runs saw test images in training (safety-9). We train the float network for the same number of steps, with "
        "several seeds."
    )
    numbers = {"places": len(spread), "runs_stated": sum(run is not None for run in runs), "float": float(stated)}
    numbers |= {"errors_ratio": misses[0] / misses[1]}
    title, tables = (
        "Variance is claimed without a number, and the float accuracy is low",
        ("table1", "table2", "figures"),
    )
    sources = printed.sources("cnn_main", "cnn_earlier")
    return Finding("safety-13", title, text, "statistics", "notable", tables, rows, numbers, (), sources)


def reported_loss(printed: Printed) -> Finding:
    gamma = printed.facts["main_code"]["gamma"]
    rows = []
    for name in ("cnn_main", "cnn_earlier"):
        line = printed.logged(name)
        q = q_after(CNN, line["bytes"])
        rows.append(
            {
                "published in": printed.references[name]["name"],
                "bytes": f"{line['bytes']:,.1f}",
                "Q": f"{q:.3f}",
                "gamma Q": f"{gamma * q:.3f}",
                "logged loss": f"{line['loss']:.2f}",
                "left for everything else": f"{line['loss'] - gamma * q:.3f}",
            }
        )
    main = printed.logged("cnn_main")
    q = q_after(CNN, main["bytes"])
    text = (
        f"The loss that the CNN's notebook logs at the end is {main['loss']:.2f}. {main['bytes']:,.1f} bytes mean Q = "
        f"{q:.3f}, and gamma Q = {gamma * q:.3f} is all of it: {main['loss'] - gamma * q:.3f} is left for "
        "cross-entropy and preservation together. A falling curve of this loss shows the drift, not learning."
    )
    numbers = {"q": q, "penalty": gamma * q, "loss": main["loss"], "rest": main["loss"] - gamma * q}
    title, sources = "The logged loss is the penalty", printed.sources("cnn_main", "cnn_earlier", "main_code")
    tables = ("table1", "figures", "drift")
    return Finding("safety-14", title, text, "text", "minor", tables, tuple(rows), numbers, (), sources)
