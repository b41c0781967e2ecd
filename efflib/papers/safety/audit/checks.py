"""Finding 16, what checks out: repeated numbers, and the networks."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from efflib.papers.safety.audit.evidence import CNN, DECODER, SHORT, TEXT, Printed
from efflib.papers.safety.drift import NETWORKS, START_BITS, q_after, tight_start_bytes
from efflib.report.audit import Finding, words_of


def _repeated(printed: Printed) -> Iterator[tuple[str, Decimal, Decimal]]:
    """Where, stated in the text, printed in a table."""
    places = {
        "sizes": [(printed.size, n, m) for n in NETWORKS for m in ("float", "safe")],
        "performance": [(printed.score, n, m) for n in NETWORKS for m in ("float", "safe")],
    }
    for name, cells in places.items():
        for stated, (read, network, method) in zip(TEXT[name].numbers, cells):
            yield f"{SHORT[network]}, {method}", stated, read(network, method)


def checked(printed: Printed) -> Finding:
    repeated = list(_repeated(printed))
    rows = tuple({"cell": cell, "in the text": stated, "in the table": table} for cell, stated, table in repeated)
    equal = sum(stated == table for _, stated, table in repeated)
    cnn = NETWORKS[CNN]
    start = q_after(DECODER, NETWORKS[DECODER].bytes_per_bit * START_BITS)
    logged = printed.log("decoder_main")[0]["q"]
    tight = tight_start_bytes(CNN)
    text = (
        f"{equal} of {len(repeated)} numbers that the text repeats are those of the tables. The first logged Q of the "
        f"decoder, {logged:.4f}, is what {NETWORKS[DECODER].weights:,} weights of {START_BITS:g} bits over "
        f"{NETWORKS[DECODER].scalars:,} trained scalars give ({start:.4f}): the networks of the published code are "
        f"those that we build. Sizes are nominal: the codes of the CNN's freshly drawn weights fit into {tight:,.0f} "
        f"bytes ({8 * tight / cnn.weights:.2f} bits per weight), whatever its {START_BITS:g} bits."
    )
    numbers = {"repeated": len(repeated), "equal": equal, "q_logged": logged, "q": start, "tight": tight}
    title, tables = "What checks out: repeated numbers, the networks", ("table1", "table2", "drift")
    sources = printed.sources("decoder_main", "main_code")
    quotes = words_of(TEXT, "sizes", "performance")
    return Finding("safety-16", title, text, "arithmetic", "minor", tables, rows, numbers, quotes, sources)
