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
# (encodenet)=
# # EncodeNet: an encoder that learns to redraw images as typical ones
#
# EncodeNet {cite:p}`mahmud2024encodenet` raises the accuracy of a network without changing its layers. It first trains the
# network's feature layers inside an autoencoder that redraws every image as a *representative* one of its kind, then puts
# the classifier back on top. The paper reports 1.1 to 3.2 points more than the same network trained alone, for four
# networks on CIFAR-10 and CIFAR-100, and better results than distillation. This chapter shows what such an autoencoder
# really learns, repeats the paper's figures on live images, and lists the ways in which the text can be read. The pages
# behind it repeat the tables.

# %% tags=["parameters"]
# `seed` fixes initial weights and order; `shape` is the class that is shown; `encoder_init` is "baseline" or "scratch".
seed = 0
shape = "drop"
encoder_init = "baseline"
device = "auto"

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% tags=["hide-input"]
import efflib
from efflib.papers.encodenet import arms, codebooks_page, readings, show, tables
from efflib.papers.features import labels_of
from efflib.report.notebook import TablePage, refuse_chance_level
from efflib.trials import Store

TablePage(tables["table2"], "smoke", [seed]).headline()

# %% tags=["remove-input"]
readings.reading_headline(TablePage(tables["table3"], "smoke", [seed]))

# %% [markdown]
# ## What the paper proposes
#
# 1. *Baseline.* Train a network, $f$ followed by a head: the *encoder* $f$ is everything before global average pooling, the
#    *head* is the pooling and one linear layer.
# 2. *Clusters.* Split the training images of each of the $C$ classes into $K = 3$ clusters.
# 3. *Representatives.* In each (class, cluster) take the image about which the baseline is surest: the one whose predicted
#    probabilities have the lowest *entropy*.
# 4. *Converting autoencoder.* Train the encoder together with a *decoder* $g$ (upsampling and convolutions) so that $g(f(x))$
#    comes close to the representative of $x$'s class and cluster, by mean squared error.
# 5. *Second stage.* Drop the decoder, freeze the encoder, and train a head on it for the classification.
#
# The idea goes back to the authors' earlier converting autoencoder, which fed the redrawn images to a classifier
# {cite:p}`mahmud2024converting`.
#
# ## The key to the method: the targets are a codebook
#
# An autoencoder usually learns without labels. This one does not. Its target depends on an image only through its class
# and its cluster, so there are just $M = C K$ different targets $t_1, \dots, t_M$, each a picture of $D = 3072$ numbers: a
# *codebook*. Step 4 is supervised regression onto $M$ fixed codes; with three clusters, 30 on CIFAR-10, 300 on CIFAR-100.
#
# What does such a regression learn? Let $p_m$ be the probability that the target of the image at hand is $t_m$, and suppose that the
# decoder can draw any mixture $\sum_m q_m t_m$ of the codes. Write the codes as the rows of a matrix $T$, and let $G = T T^\top$.
# The squared error to be expected is smallest at $q = p$, and every other $q$ costs more by
#
# $$
# \mathrm{excess}(q) = \frac{1}{D}\, (q - p)^\top G\, (q - p) .
# $$ (encodenet-excess)
#
# So the best output is the mixture $\sum_m p_m t_m$: the autoencoder has to *know the probabilities of the classes and
# clusters*, and it writes them down in pixels. A loss of probabilities whose expected value is smallest at the true ones is
# a *proper scoring rule* {cite:p}`gneiting2007scoring`. With $G / D$ replaced by the identity matrix this one is the Brier
# score, the squared error of probabilities {cite:p}`brier1950verification`; with $G$ it is the same score in a *Mahalanobis*
# metric, which only weighs the errors: to take $t_m$ for $t_n$ costs $\lVert t_m - t_n \rVert^2 / D$, little where two codes
# look alike and much where they do not.
#
# Three consequences guide everything that follows.
#
# - Training the autoencoder is training a *classifier* of $C K$ sub-classes, by a square loss. A frozen encoder can
#   therefore hold everything about the labels; what it cannot hold is anything that such a classifier would not hold too. If EncodeNet gains,
#   the gain must come from the sub-class labels, from the square loss, from how far apart the codes are ($G$), or from longer training.
#   [Table 3](table3.ipynb) has a control for each: `subclass` learns the same labels by cross-entropy, `noise_code` keeps the square loss and
#   makes all distances alike, `baseline_long` trains for as many FLOPs.
# - What is *drawn* on the codes enters through their distances alone. To a decoder that can draw every mixture, codes of random noise
#   would be as good a codebook, and a more even one: all of them are about equally far apart, so the loss becomes the plain Brier
#   score, times about 1/12. A decoder of convolutions need not be able to; Table 3 measures it.
# - If the target is the image itself (a row of the paper's Table 3), no label enters step 4 at all.
#
# ## A baseline and two autoencoders to look at
#
# We train a narrow VGG8 on rendered objects, coloured, textured shapes on cluttered backgrounds, and two autoencoders that
# differ in nothing but their target: the codes, or the input. Both encoders start from the baseline's weights, because the few
# epochs of a demonstration are too short for an encoder from scratch; `encoder_init` changes that.

# %%
base = arms.baseline("smoke", "vgg8", "objects32", seed)
trials = {
    "the codes": arms.autoencoder("smoke", base, "cluster", encoder_init),
    "its own input": arms.autoencoder("smoke", base, "identity", encoder_init),
}
results = efflib.run([base, *trials.values()], scale="smoke", device=device, progress=False)
refuse_chance_level(results)
shown = show.scene(trials, Store.for_scale("smoke"))

# %% [markdown]
# Equation {eq}`encodenet-excess`, checked on the codes of this baseline: for random $p$ and $q$ the excess is computed from
# the definition of an expectation, and by the formula. Beside it, as many codes of noise.

# %% tags=["remove-input"]
show.formula_table(shown.book, seed=seed)

# %% [markdown]
# The column *only q = p has no excess* is what makes the score *strictly* proper. It fails if one code can be mixed from others: then two
# different $q$ give the same picture.
#
# ## Does a trained autoencoder do that?
#
# A decoder of convolutions need not be able to draw every mixture, and training may stop before the optimum. So we measure.
# For each output on a *test* image we look for the mixture of codes that comes closest, by least squares, with weights that
# sum to one (they may be negative). Then:
#
# - *In the span*: how much of what varies between outputs is a mixture of codes? Any 30 pictures explain a good part of
#   anything smooth, so the share beside it is that of as many *other* training images.
# - *Heaviest class*: the class whose codes have most weight in the mixture. How often is it the right one? And how often is the
#   representative *nearest* to the output of the right class, the way in which one would read the output by eye?
# - *Error*: since the codes lie in their own span, the squared error towards them splits exactly into the score of
#   equation {eq}`encodenet-excess`, with the true code as $p$ and the mixture as $q$, and what lies outside the span.

# %% tags=["hide-input"]
rows = show.mixture_rows(shown)
show.mixture_table(rows)

# %% tags=["remove-input"]
show.mixture_words(rows)

# %% [markdown]
# Read the first row against the second. What an autoencoder of the input draws may also lean towards some code, because
# pictures of one class resemble each other; that is its level to beat. The nearest representative is expected to be the weaker reader
# of a blurred output: a mixture of many codes lies near their mean, and then the code nearest to it is one that lies near the mean
# itself. The weights of the mixture do not have that bias.
#
# ## Figure 2: clusters of one class
#
# The paper clusters features of a VGG16 that was trained on ImageNet {cite:p}`simonyan2014vgg,deng2009imagenet`. Those
# weights are a download of half a gigabyte and knowledge from a million labelled images; below `paper` scale we cluster
# what the baseline itself computes: the pooled output of its last stage (`baseline_penultimate`). The figure shows one class, a
# cluster per line, the representative first.

# %% tags=["hide-input"]
label = shown.train.classes.index(shape)
show.clusters_strip(shown, label)

# %% [markdown]
# The paper argues that a fighter jet is harder to redraw as an airliner than as another fighter jet. In the view above the
# drawing itself costs nothing once class and cluster are known; what clusters add are finer labels, and more to guess.
#
# Are there clusters at all? The *silhouette* {cite:p}`rousseeuw1987silhouettes` of an image compares its distance to its own
# cluster with that to the next: 1 for tight clusters far apart, 0 for clusters that merely cut a cloud into pieces. Three
# features, and noise without any structure:

# %% tags=["hide-input"]
show.silhouette_table(shown, ("baseline_penultimate", "baseline_mid", "pixels"), seed=seed)

# %% [markdown]
# The paper also tries HDBSCAN {cite:p}`campello2013hdbscan`, which looks for dense regions, finds their number itself and leaves images out as
# noise, and clustering by the cosine; it calls k-means best without numbers. On the features of this baseline:

# %% tags=["hide-input"]
codebooks_page.methods_table(show.features_of(shown), labels_of(shown.train), shown.train.classes)

# %% [markdown]
# `baseline_mid` is the pooled output of the stage before the last. It is meant for well-trained networks: where a baseline
# fits its training images almost perfectly, little variation within a class can be expected in its last features.
#
# ## Figure 3: how many clusters?
#
# The paper reads $K = 3$ off an elbow {cite:p}`thorndike1953family`: draw the *inertia*, the sum of squared distances to the
# nearest centre, over the number of clusters, and take the $k$ where the curve bends. We define the bend as the point that
# lies farthest below the straight line between the ends of the curve, both axes scaled to $[0, 1]$.
#
# In the authors' earlier code the matrix of features, images times components, is flattened to one column before k-means. That
# clusters *numbers*, not images: the right panel. Beside this page's features stand normal noise of the same shape, and a set
# of 500 points that was made with five clusters.

# %% tags=["hide-input"]
curves = show.elbow_curves(shown, seed)
show.elbow_figure(curves)

# %% tags=["remove-input"]
show.elbow_table(curves)

# %% [markdown]
# Flattened, noise without any structure has its knee at 3 as well, and so have the five true clusters: for numbers with one broad
# peak the inertia falls roughly like $1/k^2$, and that curve bends at 3 (the second exercise tries such distributions, and one with two
# peaks, whose knee is at 2). On images the height of the knee
# matters as much as its place; for noise it is low. Whether the paper's figure was made in this way is not known
# ({ref}`audit <audit-encodenet-19>`).
#
# ## Figure 4: entropy chooses the representatives
#
# With $p_c$ the baseline's probability of class $c$, the entropy is
#
# $$
# H(x) = -\sum_c p_c(x) \ln p_c(x) \quad \text{nats},
# $$ (encodenet-entropy)
#
# 0 when it is certain and $\ln C$ when it knows nothing. Images of one cluster, from the lowest entropy to the highest in
# even steps of the ranking; the first is the representative, unless the baseline classifies it wrongly.

# %% tags=["hide-input"]
code = int((shown.book.classes == label).nonzero()[0])
show.entropy_strip(shown, code)

# %% tags=["hide-input"]
show.entropy_histogram(shown)

# %% [markdown]
# A network trained longer pushes most of this histogram towards 0, so far that the ranking of the surest images drowns in the
# rounding of single precision if the entropy is computed from probabilities ({ref}`audit <audit-encodenet-22>`). We compute it in double
# precision, from the logarithms of the softmax. The logits themselves come from a network in single precision. Only in the recorded
# runs of `tiny` were they computed in bf16: the entropies of the 50 surest images are off by 3 % there (median; seed 2, the one that was
# computed again), and no representative of that seed changes.

# %% [markdown]
# The representatives of all clusters, which are what the autoencoder has to draw:

# %% tags=["hide-input"]
codebooks_page.representatives_grid(shown.book, shown.train)

# %% [markdown]
# What the recorded codebooks of real images tell (nothing of them is shown as pictures): how separate their clusters are, where
# the curve bends and how high, whether the baseline's errors changed a choice, and the mean squared error of the best constant
# output, one for all images and one per class.

# %% tags=["remove-input"]
codebooks_page.codebooks_table()

# %% [markdown]
# ## Figure 5: conversions
#
# Inputs, what both autoencoders make of them, the code that was the target, and the code with the largest weight in the
# output of the autoencoder of codes. A test image's target is the code of the nearest cluster of its true class; it serves
# for measuring only.

# %% tags=["hide-input"]
show.conversion_strip(shown)

# %% [markdown]
# Mixtures should look blurred: an autoencoder that is not certain does best to draw all codes that are
# possible on top of each other. Sharp outputs for *training* images may only say that these are known by heart, so what
# counts are the test images; the paper's caption does not say which set its images are from.
#
# ## How can the paper be read?
#
# The text says that the encoder is frozen. But Table 3 prints 89.26 % for a frozen encoder that was trained to redraw its own
# *input*, and thus never saw a label, only 1.86 points below the baseline. A linear layer on such features is expected far below
# ({ref}`audit <audit-encodenet-18>`). So something must differ from the text as we read it, and we run every reading that
# something in the paper or in the authors' earlier code speaks for. *From scratch* or *from the baseline* is where the encoder starts
# before the autoencoder is trained.

# %% tags=["remove-input"]
readings.readings_table()

# %% [markdown]
# [Table 3](table3.ipynb) runs them and applies a rule that was written down beforehand; the page tells what was changed in it when. The other pages take two: the literal
# text (`encodenet`, R3) and the reading of the earlier code (`finetune`, R1), from one and the same autoencoder.
#
# ## The five pages
#
# - [Table 1](table1.ipynb): the paper says that clustering lowers the reconstruction loss. Losses towards different codebooks
#   are not comparable; how large are they relative to the best constant output?
# - [Table 2](table2.ipynb): is the network better than its baseline, and than a baseline trained for as much work?
# - [Table 3](table3.ipynb): which reading reproduces the ablation, and is it the representatives that help?
# - [Table 4](table4.ipynb): against knowledge distillation from a larger teacher, on CIFAR-100.
# - [Table 5](table5.ipynb): against attention modules in a ResNet50: parameters, work and accuracy.
#
# ## What we decided where the paper is silent
#
# 1. *Features.* "The 13th layer" of VGG16 with shape (1, 1, 512): no layer fits both. At `paper` scale we take the output after the
#    last pooling, which has the shape; elsewhere the baseline's pooled last stage.
# 2. *Clustering.* k-means in each class, ten starts, fixed seed, after a principal component analysis to 100 dimensions where there are
#    more. HDBSCAN {cite:p}`campello2013hdbscan` and cosine k-means can be chosen; the paper calls k-means best without numbers.
# 3. *Number of clusters.* Three on both data sets; the paper says nothing for CIFAR-100. Table 3 tries 2, 5 and 8.
# 4. *Representatives.* Lowest entropy in nats, images un-augmented, batch norm in evaluation mode, among correctly classified
#    images; ties by the probability of the true class.
# 5. *Decoder.* From the un-pooled map: nearest-neighbour upsampling, $3 \times 3$ convolution, batch norm and ReLU until 32 px are
#    reached, then a convolution and a sigmoid. No connection skips the encoder's output; it would not be needed afterwards. Table 3
#    tries the pooled vector, too (`cluster_pooled`).
# 6. *Training of the autoencoder.* 500 epochs and MSE are printed. Ours: Adam, rate $10^{-3}$ falling by a cosine, batches of 128;
#    an encoder that starts from the baseline learns at a tenth of the rate (`encoder_lr`). Inputs are cropped and flipped, codes never are.
# 7. *Second stage.* A fresh head of the baseline's kind, 100 epochs, SGD with a cosine from 0.1, or from 0.01 where layers of the encoder are
#    trained too. *Frozen* includes the statistics of batch norm.
# 8. *Accuracies.* The headline is the last epoch. The paper does not say which epoch it prints; the best on the test images is
#    shown beside it (R7).
# 9. *Budget.* EncodeNet trains several times as long as its baseline. Every gain is also shown against the baseline
#    trained for as many FLOPs as the frozen reading takes; fine-tuning takes a few percent more.
#
# ## Exercises
#
# ````{exercise}
# :label: encodenet-chapter-ex1
#
# Three codes of four pixels: all black; the upper half white; all white. The truth is $p = (0.5, 0.3, 0.2)$, the autoencoder draws
# the mixture $q = (0.4, 0.4, 0.2)$. What is the excess loss, by definition and by equation {eq}`encodenet-excess`? And
# what does it cost to be certain of the second code, or of the third, when the first is true? Expected output:
#
# ```text
# by definition 0.0050, by the formula 0.0050
# second for first 0.50, third for first 1.00
# ```
# ````
#
# ````{solution} encodenet-chapter-ex1
# :class: dropdown
#
# The more pixels differ, the dearer the confusion.
#
# ```python
# import torch
# from efflib.papers.encodenet.show import excess, expected_loss
#
# codes = torch.tensor([[0.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
# p, q = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.4, 0.4, 0.2]])
# defined = expected_loss(codes, p, q) - expected_loss(codes, p, p)
# print(f"by definition {defined.item():.4f}, by the formula {excess(codes, p, q).item():.4f}")
# sure = torch.eye(3)
# second, third = (excess(codes, sure[:1], sure[[m]]).item() for m in (1, 2))
# print(f"second for first {second:.2f}, third for first {third:.2f}")
# ```
# ````
#
# ````{exercise}
# :label: encodenet-chapter-ex2
#
# Draw 20,000 random numbers from a normal, a uniform, an exponential and a log-normal distribution. Where is the knee of their inertia
# for 1 to 9 clusters? And where is it for the sum of the normal numbers and a coin that shows $-5$ or $5$? `efflib.papers.encodenet.clustering` has `scalar_inertias` and `knee`. Expected output:
#
# ```text
# normal: knee 3
# uniform: knee 3
# exponential: knee 3
# lognormal: knee 3
# two peaks: knee 2
# ```
# ````
#
# ````{solution} encodenet-chapter-ex2
# :class: dropdown
#
# An elbow at 3 is what a column of numbers with one broad peak gives; features of images, all in one column, are of that kind.
#
# ```python
# import numpy as np
# from efflib.papers.encodenet.clustering import knee, scalar_inertias
#
# chance = np.random.default_rng(0)
# columns = {name: getattr(chance, name)(size=20_000) for name in ("normal", "uniform", "exponential", "lognormal")}
# columns["two peaks"] = columns["normal"] + chance.choice([-5, 5], size=20_000)
# for name, numbers in columns.items():
#     print(f"{name}: knee {knee(scalar_inertias(numbers)).k}")
# ```
# ````
