# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (bimask-table3)=
# # Table 3: what if the network sees masked images only?

# %% tags=["remove-input"]
from efflib.papers import bimask
from efflib.report.notebook import TablePage

TablePage(bimask.tables["table3"], "smoke", 1).headline([("masked_only", "baseline"), ("masked_only", "original_only")])

# %% [markdown]
# The paper's counter-check: fine-tuning on the masked copies alone. It is printed to cost about a point of accuracy, which
# the authors read as evidence that both kinds of images are needed.

# %% tags=["parameters"]
# scale: smoke (embedded data, seconds), tiny, small or paper; see "Running it again" for the data they need.
scale = "smoke"
seeds = [0]
device = "auto"
engine = "local"
recompute = False
models: list = None
datasets: list = None

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% tags=["hide-input"]
from efflib.papers.bimask import show
from efflib.report import figures
from efflib.trials import Store

table = bimask.tables["table3"]
choices = {"models": models, "datasets": datasets}
page = TablePage(table, scale, seeds, device, engine, recompute, bimask.findings(), choices)

# %% [markdown]
# ## What the paper prints and claims
#
# Every network is printed to lose when it is fine-tuned on masked images only; the two averages in the paper's last row are
# recomputed on the [audit page](../../audit.md). The test images are never masked.

# %% tags=["remove-input"]
page.printed()

# %% [markdown]
# ## What this page trains
#
# Baselines and C1 are shared with Table 2: what that page has trained is read, not repeated.

# %% tags=["remove-input"]
page.plan()

# %% [markdown]
# ## The method in brief
#
# The masks are those of [Table 2](table2.ipynb). Masked-only training has $N$ images instead of $2N$, so it runs twice as
# many passes: all arms make the same number of updates. `original_only` (C1) shows what the same updates do on clean images.
# Below: the masked copies, next to what the network sees at test time.

# %% tags=["hide-input"]
first = page.results.entries[0].trial
picture = show.strip(show.trained_model(first, Store.for_scale(scale)), ratio=0.075) if scale == "smoke" else None
picture

# %% [markdown]
# ## The run

# %%
results = page.results

# %% tags=["remove-input"]
page.measured()

# %% [markdown]
# ## Printed against measured
#
# At `tiny` scale networks see a fixed, stratified subset of 10,000 training images, 1,000 of them held out, for a short
# schedule: such runs test the *direction* of a claim. Their accuracies are not comparable with the printed ones, so no
# cell gets a verdict from them.

# %% tags=["remove-input"]
page.comparison()

# %% tags=["hide-input"]
NAMES = {"masked_only": "masked only", "original_only": "originals only (C1)"}
figures.gains(page.show_scale(), list(NAMES), NAMES)

# %% [markdown]
# ## Claims
#
# A claim is `supported` when every cell it speaks of ran and its 95 % interval lies on the claimed side, `contradicted`
# when one lies wholly on the other side, and `undetermined` otherwise. A claim about all cells needs all of them: a scale
# that runs only some can contradict it, never support it. Claims marked *ours* are the questions that the
# paper does not ask. The paper's claim compares with the baseline. In short schedules a baseline still gains from any further training, and
# masked images may do so too; what masking itself costs is the difference to *originals only (C1)* above. The wording and the statistics were fixed before any run.

# %% tags=["remove-input"]
page.claims()

# %% [markdown]
# ## Cost and provenance

# %% tags=["remove-input"]
page.cost()

# %% [markdown]
# ## What the audit says about this table

# %% tags=["remove-input"]
page.audit()

# %% [markdown]
# ## Repeat it
#
# This line runs the table again on your machine, at the scale you choose; what is recorded is not run twice. Set
# `EFFLIB_DATA` to a folder with the data, or let the first run download them.

# %% tags=["remove-input"]
page.repeat()

# %% [markdown]
# ## Exercises
#
# ````{exercise}
# :label: bimask-table3-ex1
#
# This table prints baselines again. For which network do they differ from Table 2's, and whose numbers are they?
# Expected output:
#
# ```text
# resnet18 cifar10: table 2 89.20, table 3 93.71 (resnet56 in table 2)
# resnet18 cifar100: table 2 71.70, table 3 73.03 (resnet56 in table 2)
# ```
# ````
#
# ````{solution} bimask-table3-ex1
# :class: dropdown
#
# ```python
# from efflib.papers.bimask import printed
#
# second, third = printed["table2"], printed["table3"]
# for cell in third.numbers:
#     if cell.keys["method"] == "baseline":
#         other = second.cell(**cell.keys)
#         if other.value != cell.value:
#             same = {"method": "baseline", "dataset": cell.keys["dataset"]}
#             owner = next(c.keys["model"] for c in second.numbers if c.value == cell.value and same.items() <= c.keys.items())
#             where = f"{cell.keys['model']} {cell.keys['dataset']}"
#             print(f"{where}: table 2 {other.value:.2f}, table 3 {cell.value:.2f} ({owner} in table 2)")
# ```
# ````
#
# ````{exercise}
# :label: bimask-table3-ex2
#
# Show that all arms of one seed make the same number of updates at `tiny` scale (9,000 training images, batches of 64).
# Remember that the last, smaller batch of an epoch counts. Expected output:
#
# ```text
# bimask 1692
# masked_only 1692
# original_only 1692
# ```
# ````
#
# ````{solution} bimask-table3-ex2
# :class: dropdown
#
# ```python
# import math
# from efflib.papers.bimask.tables import arm
#
# for method in ("bimask", "masked_only", "original_only"):
#     training = arm("tiny", "resnet14", "cifar10", 0, method).settings.training
#     images = 9_000 * (1 if method == "masked_only" else 2)
#     print(method, training.epochs * math.ceil(images / training.batch_size))
# ```
# ````
