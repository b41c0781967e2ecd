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
# (bimask-table6)=
# # Table 6: which layer should give the saliency?

# %% tags=["remove-input"]
from efflib.papers import bimask
from efflib.report.notebook import TablePage

TablePage(bimask.tables["table6"], "smoke", 1).headline()

# %% [markdown]
# VGG13, saliency taken at each of the last four convolutions. The printed accuracy rises with depth; the text explains it by
# the deeper layers' semantic content.

# %% tags=["parameters"]
# scale: smoke (embedded data, seconds), tiny, small or paper; see "Running it again" for the data they need.
scale = "smoke"
seeds = [0]
device = "auto"
engine = "local"
recompute = False
layers: list = None
datasets: list = None

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% tags=["hide-input"]
import efflib
from efflib.papers.bimask import show
from efflib.report import figures
from efflib.trials import Store

table = bimask.tables["table6"]
choices = {"layers": layers, "datasets": datasets}
page = TablePage(table, scale, seeds, device, engine, recompute, bimask.findings(), choices)

# %% [markdown]
# ## What the paper prints and claims
#
# The printed accuracies rise from the fourth-to-last to the last convolution on both data sets, and all lie above the baseline.

# %% tags=["remove-input"]
page.printed()

# %% [markdown]
# ## What this page trains
#
# VGG13 is the largest network here. The smoke run narrows it to an eighth of its width and takes two of the four layers.

# %% tags=["remove-input"]
page.plan()

# %% [markdown]
# ## The method in brief
#
# Only the layer changes at which the gradient is taken. In VGG13 the last four convolutions all give $4 \times 4$ maps, so the
# table compares depth at one resolution. How different are the masks at all? Below: the overlap of the removed pixels
# (intersection over union) between the four layers, for this run's first network.

# %% tags=["hide-input"]
first = page.results.entries[0].trial
picture = (
    show.strip(show.trained_model(first, Store.for_scale(scale)), ratio=0.1, layers=(-4, -1))
    if scale == "smoke"
    else None
)
picture

# %% tags=["remove-input"]
overlap = None
if scale == "smoke":
    model = show.trained_model(first, Store.for_scale(scale))
    some = efflib.load_dataset("objects32", "test").take(range(0, 1000, 5))
    overlap = show.overlap_table(model, some, ratio=0.1, layers=(-4, -3, -2, -1))
overlap

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
NAMES = {"bimask": "BIMask"}
figures.sweep(page.show_scale(), "conv_index", "convolution, counted from the end", list(NAMES), NAMES)

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
# :label: bimask-table6-ex1
#
# What is the size of the map at each of VGG13's last four convolutions, for a 32 x 32 image? Does Table 6 vary the
# resolution? Expected output:
#
# ```text
# -4 (4, 4)
# -3 (4, 4)
# -2 (4, 4)
# -1 (4, 4)
# ```
# ````
#
# ````{solution} bimask-table6-ex1
# :class: dropdown
#
# It does not: depth alone varies.
#
# ```python
# import efflib
# from efflib.papers.bimask.show import map_size
#
# model = efflib.create_model("vgg13", 10, width=0.125).eval()
# for layer in (-4, -3, -2, -1):
#     print(layer, map_size(model, layer))
# ```
# ````
#
# ````{exercise}
# :label: bimask-table6-ex2
#
# By how many points do the printed accuracies of the four layers differ at most, per data set? Compare with half a point, the
# margin inside which this book calls a number reproduced. Expected output:
#
# ```text
# cifar10 0.30
# cifar100 1.13
# ```
# ````
#
# ````{solution} bimask-table6-ex2
# :class: dropdown
#
# ```python
# from efflib.papers.bimask import printed
#
# for dataset in ("cifar10", "cifar100"):
#     cells = [c for c in printed["table6"].numbers if c.keys["dataset"] == dataset and c.keys["method"] == "bimask"]
#     values = [cell.value for cell in cells]
#     print(dataset, f"{max(values) - min(values):.2f}")
# ```
# ````
