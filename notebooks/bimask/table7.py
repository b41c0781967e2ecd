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
# (bimask-table7)=
# # Table 7: how many pixels should be removed?

# %% tags=["remove-input"]
from efflib.papers import bimask
from efflib.report.notebook import TablePage

TablePage(bimask.tables["table7"], "smoke", 1).headline()

# %% [markdown]
# VGG8 with six masking ratios. The paper picks its ratio from this table, on the test sets it then reports. Ours runs the
# same sweep with other images' masks (C3).

# %% tags=["parameters"]
# scale: smoke (embedded data, seconds), tiny, small or paper; see "Running it again" for the data they need.
scale = "smoke"
seeds = [0]
device = "auto"
engine = "local"
recompute = False
ratios: list = None
datasets: list = None

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% tags=["hide-input"]
from efflib.papers.bimask import show
from efflib.report import figures
from efflib.trials import Store

table = bimask.tables["table7"]
choices = {"ratios": ratios, "datasets": datasets}
page = TablePage(table, scale, seeds, device, engine, recompute, bimask.findings(), choices)

# %% [markdown]
# ## What the paper prints and claims
#
# The printed accuracy peaks at 10 % on both data sets. On CIFAR-10 every ratio is printed to gain; on CIFAR-100 large ratios
# are printed to lose.

# %% tags=["remove-input"]
page.printed()

# %% [markdown]
# ## What this page trains
#
# The baseline and the 10 % arm are shared with Table 2.

# %% tags=["remove-input"]
page.plan()

# %% [markdown]
# ## The method in brief
#
# The ratio $\mu$ is the removed fraction of the pixels. Below, for this run's first network: the image, its saliency, and
# the masked copy at each ratio.

# %% tags=["hide-input"]
first = page.results.entries[0].trial
picture = (
    show.ratio_strip(show.trained_model(first, Store.for_scale(scale)), (0.05, 0.1, 0.2, 0.3))
    if scale == "smoke"
    else None
)
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
NAMES = {"bimask": "BIMask", "shuffled": "other images' masks (C3)"}
figures.sweep(page.show_scale(), "masking_ratio", "removed fraction", list(NAMES), NAMES)

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
# :label: bimask-table7-ex1
#
# At which ratio is the printed gain largest, and from which ratio on is it negative, per data set? Expected output:
#
# ```text
# cifar10: largest at 0.1, negative at []
# cifar100: largest at 0.1, negative at [0.2, 0.3]
# ```
# ````
#
# ````{solution} bimask-table7-ex1
# :class: dropdown
#
# ```python
# from efflib.papers.bimask import printed
#
# for dataset in ("cifar10", "cifar100"):
#     cells = [c for c in printed["table7"].numbers if c.keys["dataset"] == dataset and c.gain is not None]
#     best = max(cells, key=lambda cell: cell.gain).keys["masking_ratio"]
#     negative = [cell.keys["masking_ratio"] for cell in cells if cell.gain < 0]
#     print(f"{dataset}: largest at {best}, negative at {negative}")
# ```
# ````
#
# ````{exercise}
# :label: bimask-table7-ex2
#
# On a $4 \times 4$ map enlarged to $32 \times 32$, how many cells' worth of pixels does each ratio remove? Expected output:
#
# ```text
# 0.05 0.8
# 0.1 1.6
# 0.3 4.8
# ```
# ````
#
# ````{solution} bimask-table7-ex2
# :class: dropdown
#
# A cell of the map covers 64 pixels of the image.
#
# ```python
# from efflib.kernels.mask_least_salient import removed_count
#
# for ratio in (0.05, 0.1, 0.3):
#     print(ratio, round(removed_count(ratio, 32, 32) / 64, 1))
# ```
# ````
