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
# (encodenet-table3)=
# # Table 3: which reading of the paper reproduces its ablation?

# %% tags=["remove-input"]
from efflib.papers import encodenet
from efflib.papers.encodenet import readings
from efflib.report.notebook import TablePage

CLUSTER, FINETUNED = {"method": "encodenet", "target": "cluster"}, {"method": "finetune", "target": "cluster"}
TablePage(encodenet.tables["table3"], "smoke", 1).headline(
    [
        (CLUSTER, "baseline"),
        (FINETUNED, "baseline"),
        ("baseline_long", "baseline"),
        (CLUSTER, "baseline_long"),
        (FINETUNED, "baseline_long"),
    ]
)

# %% tags=["remove-input"]
readings.reading_headline(TablePage(encodenet.tables["table3"], "smoke", 1))

# %% [markdown]
# The paper's only ablation: the autoencoder is trained towards its own input, towards one representative per class, or towards
# one per cluster. The first is printed to hurt, the second to help, the third to help more. This page asks two things. Under
# which reading of the text can these four numbers arise? And if they do, is it the representative images that help?

# %% tags=["parameters"]
# scale: smoke (embedded data, seconds), tiny, small or paper; see "Repeat it" for the data they need.
scale = "smoke"
seeds = [0]
device = "auto"
engine = "local"
recompute = False
methods: list = None
targets: list = None
features: list = None

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% tags=["hide-input"]
table = encodenet.tables["table3"]
choices = {"methods": methods, "targets": targets, "features": features}
page = TablePage(table, scale, seeds, device, engine, recompute, encodenet.findings("table3"), choices)

# %% [markdown]
# ## What the paper prints and claims
#
# ResNet18 on CIFAR-10; *IC* stands for clustering within the classes. In parentheses: the printed gains over the first row.

# %% tags=["remove-input"]
page.printed()

# %% [markdown]
# The text concludes that the input as target makes for ineffective feature learning, and that clusters are essential. One
# number is hard to explain: a frozen encoder that learnt to redraw its input has seen no label, yet ends only 1.86 points
# below the baseline ({ref}`audit <audit-encodenet-18>`).
#
# ## What this page trains
#
# **Targets.** `identity`: the input itself, as cropped and flipped. `class`: the image of lowest entropy in the class.
# `cluster`: the image of lowest entropy in each of three clusters of the class. The autoencoders of one target are shared by
# all readings that start in the same way, so readings differ in nothing but what they are said to differ in.
#
# **Readings.** R1 and R3 run at every scale, R4 and R6 from scratch from `tiny` on, all of them from `small` on.

# %% tags=["remove-input"]
readings.readings_table()

# %% [markdown]
# **Controls of budget and labels.** Without codes, each answers one question:
#
# - `baseline_long`: the baseline, trained for as many FLOPs as baseline, autoencoder and frozen second stage together. Is it only
#   longer training?
# - `baseline_warm`: the baseline, trained on as the fine-tuning second stage is, its head kept. Is it only the second stage's recipe?
# - `head_only`: a fresh head on the baseline's own frozen encoder. What does a new head alone change?
# - `subclass`: the network learns the (class, cluster) pairs by cross-entropy, then gets a new head for the classes on the frozen encoder;
#   `subclass_finetune` trains all layers in that step. These are the labels that the codes carry, without any image. Is it the finer labels?
#   This step is as long as the baseline's training, and so shorter than the autoencoder's (300 epochs against 500 at `paper` scale).
#
# **Controls of the codes.** The same autoencoder and second stage, other pictures in the codebook:
#
# - `rand_rep`: a random image of each cluster instead of the one of lowest entropy. Does entropy matter?
# - `noise_code`: images of independent random pixels. Does it matter that the codes are images?
# - `max_ent`: the image of *highest* entropy (from `small` scale on, as the rest of this list).
# - `rand_cluster`: a random split of each class instead of clusters. Do the clusters matter, or only their number?
# - `other_class_code`: each class is sent to the representatives of another one. Does the picture have to show the class?
# - `cluster_k2`, `cluster_k5`, `cluster_k8`, `cluster_mid`, `cluster_pixels`, `cluster_hdbscan`, `cluster_cosine`: other numbers of clusters,
#   other features, other clustering.
# - `cluster_pooled`: the decoder starts from the globally pooled vector, so that the autoencoder trains exactly what the head will see.
#
# Why noise is a fair rival: the target depends on class and cluster alone, so training towards codes is training a classifier
# of sub-classes by a proper score, whatever is drawn on them (equation {eq}`encodenet-excess`).

# %% tags=["remove-input"]
page.plan()

# %% [markdown]
# ## The rule
#
# Written down before any autoencoder was trained on real data. For one reading, over seeds, every difference paired by seed; *above* means that the mean difference
# exceeds two of its standard errors, with three seeds or more:
#
# 1. The baseline is above `identity`.
# 2. `class` is above the baseline.
# 3. `cluster` is above `class`.
# 4. `identity` is less than 5 points below the baseline, again by two standard errors.
#
# A reading that fulfils 1 to 4 *shows the ordering* of the table. Whether the codes deserve the credit is a second question:
#
# 5. `cluster` is above every control of the mechanism: `baseline_long`, `rand_rep` and `noise_code` in the same reading, and
#    `subclass` (for R1 `subclass_finetune`).
#
# | outcome | when |
# |---|---|
# | ordering shown, mechanism supported | 1 to 5 hold |
# | ordering shown, explained by a control | 1 to 4 hold, and a control that is itself above the baseline is not beaten |
# | ordering shown, mechanism open | 1 to 4 hold, neither of the above: a control is undecided or did not run, or the reading has none for its codes |
# | ordering not shown | the opposite of 1, 2, 3 or 4 holds by two standard errors |
# | undetermined | none of these |
# | not run | no run of the reading |
#
# **What was changed in the rule, and when.** The first wording is of 21 November 2026. It was changed once, on 22 November at 04:06 UTC, when the
# first second stages on real data were just recorded: one seed of `tiny`, codes of clusters and of the input in R1 and R3, and `head_only`,
# between 03:59 and 04:06.
#
# - Conditions 1 to 5 were one question: a reading *reproduced* the table if it fulfilled all of them. Now 1 to 4 and 5 are asked separately.
# - A control explained the ordering if it was above `cluster`. Now it does if it is above the baseline and `cluster` is not above it.
# - Readings other than R1 and R3 have no codes to control with and were compared with no control. Now each is compared with
#   `baseline_long`, R2 also with `head_only` and R5 with `baseline_warm`.
#
# Conditions 1 to 4 are the first wording's. Where one of them fails, both wordings say that the ordering is not shown.
#
# Two standard errors of three seeds are a weaker demand than the 95 % intervals of the claims below; both are shown. The rule is applied
# to the last epoch; the last column of the first table applies it to the best epoch on the test images, which is reading R7. In
# the second table condition 4 reads *identity - baseline + 5*: above 0, `identity` is less than 5 points below the baseline.

# %% tags=["remove-input"]
readings.at_every_scale(page, readings.decisions_table, readings.steps_table)

# %% [markdown]
# ## The run
#
# The `smoke` run takes three targets in two readings and `head_only`, on a narrow VGG8 and rendered objects. Its autoencoders train
# for a few epochs only, too few for an encoder from scratch to catch up with the baseline. It shows that the code works.

# %%
results = page.results

# %% tags=["remove-input"]
page.measured()

# %% [markdown]
# ## Printed against measured
#
# At `tiny` and `small` scale the network is a ResNet20, a fortieth of ResNet18's size. `tiny` takes a fixed, stratified subset of
# 10,000 training images, 1,000 of them held out, for a short schedule: such runs test the *direction* of a claim. Their accuracies
# are not comparable with the printed ones, so no cell gets a verdict from them.

# %% tags=["remove-input"]
page.comparison()

# %% [markdown]
# How far did the autoencoders come? An NMSE of 1 is an output that ignores its input. An autoencoder that stays near it for long has
# hardly begun to learn, and a second stage on its encoder then says little about the method.

# %% tags=["remove-input"]
readings.at_every_scale(page, readings.autoencoders_table)

# %% [markdown]
# Every point is a mean over seeds with its 95 % interval; the grey line and band are the baseline's. Left the targets of the
# paper, right what cluster codes have to beat, on a scale of its own.

# %% tags=["hide-input"]
readings.targets_figure(page.show_scale().results)

# %% [markdown]
# The literal reading taken apart: what the same budget gives without any codes, what sub-class labels give without images, what
# random members of the clusters give, and what is left for the entropy.

# %% tags=["remove-input"]
page.decomposition(["baseline", "baseline_long", "subclass", {"method": "encodenet", "target": "rand_rep"}, CLUSTER])

# %% [markdown]
# ## Claims
#
# A claim is `supported` when every cell it speaks of ran and its 95 % interval lies on the claimed side, `contradicted`
# when one lies wholly on the other side, and `undetermined` otherwise. A claim about all cells needs all of them: a scale
# that runs only some can contradict it, never support it. Claims marked *ours* are the questions that the
# paper does not ask. The wording and the statistics were fixed before any autoencoder was trained on real data; the controls of *g* and *h*
# are those of the rule's first wording.

# %% tags=["remove-input"]
page.claims()

# %% [markdown]
# ## What we decided where the paper is silent
#
# 1. *What the second stage trains.* The text freezes the encoder and trains "the remaining layers"; the authors' earlier code
#    freezes nothing. Hence the readings above. *Frozen* includes the running statistics of batch norm, except in R6.
# 2. *Where the encoder starts.* Section 3.1 of the paper takes over the baseline's layers, which may mean its architecture or its
#    weights; the conclusion says that the autoencoder is *retrained*. R2 and R5 start from the weights, at a tenth of the decoder's rate.
# 3. *R4* trains the last stage of the encoder together with the head; the text also speaks of additional layers and of a thin subnetwork.
# 4. *Head.* Fresh and of the baseline's kind; R5 alone keeps the baseline's head, as it keeps everything else.
# 5. *Target of the identity row.* The very view that the encoder sees, cropped and flipped, before normalisation.
# 6. *Class representative.* Lowest entropy among the correctly classified images of the whole class.
# 7. *Second stage, decoder, clustering and training of the autoencoder* as listed for [Table 2](table2.ipynb) and [Table 1](table1.ipynb).
# 8. *Network.* ResNet18 at `paper` scale, ResNet20 at `tiny` and `small`. All of `tiny` and `small` clusters the baseline's own
#    features, `paper` those of an ImageNet VGG16; `features` chooses others.
# 9. *Seeds.* The paper prints one run of each row; ours are repeated, and an arm is compared with the baseline of its own seed.
#
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
# :label: encodenet-table3-ex1
#
# Each printed accuracy comes from one run on 10,000 test images. An accuracy of $a$ then has a standard deviation of
# $\sqrt{a (1 - a) / 10000}$ from the choice of the test images alone. How many standard deviations of an (unpaired) difference
# is each row from the row before it? Expected output:
#
# ```text
# identity less baseline: -1.86 points, -4.4 standard deviations
# class less identity: +2.85 points, +6.9 standard deviations
# cluster less class: +0.76 points, +2.0 standard deviations
# ```
# ````
#
# ````{solution} encodenet-table3-ex1
# :class: dropdown
#
# The step from classes to clusters, the paper's case for clustering, is the smallest, and the spread from initial weights is not even
# counted.
#
# ```python
# import math
# from efflib.papers.encodenet import printed
#
# found = {cell.keys.get("target", "baseline"): cell.value / 100 for cell in printed["table3"].numbers}
# rows = list(found.items())
# for (before, low), (after, high) in zip(rows, rows[1:]):
#     spread = math.sqrt((low * (1 - low) + high * (1 - high)) / 10_000)
#     gap = high - low
#     print(f"{after} less {before}: {100 * gap:+.2f} points, {gap / spread:+.1f} standard deviations")
# ```
# ````
#
# ````{exercise}
# :label: encodenet-table3-ex2
#
# Three seeds give the reading `encodenet` the printed accuracies of the table, give or take a tenth of a point: the baseline
# 91.0, 91.1, 91.2, `identity` 89.2, 89.3, 89.4, `class` 92.0, 92.1, 92.2 and `cluster` 92.8, 92.9, 93.0. `rand_rep`,
# `noise_code` and `subclass` end half a point below `cluster`. What does the rule say if `baseline_long` ends at 92.3, 92.4, 92.5, and
# what if it ends at 93.0, 93.2, 93.1? Expected output:
#
# ```text
# ordering shown, mechanism supported: ordering, nearness and every control
# ordering shown, explained by a control: these gain too, and cluster codes are not better: baseline_long
# ```
# ````
#
# ````{solution} encodenet-table3-ex2
# :class: dropdown
#
# `decide` asks for the samples of an arm: a mapping from seeds to accuracies.
#
# ```python
# from efflib.papers.encodenet.rule import decide
#
#
# class Measured(dict):
#     def samples(self, method, target=None, **setting):
#         return dict(enumerate(self.get(target or method, [])))
#
#
# arms = Measured(baseline=[91.0, 91.1, 91.2], identity=[89.2, 89.3, 89.4])
# arms |= {"class": [92.0, 92.1, 92.2], "cluster": [92.8, 92.9, 93.0]}
# arms |= {name: [92.31, 92.4, 92.49] for name in ("rand_rep", "noise_code", "subclass")}
# for longer in ([92.3, 92.4, 92.5], [93.0, 93.2, 93.1]):
#     arms["baseline_long"] = longer
#     found = decide(arms, {"model": "resnet18", "dataset": "cifar10"}, "encodenet")
#     print(f"{found.outcome}: {found.reason}")
# ```
# ````
