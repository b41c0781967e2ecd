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
# (bimask-table2)=
# # Table 2: does BIMask improve a trained network?

# %% tags=["remove-input"]
from efflib.papers import bimask
from efflib.report.notebook import TablePage

TablePage(bimask.tables["table2"], "smoke", 1).headline(
    [("bimask", "baseline"), ("bimask", "original_only"), ("bimask", "shuffled")]
)

# %% [markdown]
# The paper's main table: eight networks, two data sets, accuracy before and after BIMask. Ours adds four controls with the
# same number of updates, because BIMask trains longer than its baseline.

# %% tags=["parameters"]
# scale: smoke (embedded data, seconds), tiny, small or paper; see "Running it again" for the data they need.
scale = "smoke"
seeds = [0]
device = "auto"
engine = "local"
recompute = False
models: list = None
datasets: list = None
methods: list = None

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% tags=["hide-input"]
from efflib.papers.bimask import show
from efflib.report import figures
from efflib.trials import Store

table = bimask.tables["table2"]
choices = {"models": models, "datasets": datasets, "methods": methods}
page = TablePage(table, scale, seeds, device, engine, recompute, bimask.findings(), choices)

# %% [markdown]
# ## What the paper prints and claims
#
# After fine-tuning on originals and masked copies every network is printed to gain, on both data sets; the text calls the
# improvement consistent. The numbers in parentheses are the printed gains, in percentage points.

# %% tags=["remove-input"]
page.printed()

# %% [markdown]
# ## What this page trains
#
# Each seed trains its own baseline; every arm starts from it. Same settings mean the same trial, so a baseline that another
# table has trained is not trained again.

# %% tags=["remove-input"]
page.plan()

# %% [markdown]
# ## The method in brief
#
# From the trained baseline we take, for each training image, the gradient of the predicted class at the last convolution
# (equation {eq}`bimask-saliency`), blacken the least salient pixels (10 % for VGG, 7.5 % for residual networks), and
# fine-tune on originals and masked copies together. Below: what the first network of this run would remove.

# %% tags=["hide-input"]
first = page.results.entries[0].trial  # the baseline: trained now if it is not recorded
if scale == "smoke":
    picture = show.strip(show.trained_model(first, Store.for_scale(scale)), ratio=0.1)
else:
    picture = None  # pictures show embedded data only: the licences of the real sets do not clearly allow more
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
METHODS = ["bimask", "original_only", "random", "shuffled", "inverse"]
NAMES = {
    "bimask": "BIMask",
    "original_only": "originals only (C1)",
    "random": "random pixels (C2)",
    "shuffled": "other images' masks (C3)",
    "inverse": "most salient removed (C4)",
}
figures.gains(page.show_scale(), METHODS, NAMES)

# %% [markdown]
# The gain can be taken apart: what longer training gives (C1 less baseline), what black patches of this shape add
# wherever they fall (C3 less C1), and what is left for the saliency itself (BIMask less C3).

# %% tags=["remove-input"]
page.decomposition(["baseline", "original_only", "shuffled", "bimask"])

# %% [markdown]
# ## Claims
#
# A claim is `supported` when every cell it speaks of ran and its 95 % interval lies on the claimed side, `contradicted`
# when one lies wholly on the other side, and `undetermined` otherwise. A claim about all cells needs all of them: a scale
# that runs only some can contradict it, never support it. Claims marked *ours* are the questions that the
# paper does not ask. The wording and the statistics were fixed before any run.

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
# :label: bimask-table2-ex1
#
# Recompute all printed gains of this table from the printed accuracies. Which one differs from what is printed in
# parentheses, and by how much? Expected output:
#
# ```text
# resnet14 cifar100: printed +0.36, recomputed +0.41
# ```
# ````
#
# ````{solution} bimask-table2-ex1
# :class: dropdown
#
# ```python
# from efflib.papers.bimask import printed
#
# table = printed["table2"]
# for cell in table.numbers:
#     base = table.baseline(cell.keys)
#     if base is not None and abs(cell.value - base.value - cell.gain) > 0.005:
#         gain = cell.value - base.value
#         print(f"{cell.keys['model']} {cell.keys['dataset']}: printed {cell.gain:+.2f}, recomputed {gain:+.2f}")
# ```
# ````
#
# ````{exercise}
# :label: bimask-table2-ex2
#
# How many trials does this table need at paper scale with five seeds, and how many of them are baselines? Ask the plan;
# it needs no data. Expected output:
#
# ```text
# 480 trials, 80 of them baselines
# ```
# ````
#
# ````{solution} bimask-table2-ex2
# :class: dropdown
#
# ```python
# from efflib.papers.bimask import tables
#
# trials = tables["table2"].trials("paper", seeds=5)
# baselines = [trial for trial in trials if trial.recipe == "baseline"]
# print(f"{len(trials)} trials, {len(baselines)} of them baselines")
# ```
# ````
