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
# (pkgd-figure6)=
# # Figure 6: do the features cluster better?

# %% tags=["remove-input"]
from efflib.papers import pkgd
from efflib.report.notebook import TablePage

TablePage(pkgd.tables["figure6"], "smoke", 1).headline([("pkgd", "kd"), ("pkgd", "baseline")])

# %% [markdown]
# The paper shows two pictures of each student: a t-SNE map of its features, and where it looks. Both are to show that PKGD
# beats KD and training alone. We draw the same pictures on rendered objects, and put numbers beside them: pictures of one
# run can be chosen, numbers over seeds cannot.

# %% tags=["parameters"]
# scale: smoke (embedded data, seconds), tiny, small or paper; see "Repeat it" for the data they need.
scale = "smoke"
seeds = [0]
device = "auto"
engine = "local"
recompute = False
methods: list = None

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% tags=["hide-input"]
from IPython.display import HTML

from efflib.data import load_dataset
from efflib.papers.pkgd import show
from efflib.report.html import html_table
from efflib.trials import Store

table = pkgd.tables["figure6"]
choices = {"methods": methods}
page = TablePage(table, scale, seeds, device, engine, recompute, pkgd.findings("figure6"), choices)

# %% [markdown]
# ## What the paper shows and claims
#
# For ResNet32x4 teaching ResNet8x4 on CIFAR-100 the text says that PKGD's features are better clustered, and that its
# attention is "evidently more accurate and dense", than those of the student alone and of KD. It gives no numbers.
#
# ## What this page trains
#
# Nothing of its own: teacher, student alone, KD and PKGD are trials of [Table 1](table1.ipynb) (at `tiny` scale those of
# [Table 5](table5.ipynb), ResNet56 to ResNet20), trained now if they are not recorded. From each network's weights this
# page measures how its classes separate.

# %% tags=["remove-input"]
page.plan()

# %% [markdown]
# ## The method in brief: two numbers and two pictures
#
# All of them look at the *pooled features*: the vector that a network's linear classifier reads.
#
# - *Silhouette*: for each test image, $a$ is its mean distance to its own class and $b$ to the nearest other class; the mean
#   of $(b - a)/\max(a, b)$ is 1 for tight, distant classes and 0 for classes that lie on top of each other.
# - *20 nearest neighbours*: how many percent of the test images have the class that most of the 20 nearest *training* images
#   have. It needs no classifier, and unlike the silhouette it does not ask a class to be one heap.
# - *t-SNE* lays the features out in the plane so that neighbours stay neighbours. Distances between heaps and their sizes
#   mean nothing in it.
# - *Attention*: the last stage's map, squared and averaged over channels, drawn over the image
#   {cite:p}`zagoruyko2017at`. It knows no class: it shows where a network is active, not why it decides.

# %% tags=["hide-input"]
results = page.results
if scale == "smoke":
    show.refuse_untrained(results)
networks = show.networks(results, Store.for_scale(scale))
show.clusters_strip(networks)

# %% [markdown]
# The first 300 test images of at most ten classes, the same in every panel; perplexity 30, fixed seed.
#
# ## The run

# %%
show.clusters_table(results)

# %% [markdown]
# *Less* rows are paired by seed: both networks of a seed had the same teacher and the same initial weights.
#
# ## Where do they look?
#
# Bright is active. Each map has its own scale, so brightness cannot be compared between pictures.

# %% tags=["hide-input"]
# Pictures show embedded data only: the licences of the real sets do not clearly allow more.
show.attention_strip(networks) if scale == "smoke" else None

# %% [markdown]
# Whether attention is accurate need not be judged by eye: of rendered objects we know every pixel. *Peak on the object*:
# does the brightest pixel lie on it? *Share*: how much of the map's sum does? *Ranking*: how often is an object pixel
# brighter than a background pixel? An even map would get the object's share of the image in the first two, and 0.5.

# %% tags=["hide-input"]
if scale == "smoke" and networks:
    test = load_dataset("objects32", "test")
    rows = show.localisation_rows(networks, test)
    outcome = HTML(html_table(rows, f"Attention against the true objects, {len(test)} rendered test images, one seed"))
else:
    rows, outcome = [], None
outcome

# %% tags=["remove-input"]
show.localisation_words(rows) if rows else None

# %% [markdown]
# One seed of small networks: this shows how the question can be decided, it does not decide it. A *dense* map proves
# little: a network that is active everywhere covers every object. The ranking does not reward that.
#
# ## Measured on CIFAR-100
#
# At `tiny` scale the networks are ResNet56 and ResNet20, trained on 9,000 images for 30 epochs; from `small` scale on they
# are the paper's. Test images only, and for the neighbours the images that the network was trained on.

# %% tags=["remove-input"]
page.comparison()

# %% tags=["remove-input"]
show.at_every_scale(page, show.clusters_table)

# %% [markdown]
# ## Claims
#
# A claim is `supported` when every cell it speaks of ran and its 95 % interval lies on the claimed side, `contradicted`
# when one lies wholly on the other side, and `undetermined` otherwise. Claims marked *ours* are the questions that the
# paper does not ask. The wording and the statistics were fixed before any run. Claims about attention are not among them:
# on photographs nobody marked the objects' pixels.

# %% tags=["remove-input"]
page.claims()

# %% [markdown]
# ## Where our figure differs from the paper's
#
# 1. *Numbers*: silhouette and nearest neighbours are ours. They are computed on all pooled features (64 to 256 numbers per
#    image), never on the two coordinates of t-SNE.
# 2. *t-SNE's settings* are not stated; perplexity 30 is its usual value. The colours are the true classes.
# 3. *Attention*: the text does not say how its maps are made. Ours are those of attention transfer, from the last stage.
# 4. *Images*: the paper shows photographs; published pages here show rendered objects.
# 5. *Networks*: at `tiny` scale ResNet56 and ResNet20 stand in for ResNet32x4 and ResNet8x4.

# %% [markdown]
# ## Cost and provenance

# %% tags=["remove-input"]
page.cost()

# %% [markdown]
# ## What the audit says about this figure

# %% tags=["remove-input"]
page.audit()

# %% [markdown]
# ## Repeat it
#
# This line runs the figure again on your machine, at the scale you choose; what is recorded is not run twice. Set
# `EFFLIB_DATA` to a folder with the data, or let the first run download them.

# %% tags=["remove-input"]
page.repeat()

# %% [markdown]
# ## Exercises
#
# ````{exercise}
# :label: pkgd-figure6-ex1
#
# Two classes lie on a line: one at 0 and 1, the other at 4 and 5. Compute their mean silhouette by hand and compare it with
# what this page's recipe computes. Expected output:
#
# ```text
# by hand 0.7460, recipe 0.7460
# ```
# ````
#
# ````{solution} pkgd-figure6-ex1
# :class: dropdown
#
# Each point is 1 away from its own class ($a$); the outer points are 4.5, the inner ones 3.5 away from the other one ($b$).
#
# ```python
# import numpy as np
# import torch
#
# from efflib.papers.pkgd.recipes import silhouette
#
# by_hand = ((4.5 - 1) / 4.5 + (3.5 - 1) / 3.5) / 2
# points = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
# print(f"by hand {by_hand:.4f}, recipe {silhouette(points, np.array([0, 0, 1, 1])):.4f}")
# ```
# ````
#
# ````{exercise}
# :label: pkgd-figure6-ex2
#
# A better silhouette need not mean a better network. Take the pixels of the test digits as features, and any linear
# classifier of them. Multiply half of the features by 10 and divide the classifier's weights for them by 10. What happens to
# the answers, and what to the silhouette? Expected output:
#
# ```text
# same answers: True
# silhouette 0.153, then 0.097
# ```
# ````
#
# ````{solution} pkgd-figure6-ex2
# :class: dropdown
#
# The classifier undoes the scale, distances do not. Silhouettes of two networks compare how their features happen to be
# scaled too; that is why accuracy and nearest neighbours stand beside them.
#
# ```python
# import torch
#
# from efflib import load_dataset
# from efflib.papers.pkgd.recipes import silhouette
#
# digits = load_dataset("digits", "test")
# pixels = torch.from_numpy(digits.images).reshape(len(digits), 64).double()
# weights = torch.randn(64, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
# scale = torch.tensor([10.0, 10, 10, 10, 1, 1, 1, 1], dtype=torch.float64).repeat(8)
# answers = (pixels @ weights).argmax(dim=1)
# rescaled = ((pixels * scale) @ (weights / scale[:, None])).argmax(dim=1)
# print("same answers:", torch.equal(answers, rescaled))
# before, after = silhouette(pixels, digits.labels), silhouette(pixels * scale, digits.labels)
# print(f"silhouette {before:.3f}, then {after:.3f}")
# ```
# ````
