"""Findings 4 to 7, sizes: step counts, counts without quantisation, attention alone, and averages over starts."""

from __future__ import annotations

from decimal import Decimal
from statistics import fmean

from efflib.papers.safety.audit.counting import log_lines, published_sizes
from efflib.papers.safety.audit.evidence import CNN, DECODER, METHODS, ROMAN, SHORT, TEXT, Printed
from efflib.papers.safety.drift import GAMMA, NETWORKS, START_BITS, Network, sizes_after, steps_to
from efflib.report.audit import Finding, half_up, words_of

# --- sizes that follow from a step count ------------------------------------------------------------------


def drift(printed: Printed) -> Finding:
    sizes, lines = published_sizes(), log_lines()
    rows = tuple(
        {
            "network": SHORT[size.network],
            "published in": size.where,
            "row": size.method,
            "published, bytes": f"{size.match.wanted:,.1f}".removesuffix(".0"),
            "drift, bytes": f"{size.match.size:,.2f}",
            "after steps": size.match.steps,
            "steps of the loop": size.steps_stated,
            "apart, bytes": half_up(Decimal(size.match.off), 2),
            "one step, bytes": half_up(Decimal(size.match.spacing), 1),
        }
        for size in sizes
    )
    steps = {(size.network, size.method): size.match.steps for size in sizes if size.where == ROMAN[size.network]}
    apart = {n: steps[n, "unsafe"] - steps[n, "safe"] for n in NETWORKS}
    (end,) = [size for size in sizes if size.where == printed.references["cnn_main"]["name"]]
    loop = printed.logged("cnn_main")["loop"]
    gammas = {gamma: float(sizes_after(CNN, loop, gamma=gamma)[-1]) for gamma in (0.01, 0.05, GAMMA, 1.0, 10.0)}
    alike = [gamma for gamma, size in gammas.items() if size == gammas[GAMMA]]
    same = sum(line.same for line in lines)
    largest = max(abs(size.match.off) for size in sizes if size.where == ROMAN[size.network])
    text = (
        f"The published runs start at {START_BITS:g} bits per weight. There nothing is clipped, the bit depths receive "
        "no gradient but the constant one of the penalty, and Adam turns a constant gradient of any size into the "
        "learning rate. Simulating the optimiser alone, without data and without a network, gives the size and Q of "
        f"{same} of the {len(lines)} log lines of the decoder quoted here to the printed digit, and the CNN's last "
        f"logged size ({end.match.wanted:,.1f} bytes) after {end.match.steps:,} steps ({end.match.size:,.2f}). After "
        f"{loop:,} steps the CNN has {gammas[GAMMA]:,.0f} bytes for gamma {', '.join(f'{g:g}' for g in alike)} alike "
        f"({gammas[0.01]:,.0f} for 0.01); the preservation weight, the batch size and the data do not enter. Read so, "
        f"safe and unsafe models of the tables differ by {apart[CNN]} (CNN) and {apart[DECODER]:,} (decoder) steps. "
        f"The tables' own sizes lie up to {largest:.1f} bytes beside a whole number of steps; the paper says that they "
        "are averages. As every size lies within half a step of one, they are consistent with a step count, not proof "
        "of it."
    )
    numbers: dict[str, float] = {f"steps_{SHORT[n]}_{m}": count for (n, m), count in steps.items()}
    numbers |= {f"apart_{SHORT[n]}": count for n, count in apart.items()}
    numbers |= {"lines": len(lines), "same_lines": same, "end_steps": end.match.steps, "end_off": end.match.off}
    numbers |= {"largest_off": largest, "gammas": len(gammas), "gammas_alike": len(alike)}
    numbers |= {"size_10000": gammas[GAMMA]}
    title = "The sizes follow from the number of steps and the learning rate"
    tables = ("table1", "table2", "figures", "drift", "pareto")
    quotes = words_of(TEXT, "learned", "requirements", "averaged")
    sources = printed.sources("cnn_main", "cnn_earlier", "decoder_main", "main_code")
    return Finding("safety-4", title, text, "statistics", "major", tables, rows, numbers, quotes, sources)


# --- counts of the networks -------------------------------------------------------------------------------


def _counts(network: Network) -> dict[str, int]:
    return {
        "quantised weights": network.weights,
        "float network": network.parameters,
        "with bit depths and exponents": network.scalars,
    }


def original_size(printed: Printed) -> Finding:
    rows = tuple(
        {
            "network": SHORT[name],
            "counted": what,
            "scalars": count,
            **{f"bytes at {bits} bits": count * bits // 8 for bits in (32, 16, 8)},
            "printed, bytes": int(printed.size(name, "float")),
        }
        for name, network in NETWORKS.items()
        for what, count in _counts(network).items()
    )
    equal = sum(row["printed, bytes"] in [row[f"bytes at {bits} bits"] for bits in (32, 16, 8)] for row in rows)
    match = steps_to(float(printed.size(CNN, "float")), CNN)
    grid = match.spacing
    bits = float(8 * printed.size(CNN, "float")) / NETWORKS[CNN].weights
    rest = int(printed.size(DECODER, "float")) % 4
    near, rounded = 2 * abs(match.off) / grid, 1 / grid
    text = (
        f"Of {len(rows)} counts of the two networks, at 32, 16 or 8 bits, {equal or 'none'} gives a printed size "
        f"without quantisation. The CNN's {int(printed.size(CNN, 'float')):,} bytes are {bits:.2f} bits for each of "
        f"its {NETWORKS[CNN].weights:,} convolution weights, the size that a quantised run passes after {match.steps} "
        f"steps ({match.size:,.2f} bytes). Steps are {grid:.1f} bytes apart there, so that a whole number chosen at "
        f"random equals a rounded size of the line with a chance of {100 * rounded:.0f} % and lies as near to it as "
        f"this one with {100 * near:.1f} %. The decoder's {int(printed.size(DECODER, 'float')):,} bytes are not "
        f"divisible by 4 (remainder {rest}), so they are no count of float32 numbers; what they count is open, but it "
        f"is more than the quantised weights, {4 * NETWORKS[DECODER].weights:,} bytes at 32 bits, that the other rows "
        "appear to count."
    )
    numbers = {"equal": equal, "steps": match.steps, "off": match.off, "grid": grid, "bits": bits, "remainder": rest}
    numbers |= {"chance_percent": 100 * near, "chance_rounded_percent": 100 * rounded}
    numbers |= {
        f"{SHORT[n]}_{what.replace(' ', '_')}": 4 * c for n in NETWORKS for what, c in _counts(NETWORKS[n]).items()
    }
    title = "The sizes without quantisation are not those of the float networks"
    return Finding(
        "safety-5",
        title,
        text,
        "baselines",
        "major",
        ("table1", "table2", "drift"),
        rows,
        numbers,
        words_of(TEXT, "sizes"),
        printed.sources("main_code"),
    )


def attention_only(printed: Printed) -> Finding:
    decoder = NETWORKS[DECODER]
    weights = sum(layer.weights for layer in decoder.layers if layer.name.endswith(("qkv", "proj")))
    least = {
        "float decoder of the code": 4 * decoder.parameters - 4 * weights,
        "printed size": int(printed.size(DECODER, "float")) - 4 * weights,
    }
    rows = tuple(
        {
            "start from": what,
            "attention at 0 bits, bytes": size,
            "unsafe as printed": int(printed.size(DECODER, "unsafe")),
            "safe as printed": int(printed.size(DECODER, "safe")),
        }
        for what, size in least.items()
    )
    above = min(least.values()) > max(printed.size(DECODER, method) for method in ("unsafe", "safe"))
    text = (
        f"The text says that only attention layers are quantised. They hold {weights:,} weights, {4 * weights:,} "
        f"bytes: even at zero bits the decoder would keep {least['float decoder of the code']:,} bytes "
        f"({least['printed size']:,} from the printed size), {'more' if above else 'not more'} than both compressed "
        f"sizes of Table II ({printed.size(DECODER, 'safe'):,} and {printed.size(DECODER, 'unsafe'):,}). The published "
        "code quantises feed-forward layers and the head too; so do we, with attention alone as an option."
    )
    numbers = {"weights": weights, "bytes": 4 * weights, "above": above, "left": least["float decoder of the code"]}
    numbers |= {"left_of_printed": least["printed size"]}
    title = "Table II is impossible if only attention is quantised"
    quotes, sources = words_of(TEXT, "attention", "heads"), printed.sources("main_code")
    return Finding("safety-6", title, text, "text", "major", ("table2", "pareto"), rows, numbers, quotes, sources)


def averaged(printed: Printed) -> Finding:
    stated = [int(number) for number in TEXT["bits"].numbers]
    rows = tuple(
        {
            "bits at the start": bits,
            **{f"{SHORT[n]}, bytes": int(NETWORKS[n].bytes_per_bit * bits) for n in NETWORKS},
        }
        for bits in stated
    )
    most = {n: max(int(row[f"{SHORT[n]}, bytes"]) for row in rows) for n in NETWORKS}
    means = {n: fmean(int(row[f"{SHORT[n]}, bytes"]) for row in rows) for n in NETWORKS}
    least = {n: min(printed.size(n, method) for method in METHODS) for n in NETWORKS}
    below = sum(most[n] < least[n] for n in NETWORKS)
    text = (
        f"Results are said to be averages over starts of {', '.join(map(str, stated[:-1]))} and {stated[-1]} bits. A "
        f"start at {stated[-1]} bits already takes {most[CNN]:,} (CNN) and {most[DECODER]:,} (decoder) bytes, below "
        f"every size of {'both' if below == len(most) else below} tables ({least[CNN]:,} and {least[DECODER]:,} at "
        "least); the mean "
        f"of these starts is {means[CNN]:,.0f} and {means[DECODER]:,.0f}. Counted as in the published code, the tables "
        "cannot contain runs that started so. We start at 32 bits to repeat the tables, and at 8 and 2 beside them."
    )
    numbers = {f"most_{SHORT[n]}": float(most[n]) for n in NETWORKS} | {"below": below}
    numbers |= {f"mean_{SHORT[n]}": means[n] for n in NETWORKS}
    title = "Starts of 2 to 16 bits are smaller than every printed size"
    return Finding(
        "safety-7",
        title,
        text,
        "statistics",
        "major",
        ("table1", "table2", "drift", "pareto"),
        rows,
        numbers,
        words_of(TEXT, "bits", "averaged"),
        printed.sources("main_code"),
    )
