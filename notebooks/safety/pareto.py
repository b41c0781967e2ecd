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
# (safety-pareto)=
# # The Pareto front: what else makes a network this small?
#
# *For the CNN:*

# %% tags=["remove-input"]
from efflib.papers import safety
from efflib.papers.safety import pareto
from efflib.report.notebook import TablePage

TablePage(pareto.TABLES["pareto"], "smoke", 1).headline()

# %% [markdown]
# *For the decoder:*

# %% tags=["remove-input"]
TablePage(pareto.TABLES["pareto_decoder"], "smoke", 1).headline()

# %% [markdown]
# The paper of this chapter {cite:p}`zbeeb2025safety` compares its network with two others: one without quantisation, and one
# that compresses itself without a preservation set. Neither is what a practitioner would reach for first. This page puts
# self-compression beside the usual ways to make a trained network small, and compares *at equal bytes*. The figure is ours;
# the paper has none like it.

# %% tags=["parameters"]
# scale: smoke (embedded data, seconds), tiny, small or paper; see "Repeat it" for the data they need.
scale = "smoke"
seeds = [0]
device = "auto"
engine = "local"
recompute = False
methods: list = None
gammas: list = None

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% tags=["hide-input"]
table, decoder_table = pareto.TABLES["pareto"], pareto.TABLES["pareto_decoder"]
choices = {"methods": methods, "gammas": gammas}
page = TablePage(table, scale, seeds, device, engine, recompute, safety.findings("pareto"), choices)
decoder = TablePage(decoder_table, scale, seeds, device, engine, recompute, safety.findings("pareto"), choices)

# %% [markdown]
# ## What the paper claims
#
# Its safe networks are printed as better than the others; they are also larger than the unsafe ones
# ({ref}`audit <audit-safety-3>`). A comparison at one size is not made. Two networks of different size and different
# accuracy cannot be ranked by either number alone. One *dominates* the other if it has no more bytes and no worse a result;
# the networks that none dominates are the *Pareto front*, and only those are worth choosing from.
#
# ## What this page trains
#
# Everything starts from the float networks of [Table I](table1.ipynb) and [Table II](table2.ipynb), and the self-compressed
# networks are theirs too. At `smoke` scale not all settings run, and no narrower networks.

# %% tags=["remove-input"]
page.plan()

# %% tags=["remove-input"]
decoder.plan()

# %% [markdown]
# ## The rivals in brief
#
# | name | what is done to the float network | trained further |
# |---|---|---|
# | rounding (PTQ) | each weight to the nearest of $2^B$ values; the largest weight of each channel sets the step | no |
# | rounding, least error | the same with a step $c$ times as large, $c$ from 0.30 to 1.00, that gives the channel's least squared error | no |
# | quantisation-aware training | the same values, while weights *and* steps train (LSQ) | 20 % of the steps |
# | weights pruned | the smallest weights of the whole network become 0 and stay so | 20 % of the steps |
# | channels pruned | the channels with the smallest sums of absolute weights are cut out | 20 % of the steps |
# | narrower network | half or a quarter of the channels from the start | from scratch |
#
# Pruned and narrower networks also appear rounded to 8 bits. *Tighten only* is the network of the published setting with its
# unused bits removed: the same weights, the same function.
#
# Rounding a channel with weights $W$ to $B$ bits means
#
# $$
# s = \frac{c \max|W|}{2^{B-1} - 1}, \qquad n = \mathrm{clip}\!\left(\left\lfloor W / s \right\rceil,\,
# -2^{B-1},\, 2^{B-1} - 1\right), \qquad y = s\, n .
# $$ (safety-ptq)
#
# A smaller $c$ clips a few large weights and gives all others a finer step. At 8 bits that hardly matters, at 2 bits it decides.
# Below, the error of one trained channel of this page's own CNN along $c$.

# %% tags=["hide-input"]
results, decoder_results = page.results, decoder.results
pareto.clipping_figure(results)

# %% [markdown]
# ## How bytes are counted
#
# For every network the bytes of the same layers: those that self-compression quantises. Codes count in the whole bits that hold
# them, and each channel with codes has a scale of 4 bytes. Pruned weights cost a bit each for the mask, and 4 bytes (or one, at
# 8 bits) for each weight that is left. Other layers count for none of them. The published setting appears twice: with the
# *soft* size that the paper reports, which no file has and which is not judged, and tightened.
#
# ## The run

# %%
pareto.figure([results, decoder_results])

# %% [markdown]
# Filled points are on the front, hollow ones are dominated or not judged. Lines join the points of one method.

# %% tags=["remove-input"]
pareto.front_table(results)

# %% tags=["remove-input"]
pareto.front_table(decoder_results)

# %% [markdown]
# These are narrow networks after a few hundred steps; they show how the comparison is made, and say nothing about its outcome on
# real data. The budgets in the tables below are meant for networks of full width.
#
# ## Measured on MNIST and on names
#
# The largest scale that is recorded, with the three points that the paper prints. Their sizes are soft ones, and
# {ref}`safety-drift` shows where those come from.

# %% tags=["hide-input"]
pareto.recorded_figure([page, decoder])

# %% [markdown]
# The best network of each kind that fits a budget. The last budget is about the printed size of the safe CNN.

# %% tags=["remove-input"]
pareto.recorded_tables(page)

# %% tags=["remove-input"]
pareto.recorded_tables(decoder)

# %% [markdown]
# ## Claims
#
# A claim is `supported` when every cell it speaks of ran and its 95 % interval lies on the claimed side, `contradicted`
# when one lies wholly on the other side, and `undetermined` otherwise. Differences are paired by seed. Both claims are *ours*: the
# paper does not compare with other methods. The wording and the statistics were fixed before any run.

# %% tags=["remove-input"]
page.claims()

# %% tags=["remove-input"]
decoder.claims()

# %% [markdown]
# ## What we decided
#
# 1. *Starting point.* The float network of Table I or II, of the same seed; 10,000 steps at `paper` scale.
# 2. *Fine-tuning* takes 20 % of those steps at a learning rate of $10^{-4}$, with the float network's optimiser and batches. The
#    self-compressed networks of our own setting train from scratch for 5,000 (CNN, larger batches) or 10,000 steps.
# 3. *Quantisation-aware training* learns one step per channel, not per layer as in its paper, since every other method here has one
#    per channel. Weights on a bound count as inside.
# 4. *Rounding to nearest*, ties to even. All methods re-estimate batch normalisation on the same training batches before each test.
# 5. *Channels* are cut in layers whose output only another quantised layer reads. In the decoder these are attention rows, with
#    equally many in every head, and feed-forward rows; the residual stream keeps its width.
# 6. *Nothing is chosen on test images*: every setting of every method is shown, none is the best of several.
# 7. *A library?* PyTorch's own pruning makes the masks and chooses the channels. Its quantisation stores 8-bit integers, divides
#    symmetric ranges differently, and has no choice of $c$; for given steps it computes the same values, which a test checks.
#    torchao is not among this book's dependencies.

# %% [markdown]
# ## Cost and provenance

# %% tags=["remove-input"]
page.cost()

# %% tags=["remove-input"]
decoder.cost()

# %% [markdown]
# ## What the audit says about this figure

# %% tags=["remove-input"]
page.audit()

# %% [markdown]
# ## Repeat it
#
# This line runs the figure again on your machine, at the scale you choose; what is recorded is not run twice. Set
# `EFFLIB_DATA` to a folder with the data, or let the first run download them. `methods` takes some of them only, `gammas` other
# weights of the penalty.

# %% tags=["remove-input"]
page.repeat()

# %% [markdown]
# ## Exercises
#
# ````{exercise}
# :label: safety-pareto-ex1
#
# Round the CNN to 8, 4 and 2 bits. How many bytes do its convolutions take, scales included, and how many times smaller is that than
# the printed size of the safe network? Expected output:
#
# ```text
# 8 bits: 82,464 bytes, 2.60 times smaller
# 4 bits: 41,616 bytes, 5.16 times smaller
# 2 bits: 21,192 bytes, 10.13 times smaller
# ```
# ````
#
# ````{solution} safety-pareto-ex1
# :class: dropdown
#
# No training is needed to know the size: it depends on the architecture alone.
#
# ```python
# from efflib.models import create_model
# from efflib.papers import safety
# from efflib.quantize import fixed_width_bytes, post_training
#
# safe = safety.printed["table1_bytes"].cell(method="safe").value
# for bits in (8, 4, 2):
#     size = fixed_width_bytes(post_training(create_model("mnist_cnn", 10), bits), bits)
#     print(f"{bits} bits: {size:,} bytes, {safe / size:.2f} times smaller")
# ```
# ````
#
# ````{exercise}
# :label: safety-pareto-ex2
#
# A sparse network is stored as a bitmask and the weights that are left. From how many percent of zeros on is it smaller than the
# same network in dense 8-bit codes, if the weights that are left take 4 bytes each, and if they take one? (Scales apart.) Expected
# output:
#
# ```text
# 4 bytes each: from 79 % zeros on
# 1 byte each: from 13 % zeros on
# ```
# ````
#
# ````{solution} safety-pareto-ex2
# :class: dropdown
#
# With $n$ weights and a share $p$ of zeros: $n/8 + 4(1-p)n < n$ from $p > 1 - 0.875/4$, and $n/8 + (1-p)n < n$ from $p > 1/8$.
#
# ```python
# from efflib.models import create_model
# from efflib.quantize import mask_smallest, post_training, sparse_bytes, unmask
#
# found = {}
# for percent in range(99, 0, -1):
#     model = create_model("mnist_cnn", 10)
#     mask_smallest(model, percent / 100)
#     unmask(model)
#     dense = sum(model.get_submodule(name).weight.numel() for name in model.quantizable)
#     left = sum(int(model.get_submodule(name).weight.count_nonzero()) for name in model.quantizable)
#     if sparse_bytes(model) < dense:
#         found["4 bytes each"] = percent
#     if dense // 8 + left < dense:
#         found["1 byte each"] = percent
# for name, percent in found.items():
#     print(f"{name}: from {percent} % zeros on")
# ```
# ````
