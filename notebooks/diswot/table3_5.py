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
# (diswot-table3-5)=
# # Table 3.5: which map, which distance

# %% tags=["remove-input"]
from efflib.papers import diswot
from efflib.papers.diswot import agreement, curves
from efflib.report.notebook import TablePage, at_every_scale

TablePage(diswot.tables["table3_5"], "smoke", 1).headline(
    [("lrp_cosine", "gradcam_l2"), ("lrp_cosine", "lrp_l2"), ("lrp_cosine", "kd"), ("lrp_cosine", "baseline")],
    beside=[diswot.tables["fig3_8"], diswot.tables["fig3_9"]],
)

# %% [markdown]
# A *map* says which positions of a feature map speak for a class. DisWOT+ asks the student for maps like its teacher's, and the thesis
# {cite:p}`benzine2025brain` changes two things about that: Grad-CAM {cite:p}`selvaraju2017gradcam` becomes "LRP", and the L2 distance becomes
# cosine. The last combination is its final method. This page sets the two choices apart, looks for the printed collapse,
# and measures what no accuracy tells: whether teacher and student look at the same place, and whether that place is the tumour.
#
# What the thesis defines as LRP is *gradient times activation* at one layer {cite:p}`draelos2020hirescam`, not a propagation from layer to
# layer {cite:p}`bach2015lrp` ({ref}`audit <audit-diswot-8>`). On this page "LRP" in the name of a method means that; where
# relevance is really propagated, name and text say so.

# %% tags=["parameters"]
# scale: smoke (embedded data, seconds), tiny, small or paper; see "Repeat it" for the data they need.
scale = "smoke"
seeds = [0]
device = "auto"
engine = "local"
recompute = False
methods: list = None
starts: list = None
rates: list = None
augmentations: list = None

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% tags=["hide-input"]
from efflib.data import load_dataset
from efflib.papers.diswot.arms import SIZES
from efflib.papers.diswot.maps import PROPAGATED_AT
from efflib.trials import Store

findings, choices = (
    diswot.findings("table3_5"),
    {"methods": methods, "starts": starts, "rates": rates, "augmentations": augmentations},
)
page, train, counted, cam, lrp = (
    TablePage(diswot.tables[name], scale, seeds, device, engine, recompute and not place, findings, choices)
    for place, name in enumerate(("table3_5", "table3_5_train", "table3_5_parameters", "fig3_8", "fig3_9"))
)

# %% [markdown]
# ## What the thesis prints and claims
#
# Five models, single runs. Between 15 and 30 epochs Grad-CAM + L2 is printed to fall from 90.92 to 43.26 %. The thesis calls that
# overfitting; as its training accuracy falls as well, from 92.99 to 62.71 %, it looks like a failure to optimise
# ({ref}`audit <audit-diswot-10>`).

# %% tags=["remove-input"]
page.printed()

# %% tags=["remove-input"]
train.printed()

# %% tags=["remove-input"]
counted.printed()

# %% [markdown]
# The number of parameters leaves out the head ({ref}`audit <audit-diswot-3>`). The comparison from model 1 to model 3 changes the map and doubles the
# epochs; that from model 2 to model 3 changes the map and *two* things about the distance, as "L2" is a distance of similarity matrices
# with Grad-CAM and a distance of maps with LRP ({ref}`audit <audit-diswot-9>`). That from model 3 to model 4 replaces L2 by cosine in the
# distance of maps *and* in the relation of features. The grid of what can be combined, and who ran it; *relation* is the distance of the
# relation term:

# %% tags=["remove-input"]
curves.grid_table(curves.shown(page))

# %% [markdown]
# ## What this page trains
#
# Per seed a teacher and one student for each method. `kd` and `baseline` are controls for the whole idea: without them no credit can be given to the
# extra terms. `lrp_gram` differs from `gradcam_l2` in the map alone, and `gradcam_cosine` from `lrp_cosine`: these two pairs say what the map
# does. From one pair to the other *three* things change: what is compared (similarities or maps), the distance, and the relation term. So
# `lrp_cosine_fro` differs from `lrp_cosine` in the relation term alone. From `lrp_l2` it differs by a factor only: for maps of unit
# length the squared L2 distance is twice the cosine distance, in value and gradient, so that `lrp_l2` against `lrp_cosine` compares two forms
# of the relation term, and the semantic term with twice its weight against once. `lrp_l2_raw` is the distance of
# equation 2.19 to the letter. `propagated_cosine` is `lrp_cosine` with maps of LRP in its usual sense, propagated through the layers. At
# the last map, which `paper` reads, the two are the same, so that it is among the runs of `small` only. `tiny` runs the ones that decide the
# collapse, `small` and `paper` the others, too. The learning rate is constant, so one run, read after 15, 30 and 50 epochs, gives all lengths.

# %% tags=["remove-input"]
page.plan()

# %% [markdown]
# ## The method in brief
#
# Let $A_k$ be the channels of a feature map and $g_k = \partial z_y / \partial A_k$ the gradient of the true class's logit. The two maps,
# positive part only:
#
# $$
# \text{Grad-CAM} = \Big[ \sum_k \bar g_k A_k \Big]_+ , \qquad
# \text{"LRP"} = \Big[ \sum_k g_k \odot A_k \Big]_+ ,
# $$ (diswot-table3-5-maps)
#
# with $\bar g_k$ the mean of $g_k$ over positions. They differ only in whether the gradient is averaged first. Two ways to compare the maps of
# teacher $t$ and student $s$, here with L2 and with cosine:
#
# $$
# \lVert M_t - M_s \rVert_F \;\text{ or }\; 1 - \langle M_t, M_s \rangle , \qquad
# \frac1B \sum_n \lVert r_{t,n} - r_{s,n} \rVert^2 \;\text{ or }\; \frac1B \sum_n \big( 1 - \langle r_{t,n}, r_{s,n} \rangle \big) ,
# $$ (diswot-table3-5-distances)
#
# on the left through the matrix $M$ of the images' similarities, on the right image by image; $M$ and $r$ have unit length, except in
# `lrp_l2_raw`. Cross-entropy, KL and the similarities of features stand beside it, with a quarter each.
#
# ## The run

# %%
results = page.results

# %% tags=["remove-input"]
page.measured()

# %% tags=["remove-input"]
train.measured()

# %% [markdown]
# *last* is the accuracy of the last epoch on all test images, *leak-free* that on the test images that are neither exact nor near copies
# of training images ({ref}`what counts as a copy <diswot-leak-free>`). `nearest_neighbour` takes over the label of the most similar of all
# training images, without any network; the networks of `tiny` and `small` learn from nine tenths of them.
#
# ## Does anything collapse?

# %% tags=["hide-input"]
shown = curves.shown(page)
METHODS = list(curves.NAMES)
curves.course_figure(shown, METHODS)

# %% [markdown]
# Tables 2.1 and 2.2 of the thesis call Grad-CAM + L2 unstable and LRP + cosine robust, in words. As numbers: how far the test accuracy
# falls from one epoch to the next at worst, and how far the last epoch is from the best one.

# %% tags=["remove-input"]
curves.stability_table(shown)

# %% [markdown]
# The terms of each loss, without their weights. Semantic terms of different definitions have different units; only their course can be compared.

# %% tags=["hide-input"]
curves.terms_figure(shown, [name for name in METHODS if name != "baseline"])

# %% [markdown]
# A map that is zero everywhere, because all evidence speaks against the class, asks nothing of the student. How common such maps are is worth
# a look before one explains anything by maps. No run counted them in its loss, which explains the true class of the training images. They are
# counted once, after the run, on the test images, for the class that the teacher predicts:

# %% tags=["remove-input"]
curves.ends_table(shown)

# %% [markdown]
# ## What cosine and L2 differ in
#
# For vectors or matrices of unit length $1 - \langle a, b \rangle = \frac12 \lVert a - b \rVert^2$. Cosine and normalised L2 are the same distance up to
# a square ({ref}`audit <audit-diswot-9>`). This page's student and its teacher on one batch:

# %% tags=["remove-input"]
found, layer = agreement.networks(results, Store.for_scale(scale)), SIZES[scale].layers
phantom = load_dataset("phantom", "test") if scale == "smoke" else None  # boards of maps show embedded data only
batch = phantom.take(range(agreement.BATCH)) if phantom else None
agreement.algebra_table(found, batch, layer)

# %% [markdown]
# For the maps of unit length no square stands in the way: the L2 distance of the loss is exactly twice the cosine, gradient included.
#
# Elsewhere what does differ is the gradient. That of an *unsquared* norm (eq. 2.9) keeps its length on the way to the minimum, all others fade. A
# term that pulls with the same force however close it is can keep a network from settling: the one candidate that the formulas offer for
# a late instability. Table 2.1 of the thesis calls L2 sensitive to scale. If all maps double, the value of the raw distance (eq. 2.19) grows
# fourfold and its gradient twofold. All other values stay; a gradient halves then, as a step of the same length is half as large beside maps
# twice as large.

# %% tags=["remove-input"]
agreement.distances_table()

# %% [markdown]
# ## Where the two maps are one
#
# Directly behind a map, a global average gives every position the same gradient, so that averaging it changes nothing: at the last feature map
# (`s32`) the two maps of equation {eq}`diswot-table3-5-maps` coincide in every student with a `gap` head, this page's among them, whatever its
# weights. In the teacher, which flattens the map, they do not, nor in students with a `dsc` head, whose convolutions come first
# ({ref}`audit <audit-diswot-8>`); nor one stride earlier (`s16`), where losses read them at `tiny` and `small`. The
# [chapter](chapter.ipynb) has the proof.

# %% tags=["remove-input"]
agreement.identity_table(found, batch)

# %% [markdown]
# At the last map, "from Grad-CAM to LRP" changes the target that the teacher sets and nothing else.
#
# ## Do teacher and student look at the same place?
#
# Figures 3.8 and 3.9 of the thesis show maps of three slices side by side. Here are the maps of a smoke run's networks on three slices of the
# phantom, one per plane, the tumour outlined, at the layer that the losses of the scale read. Each network explains its own prediction;
# yellow is the strongest evidence. Of each plane the first slice with a tumour is taken on which no network's Grad-CAM map is zero, or, if
# there is none, the first one with a tumour. First Grad-CAM (figure 3.8):

# %% tags=["hide-input"]
slices = agreement.one_of_each_plane(found, layer) if phantom else None
agreement.maps_figure(found, slices, "gradcam", layer)

# %% [markdown]
# Gradient times activation, the "LRP" of figure 3.9:

# %% tags=["hide-input"]
agreement.maps_figure(found, slices, "gxa", layer)

# %% [markdown]
# And relevance that *is* propagated through the layers behind the map, by the epsilon rule in dense layers and the gamma rule in
# convolutions {cite:p}`montavon2019lrp`. Behind the last map there are only an average or a flattening and dense layers, and it would give
# the maps of figure 3.9 once more, in the teacher as well. So it is read one stride earlier, at every scale:

# %% tags=["hide-input"]
agreement.maps_figure(found, slices, "lrp", PROPAGATED_AT)

# %% tags=["remove-input"]
agreement.coarseness(scale)

# %% [markdown]
# The thesis reads off its pictures that the LRP student "closely mirrors" its teacher, and that the Grad-CAM student often looks at
# irrelevant regions, "such as ventricles or boundary areas". Whether students look where their teacher does can be measured, on real
# images too. For the test images (at `smoke` the first 200) and their true classes, three numbers per network and kind of map:
#
# - the *cosine* of the student's and the teacher's map, a mean over the images for which neither is zero. Maps without negative values are
#   never far apart: `uniform` is a map that prefers no place, and a cosine below its is no evidence by itself;
# - how far that is *beyond* the mean cosine with the teacher's maps of the *other images of the class*: agreement on the image, not on
#   where such images usually have something. A map that does not depend on the image, `uniform` for one, has 0;
# - the share of a map *in the head*: pixels brighter than a tenth of white, the largest connected part, holes filled. `uniform` has the
#   head's share of the image. Maps that are zero, and images that are all head or none, are left out. Ventricles are inside, so that this
#   sees only a part of what the thesis speaks of.
#
# Students differ in which of their maps are zero, so that these are not the same images for all of them; the share of zero maps stands
# beside. All students have been trained for as many epochs as Grad-CAM + L2. The *gain* is that of the cosine over the student trained alone, which never
# saw the teacher. This page's run, Grad-CAM (figure 3.8):

# %% tags=["remove-input"]
cam.measured()

# %% [markdown]
# Gradient times activation (`gxa`, figure 3.9), and propagated relevance (`lrp`):

# %% tags=["remove-input"]
lrp.measured()

# %% [markdown]
# And what is recorded on real images:

# %% tags=["remove-input"]
cam.comparison()

# %% tags=["remove-input"]
lrp.comparison()

# %% [markdown]
# ## And is it the tumour?
#
# The phantom knows. The *pointing game* {cite:p}`zhang2018excitation` counts how often the peak of a map lies in the tumour; beside it the share of the
# whole map in there. The tumour's share of the image is what guessing (`uniform`) gives for both. The [chapter](chapter.ipynb) plays it at finer layers,
# down to the pixels.

# %% tags=["remove-input"]
agreement.tumour_table(cam.results, lrp.results)

# %% [markdown]
# These are small networks after seconds of training. The numbers show how such a statement can be measured, not what the thesis's networks do.
#
# ## Printed against measured
#
# `tiny` trains at 64 px, `small` at 128 px, from scratch: their accuracies are not comparable with the printed ones, and no cell gets a
# verdict from them.

# %% tags=["remove-input"]
page.comparison()

# %% tags=["remove-input"]
train.comparison()

# %% tags=["remove-input"]
counted.comparison()

# %% [markdown]
# ## Claims
#
# A claim is `supported` when every cell it speaks of ran and its 95 % interval lies on the claimed side, `contradicted`
# when one lies wholly on the other side, and `undetermined` otherwise. Differences are paired by seed. A collapse is a loss of more
# than 5 points, and claims a and b count the seeds in which it happens: two of three decide (of more seeds, two thirds), fewer than three
# decide nothing. An interval would not do, as falls of very different size make it wide. Claims marked *ours* are the questions that the
# thesis does not ask. Questions a to h about table 3.5 were written down on 21 November 2026, before any network trained on these images was
# recorded. On 22 November, when two teachers were recorded and no student, its a and b came to count seeds and i was added. Its j, of an
# arm that has not run, and all claims about figures 3.8 and 3.9 were written down later that day, before the maps of any network were
# measured on real images.

# %% tags=["remove-input"]
page.claims()

# %% tags=["remove-input"]
cam.claims()

# %% tags=["remove-input"]
lrp.claims()

# %% [markdown]
# ## What we decided where the thesis is silent
#
# 1. *LRP + L2.* Equation 2.19 compares raw maps, whose scale depends on the weights alone. The row of the table is read as the distance of
#    maps of unit length (`lrp_l2`); the raw one runs beside it.
# 2. *Cosine* replaces the distance of maps and that of features; the second as $1 - \langle R_t, R_s \rangle$.
# 3. *Class.* The true class in the loss and in the numbers about maps, each network's own prediction in the pictures. In figure 3.9, "Grad-CAM
#    maps (column c)" are read as maps of gradient times activation of the student that was distilled with Grad-CAM.
# 4. *Positive part* in both kinds of map, so that only the weighting differs.
# 5. *Layer.* The last feature map at `paper` scale; at `tiny` and `small` (below 160 px) the one before the last stride. `smoke` takes the
#    last, which is cheaper.
# 6. *An image whose map is zero* in either network counts 0 in the losses image by image and gives no gradient.
# 7. *Batch norms* behind the map use running statistics where the map is made, and dropout is off: no map depends on another image.
# 8. *Weights* a quarter each, $T = 4$; KD one half each.
# 9. *Training.* Adam at a constant $10^{-4}$ (`tiny`: $10^{-3}$, [why](table3_6.ipynb)), batches of 32, from scratch; the last epoch on the test images is
#    reported. `tiny` and `small` hold a tenth of the training images out; only the rate was chosen by them.
# 10. *Propagated LRP in a loss* (`propagated_cosine`, at `small`): its rules divide by sums of contributions, which count as constants
#    where the loss is differentiated, so that its gradient is approximate.
# 11. *Left out*: other norms in place of the Frobenius norm (spectral, row by row), in the losses; pixels normalised by mean and deviation of
#    the data set.

# %% [markdown]
# ## Cost and provenance
#
# A map made of gradients has to be differentiated once more. The network is cut at the map, so that only what lies behind it is
# differentiated twice: the head at the last map, the last blocks as well one stride earlier. Counted, without a run:

# %% tags=["remove-input"]
curves.work_table("tiny", ["kd", "gradcam_l2", "lrp_cosine"])

# %% [markdown]
# And on the clock, where runs are recorded:

# %% tags=["remove-input"]
at_every_scale(page, curves.cost_table, nothing="No run has a recorded time yet.")

# %% tags=["remove-input"]
page.cost()

# %% [markdown]
# Behind figures 3.8 and 3.9: reading the maps (`relevance_maps`) takes seconds to minutes, but needs the trained weights, which are kept
# on the machine that trained them; elsewhere the networks are trained again.

# %% tags=["remove-input"]
cam.cost()

# %% [markdown]
# ## What the audit says about this table

# %% tags=["remove-input"]
page.audit()

# %% [markdown]
# ## Repeat it
#
# This line runs the table again on your machine, at the scale you choose; what is recorded is not run twice. Set
# `EFFLIB_DATA` to a folder with the data. `methods` takes some rows only.
# `starts` starts from ImageNet weights ([Table 3.4](table3_4.ipynb)),
# `rates` takes another learning rate, `augmentations` wider ranges ([there](table3_4.ipynb), too).

# %% tags=["remove-input"]
page.repeat()

# %% [markdown]
# ## Exercises
#
# ````{exercise}
# :label: diswot-table3-5-ex1
#
# Two images have the features $(1, 0)$ and $(0, 1)$ in the teacher, and $(1, 0)$ both in the student. Compute the two matrices of similarities with unit norm,
# their L2 distance, half of its square, and $1 - \langle R_t, R_s \rangle$. Expected output:
#
# ```text
# teacher [0.7071, 0.0, 0.0, 0.7071]
# student [0.5, 0.5, 0.5, 0.5]
# L2 0.7654, half of its square 0.2929, cosine 0.2929
# ```
# ````
#
# ````{solution} diswot-table3-5-ex1
# :class: dropdown
#
# Half of the squared distance is the cosine form: the two have the same minimum and order all pairs alike.
#
# ```python
# import torch
#
# teacher, student = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
# R = {}
# for name, features in {"teacher": teacher, "student": student}.items():
#     gram = features @ features.T
#     R[name] = gram / gram.norm()
#     print(name, [round(value, 4) for value in R[name].flatten().tolist()])
# apart = (R["teacher"] - R["student"]).norm()
# cosine = 1 - (R["teacher"] * R["student"]).sum()
# print(f"L2 {apart:.4f}, half of its square {apart**2 / 2:.4f}, cosine {cosine:.4f}")
# ```
# ````
#
# ````{exercise}
# :label: diswot-table3-5-ex2
#
# Every accuracy on 1,311 test images is a whole number of images. Which printed accuracies of the table are, to two decimals, and which is not? By how many
# images does LRP + L2 after 30 epochs beat Grad-CAM + L2 after 15? Expected output:
#
# ```text
# gradcam_l2, 15 epochs: 90.92 is 1192 images
# gradcam_l2, 30 epochs: 43.26 is none; 567 images are 43.25
# lrp_l2, 30 epochs: 91.08 is 1194 images
# lrp_cosine, 30 epochs: 92.75 is 1216 images
# lrp_cosine, 50 epochs: 95.35 is 1250 images
# ```
# ````
#
# ````{solution} diswot-table3-5-ex2
# :class: dropdown
#
# Two images separate the first from the third. The collapsed run is the only one that does not fit the test set.
#
# ```python
# from efflib.papers.diswot import printed
#
# for cell in printed["table3_5"].cells:
#     images = round(cell.value * 1311 / 100)
#     exact = f"{100 * images / 1311:.2f}"
#     fits = f"{images} images" if exact == f"{cell.value:.2f}" else f"none; {images} images are {exact}"
#     print(f"{cell.keys['method']}, {cell.keys['epochs']} epochs: {cell.value:.2f} is {fits}")
# ```
# ````
