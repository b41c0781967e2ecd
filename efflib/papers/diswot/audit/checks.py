"""Finding 19, what checks out: repeated numbers, and the networks to the last parameter."""

from __future__ import annotations

import math
from decimal import Decimal

from efflib.papers.diswot.audit.counting import points
from efflib.papers.diswot.audit.evidence import BEST, METHODS, TEXT, Printed, words
from efflib.papers.diswot.costs import cost, recorded
from efflib.papers.diswot.space import ROLES, TEACHER
from efflib.report.audit import Finding, half_up


def head_widths(printed: Printed) -> list[tuple[int, int]]:
    """Widths (a, b) of dense a - dense b - dense 4 on a MobileNetV2 that give both parameter counts of Table 3.6."""
    teacher, student = (int(printed.value("table3_6_parameters", model=name)) for name in (TEACHER.name, BEST))
    backbone = cost(BEST).backbone_keras_parameters
    last = recorded(BEST, part="backbone").convolutions[-1].outputs
    flat, classes = math.prod(last), len(printed.facts["kaggle_split"]["test"])
    found = []
    for a in range(1, 4097):
        b, odd = divmod(student - backbone - a * (last[0] + 1) - classes, a + 1 + classes)
        if b > 0 and not odd and teacher - student == a * (flat - last[0]):
            found.append((a, b))
    return found


def _repeats(printed: Printed) -> list[tuple[str, Decimal, Decimal]]:
    """Where, the number in one place, the same number in another."""
    pairs = [
        (
            f"{METHODS[m]}, validation after 10 epochs",
            points(printed, "table3_4", m),
            printed.value("fig3_6", method=m),
        )
        for m in ("baseline", "kd", "gradcam_l2")
    ]
    pairs += [
        (
            f"{METHODS[m]}, training after 10 epochs",
            points(printed, "table3_4_train", m),
            printed.value("fig3_7", method=m, epochs=10),
        )
        for m in ("baseline", "kd", "gradcam_l2")
    ]
    pairs += [
        (
            "best student and Model 1, test",
            printed.role("table3_3", "Best"),
            printed.value("table3_5", method="gradcam_l2", epochs=15),
        ),
        (
            "best student and Model 1, training",
            printed.role("table3_3_train", "Best"),
            printed.value("table3_5_train", method="gradcam_l2", epochs=15),
        ),
        ("Model 5 and optimal student", printed.value("table3_5", epochs=50), printed.value("table3_6", model=BEST)),
    ]
    for role, name in (("teacher", TEACHER.name), ("student", BEST)):
        places = zip(TEXT[f"{role}_size"].numbers, ("parameters", "flops", "macs"), (2, 1, 1))
        for stated, what, digits in places:
            table = printed.value(f"table3_6_{what}", model=name) / 10**6
            pairs.append((f"{role}, {what} in millions", stated, half_up(table, digits)))
    return pairs


def checked(printed: Printed) -> Finding:
    repeated = _repeats(printed)
    rows = tuple(
        {"number": what, "in one place": first, "in another": second, "equal": first == second}
        for what, first, second in repeated
    )
    equal = sum(first == second for _, first, second in repeated)
    widths = head_widths(printed)
    counts = [
        int(printed.value(f"table3_6_{what}", model=name)) == getattr(cost(name), attribute)
        for name in (TEACHER.name, BEST)
        for what, attribute in (("parameters", "keras_parameters"), ("flops", "profiler_flops"))
    ]
    sizes = {name: cost(name).megabytes for name in (TEACHER.name, BEST)}
    whole = [math.floor(sizes[name]) == printed.value("table3_6_size", model=name) for name in sizes]
    small = cost(ROLES["Bad"]).backbone_keras_parameters
    same = sum(printed.role("table3_3_parameters", role) == small for role in ROLES)
    text = (
        f"{equal} of {len(repeated)} numbers that stand in two places agree. "
        f"Built from the description, {sum(counts)} of {len(counts)} counts of Table 3.6 come out to the last "
        f"digit, and the sizes are four bytes for each parameter ({sizes[TEACHER.name]:.2f} and {sizes[BEST]:.2f} MB, "
        f"printed without decimals). Only one head of three dense layers fits both counts: "
        f"{' and '.join(f'{a}, {b}' for a, b in widths)} and 4 units. The {small:,} parameters of "
        f"{same} rows of Table 3.3 are those of a backbone of width 0.35. The networks of this book are therefore the "
        "thesis's, as far as it describes them."
    )
    numbers = {"repeated": len(repeated), "equal": equal, "counts": len(counts), "counts_equal": sum(counts)}
    numbers |= {"heads": len(widths), "first": widths[0][0] if widths else 0, "second": widths[0][1] if widths else 0}
    numbers |= {"sizes_whole": sum(whole), "teacher_mb": sizes[TEACHER.name], "student_mb": sizes[BEST], "narrow": same}
    title = "What checks out: repeated numbers, and the networks to the last parameter"
    quotes, tables = words("teacher_size", "student_size"), ("table3_6", "table3_5", "table3_3", "table3_4")
    return Finding("diswot-19", title, text, "arithmetic", "minor", tables, rows, numbers, quotes)
