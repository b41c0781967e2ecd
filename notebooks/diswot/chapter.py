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
# (diswot)=
# # DisWOT, relevance and cosine: students for brain MRI
#
# *Knowledge distillation* {cite:p}`hinton2015distilling` trains a small network, the *student*, beside a larger trained one,
# the *teacher*. This chapter follows a master's thesis {cite:p}`benzine2025brain` that distils a classifier of brain tumours
# on MRI slices. It chooses the student without training (DisWOT, {cite:p}`dong2023diswot`), and compares *explanations* of teacher
# and student in the loss. We build each step on live images, measure where the explanations point, and repeat the tables on
# the pages behind this one.

# %% tags=["parameters"]
# `seed` fixes the initial weights and the order of the images.
seed = 0
device = "auto"

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% [markdown]
# ## The idea in five lines
#
# 1. A MobileNetV2 {cite:p}`sandler2018mobilenetv2` with a wide dense head, the teacher, reaches 98.02 % (all numbers in this list as
#    printed) on four classes of MRI slices.
# 2. Of 16 smaller variants the one with the lowest *DisWOT score* is chosen: how far its untrained maps and similarities lie from
#    those of the teacher.
# 3. It is distilled with four terms: cross-entropy, softened outputs, maps (*semantic*) and similarities within the batch
#    (*relation*). We call this loss DisWOT+.
# 4. Maps made by "LRP" instead of Grad-CAM, compared by cosine instead of L2, raise the accuracy from 43.26 % (a collapsed run)
#    to 95.35 %.
# 5. The student has 85 % fewer parameters.
#
# ## What this chapter found
#
# From the printed pages, the networks and, for the last point, the images, before any training:
#
# - What the thesis defines as LRP is gradient times activation at one layer. In a student whose last map goes straight into a global average it *is*
#   Grad-CAM there ({ref}`audit <audit-diswot-8>`); step 2 shows it.
# - Cosine and the L2 distance of normalised matrices are one distance, up to a square ({ref}`audit <audit-diswot-9>`); step 4.
# - Two of the three printed scores lie above the bound of the printed formula ({ref}`audit <audit-diswot-5>`); step 3.
# - The saving of 85 % is a global average in place of flattening, on one and the same backbone ({ref}`audit <audit-diswot-6>`).
# - The two reports class by class appear to have each other's label ({ref}`audit <audit-diswot-1>`).
# - A sixth of the test images are exact copies of training images ({ref}`audit <audit-diswot-18>`).
#
# What the tables' claims come to on real data:

# %% tags=["remove-input"]
from efflib.papers.diswot import agreement, chapter_page

chapter_page.up_front()

# %% [markdown]
# ## The data
#
# The thesis names the public *Brain Tumor MRI Dataset* {cite:p}`nickparvar2021mri`: slices with a glioma, a meningioma, a pituitary tumour
# or none, seen from above (axial), from the side (sagittal) and from the front (coronal). This book does not republish patients'
# images. Its pictures show a *phantom*: heads drawn by this library, with the same four classes in the same three planes. The phantom has
# what the real set lacks, the true pixels of every tumour, here outlined. That lets us measure whether an explanation
# points at the tumour.

# %% tags=["hide-input"]
chapter_page.examples_strip()

# %% [markdown]
# The real set, as its publisher counts it. The text of the thesis gives 5,170 training and 1,370 test images; its printed
# accuracies fit neither number, but 1,311 test images ({ref}`audit <audit-diswot-2>`).

# %% tags=["hide-input"]
chapter_page.classes_figure()

# %% [markdown]
# (diswot-leak-free)=
# ### Two test sets
#
# A test image that is also a training image asks for memory, not for understanding. We look for two kinds: *exact copies* have the very
# pixels of a training image; *near copies* have a training image within a root mean square of 0.01 (brightness from 0 to 1) on
# thumbnails of 32 pixels. What is left we call *leak-free*, though slices of one patient may remain on both sides.

# Measured on the phantom, whose slices are drawn one by one:

# %% tags=["remove-input"]
chapter_page.copies_table("phantom")

# %% [markdown]
# The real set is not part of this book, so its exact copies are quoted: `chapter_page.copies_table("brain_mri")` counts them where the
# data are, and a test compares that count with the quoted one. Near copies and the nearest neighbour are recorded.

# %% tags=["remove-input"]
chapter_page.leak_words()

# %% tags=["remove-input"]
chapter_page.leak_table()

# %% [markdown]
# A look-up that needs no training passes every student of the thesis. So the tables of measured accuracies have two columns, the full
# test set, which the printed numbers can be compared with, and the leak-free one, and the nearest neighbour stands beside them. Curves, and
# the confusion matrices of Table 3.4, are of the full set alone, and so are the claims that do not say otherwise.
#
# ## A pair to look at
#
# A narrow MobileNetV2 with a flattened map is the teacher, the same backbone with a global average the student. Both learn the phantom with
# cross-entropy alone, for a few epochs.

# %%
import efflib
from efflib.report.notebook import refuse_chance_level
from efflib.trials import Store

trials = chapter_page.trials(seed)
results = efflib.run(list(trials.values()), scale="smoke", device=device, progress=False)
refuse_chance_level(results)
networks = chapter_page.networks(trials, Store.for_scale("smoke"))

# %% tags=["remove-input"]
chapter_page.networks_table(trials, results)

# %% [markdown]
# ## Step 1: maps that say where the evidence is
#
# Let $A_{kij}$ be a feature map (channel $k$, position $i, j$), $S$ the logit of the explained class, and
# $g_{kij} = \partial S / \partial A_{kij}$. *Grad-CAM* {cite:p}`selvaraju2017gradcam` weighs each channel by its mean gradient, *gradient x
# activation* (also known as HiResCAM, {cite:p}`draelos2020hirescam`) multiplies position by position:
#
# $$
# G_{ij} = \Big[ \sum_k \bar g_k\, A_{kij} \Big]_+ , \quad \bar g_k = \frac{1}{HW} \sum_{ij} g_{kij},
# \qquad R_{ij} = \Big[ \sum_k g_{kij}\, A_{kij} \Big]_+ .
# $$ (diswot-maps)
#
# The second is what the thesis calls LRP. *Layer-wise relevance propagation* proper {cite:p}`bach2015lrp` sends the logit back through the
# network, layer by layer. A layer $z_j = \sum_i a_i w_{ij} + b_j$ hands the relevance $R_j$ of each output on to its inputs, in
# proportion to what they contributed:
#
# $$
# R_i = \sum_j \frac{c_{ij}}{\sum_{i'} c_{i'j}} R_j, \qquad
# c_{ij} = a_i w_{ij} \;\text{(LRP-0)}, \quad a_i \big(w_{ij} + \gamma w_{ij}^+\big) \;\text{(gamma)}, \quad
# a_i w_{ij}^+ \;\text{(z+)} ,
# $$ (diswot-lrp)
#
# with the bias as one more contribution, and a small number that keeps the denominator from 0 (*epsilon*). These are the forms for
# $a_i \ge 0$; in MobileNetV2, whose bottlenecks have signed outputs, their general forms apply. We use the usual composite
# {cite:p}`montavon2019lrp`: epsilon in dense layers, gamma in convolutions, and $z^{\mathcal B}$, which knows the range of a pixel, in the first one.
#
# A map can be read at any layer. *s32* is the last one, with a stride of 32: 7 x 7 positions for images of 224 pixels, 2 x 2 for these of
# 64. *s16* is the one before the last stride, twice as fine. LRP can also go on to the pixels. Below, maps of the true class, each over its
# largest value, on slices that both networks classify correctly where there are such.

# %% tags=["hide-input"]
seen = chapter_page.explain(networks)
chapter_page.maps_strip(seen)

# %% [markdown]
# ## Step 2: at the last map of the student, both maps are one
#
# The student's last map goes straight into a global average: its logit is $S = h(\bar A)$, with any head $h$ of the channel means $\bar A_k$. Then
#
# $$
# g_{kij} = \frac{\partial h}{\partial \bar A_k} \cdot \frac{1}{HW} \quad \text{for every position } i, j, \qquad
# \text{hence} \quad \bar g_k = g_{kij} \quad \text{and} \quad G = R .
# $$ (diswot-identity)
#
# Nothing else about the network was used. The teacher flattens its map, so that its gradients depend on the position; and at an
# earlier layer convolutions lie between map and average. There the two differ:

# %% tags=["hide-input"]
agreement.identity_table(networks, chapter_page.tumours(4), "diswot-chapter-identity")

# %% [markdown]
# So at the last map, replacing Grad-CAM by the thesis's LRP changes the *teacher's* map alone. The map is as coarse as before. Which layer
# the thesis reads it does not say. Our distillations read s32 at `paper` scale, and s16 at `tiny` and `small` (below 160 pixels), where the
# replacement changes both networks. `smoke` reads s32, because it is cheaper.
#
# ### Where do the maps point?
#
# Two measures, on slices with a tumour: the *pointing game* {cite:p}`zhang2018excitation`, how often a map's peak lies in the tumour, and the
# share of the map's sum inside it. Guessing gives the tumour's share of the image for both. An *empty* map is zero everywhere: there is no
# positive evidence for the class, and its peak counts by chance.

# %% tags=["hide-input"]
rows = chapter_page.localisation_rows(seen)
chapter_page.localisation_table(rows)

# %% tags=["remove-input"]
chapter_page.localisation_words(rows)

# %% [markdown]
# These are two small networks on drawn slices, and the last map has four positions here. The table shows what a choice of layer and rule can
# change, not what real MRI would give.
#
# ### Does relevance add up?
#
# A rule *conserves* relevance if what arrives at the pixels sums to the logit. Biases, and the shifts of batch norms, are
# contributions that belong to no pixel and take their share; so the ratio of a trained network need not be 1. Without biases the rules
# below hand on everything, as a unit's shares sum to one; the composite's epsilon is too small to be seen. Not every rule does: a
# larger epsilon keeps a share for itself (exercise 2), and alpha-beta rules miss where all contributions to a unit have one sign.
# Plain gradient x input, which is no rule of LRP, fails even then: ReLU6 has no gradient where it saturates, while LRP passes relevance through.

# %% tags=["hide-input"]
chapter_page.conservation_table(networks["student"])

# %% [markdown]
# ## Step 3: a score without training
#
# For a batch of $B$ images, let $M$ be the $B \times B$ matrix of inner products of their Grad-CAM maps, and $N$ the one of their last
# feature maps, both divided by their Frobenius norms. The score adds a *semantic* and a *relation* distance of teacher and student, both
# with random weights:
#
# $$
# \mathrm{score} = \| M_T - M_S \|_F + \| N_T - N_S \|_F \;\le\; 2 \sqrt 2 .
# $$ (diswot-score)
#
# The bound holds because matrices of inner products of non-negative values have no negative entries, so that two of unit norm are
# $\sqrt 2$ apart at most. The student with the lowest score is said to distil best. One *draw* consists of fresh weights for all networks
# and one batch; the thesis does not say how many it takes. The students of this page's scale, in several draws:

# %% tags=["hide-input"]
scores = chapter_page.scored(seed)
chapter_page.scores_table(scores)

# %% tags=["remove-input"]
chapter_page.scores_words(scores)

# %% [markdown]
# One draw decides little. [Table 3.3](table3_3.ipynb) averages series of 16 draws for all 16 students and asks whether the score ranks them better than
# their number of parameters does.
#
# The official DisWOT code computes something else: its semantic term takes gradients of the classifier's *weight*, no activation map;
# its matrices are normalised row by row, their squared differences averaged, and the relation term is so small then that the sum is
# practically the semantic term. It compares unit $i$ of one untrained network with unit $i$ of another, which have nothing to do with
# each other. We keep the thesis's score and the official one apart.
#
# ## Step 4: the loss
#
# $$
# \mathcal{L} = a\, \mathrm{CE} + b\, T^2\, \mathrm{KL}(p_T \,\|\, p_S) + c\, \mathcal{L}_{\mathrm{sem}} + d\, \mathcal{L}_{\mathrm{rel}},
# \qquad a + b + c + d = 1 .
# $$ (diswot-loss)
#
# $\mathcal{L}_{\mathrm{sem}}$ compares maps, either their similarities within the batch ("Grad-CAM + L2") or image by image ("LRP"),
# $\mathcal{L}_{\mathrm{rel}}$ the similarities of feature maps. For matrices of unit norm
#
# $$
# 1 - \langle N_T, N_S \rangle = \tfrac12 \| N_T - N_S \|_F^2 ,
# $$ (diswot-cosine)
#
# because $\|N_T - N_S\|_F^2 = 2 - 2 \langle N_T, N_S \rangle$. Cosine is half of the *squared* distance: same minimum, same order of all pairs,
# and both ignore the scale of the features. What differs is the gradient near the minimum. Here the student's features move in a straight line to
# the teacher's:

# %% tags=["hide-input"]
chapter_page.distances_table(networks)

# %% [markdown]
# The gradient of the unsquared distance does not fade as the student approaches, that of the cosine form does. It is a fair candidate for
# late instability, and it has nothing to do with the map. [Table 3.5](table3_5.ipynb) takes map and distance apart.
#
# ### What second derivatives cost
#
# $\mathcal{L}_{\mathrm{sem}}$ contains a gradient, so its own gradient is a second derivative. It stays cheap if only the part of the
# network *behind* the map is differentiated: at s32 that is the head, at s16 the last blocks as well.

# %% tags=["hide-input"]
chapter_page.cost_table()

# %% [markdown]
# ```{note}
# **The pages behind this one.** [Table 3.3](table3_3.ipynb): does the score choose students? [Table 3.4](table3_4.ipynb): training alone,
# with KD, with DisWOT+. [Table 3.5](table3_5.ipynb): maps and distances, the collapse, and whether teacher and student look at the same
# place. [Table 3.6](table3_6.ipynb): what teacher and student cost, every count redone. [Table 3.7](table3_7.ipynb): class by
# class. [Table 3.8](table3_8.ipynb): beside other methods.
# ```
#
# ## What we decided where the thesis is silent
#
# 1. *Weights of Grad-CAM*: gradients; "weights of the last fully connected layer" fit no head with three dense layers.
# 2. *Positive part* in both kinds of map, so that they differ in the weighing alone.
# 3. *Explained class*: the true one, in scores, losses and the measurements above.
# 4. *Layer*: the last map at 224 pixels, s16 below 160 pixels, where the last map has few positions (`smoke`: the last, to save time).
# 5. *Similarities* of shape $B \times B$, Frobenius norm, not squared.
# 6. *"LRP + L2"*: maps of unit length, compared image by image; the raw distance is run beside it.
# 7. *Search space*: four widths, two depths, two heads. It contains the printed parameter counts.
# 8. *Weights of the loss*: a quarter each; $T = 4$. KD: a half each.
# 9. *Second derivatives* through running statistics and without dropout, so that no image's map depends on another image.
# 10. *Start*: from scratch. The thesis does not say whether ImageNet weights were used. That it makes grey images RGB "to match pretrained
#     model requirements", and 78 % training accuracy after one epoch at a rate of $10^{-4}$, fit ImageNet weights, frozen in the students. The
#     tables 3.4 to 3.8 can be run so, with `starts`; what their pages show starts from scratch.
#
# ## Exercises
#
# ````{exercise}
# :label: diswot-chapter-ex1
#
# Two channels at two positions, $A_1 = (1, 3)$ and $A_2 = (2, 0)$. A head behind a global average has the weights $(1, -1)$ for the two means.
# A head behind flattening has the weights $((1, 0), (0, -1))$, channel by channel. Compute Grad-CAM and gradient x activation without positive
# part, equation {eq}`diswot-maps`, for both heads. Expected output:
#
# ```text
# global average: Grad-CAM [-0.5, 1.5], gradient x activation [-0.5, 1.5]
# flatten: Grad-CAM [-0.5, 1.5], gradient x activation [1.0, 0.0]
# ```
# ````
#
# ````{solution} diswot-chapter-ex1
# :class: dropdown
#
# The mean gradients are the same in both heads, so Grad-CAM cannot tell them apart.
#
# ```python
# import torch
# from efflib.kernels import gradcam_map, relevance_map
#
# A = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])  # one image, two channels, 1 x 2 positions
# gradients = {
#     "global average": torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand_as(A) / 2,
#     "flatten": torch.tensor([[[[1.0, 0.0]], [[0.0, -1.0]]]]),
# }
# for head, g in gradients.items():
#     gradcam, gxa = (make(A, g, relu=False)[0, 0].tolist() for make in (gradcam_map, relevance_map))
#     print(f"{head}: Grad-CAM {gradcam}, gradient x activation {gxa}")
# ```
# ````
#
# ````{exercise}
# :label: diswot-chapter-ex2
#
# One unit $z = a_1 w_1 + a_2 w_2$ with $a = (2, 1)$ and $w = (1, -1)$ has the relevance 1. How much do the two inputs get by each
# rule of equation {eq}`diswot-lrp`, with an epsilon of 0.25 and $\gamma = 0.25$? Expected output:
#
# ```text
# zero     [2.0, -1.0]
# epsilon  [1.6, -0.8]
# gamma    [1.6667, -0.6667]
# zplus    [1.0, 0.0]
# ```
# ````
#
# ````{solution} diswot-chapter-ex2
# :class: dropdown
#
# The relevance of an input is its value times the gradient that the rule gives. Epsilon keeps a fifth for itself.
#
# ```python
# import torch
# from efflib.explain import propagate
#
# layer = torch.nn.Linear(2, 1, bias=False)
# layer.weight.data = torch.tensor([[1.0, -1.0]])
# for rule in ("zero", "epsilon", "gamma", "zplus"):
#     a = torch.tensor([[2.0, 1.0]], requires_grad=True)
#     (gradient,) = torch.autograd.grad(propagate(layer, a, rule, epsilon=0.25, gamma=0.25).sum(), a)
#     print(f"{rule:8} {[round(x, 4) for x in (a * gradient)[0].tolist()]}")
# ```
# ````
