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
# (safety-figures)=
# # Figures 1 and 3: size, time and weights

# %% tags=["remove-input"]
from efflib.papers.safety import show

recorded = show.recorded_runs()
show.headline(recorded)

# %% [markdown]
# The paper draws three pictures of its runs ({cite:p}`zbeeb2025safety`; Figure 2 is a flow chart, see the
# [chapter](chapter.ipynb)): accuracy against size while the network shrinks (Figure 1a), the time of a training step (1b), and the
# histogram of the weights (3). None of them has numbers. We draw the same pictures twice, in the *published setting*, which
# starts at 32 bits, and in *our setting*, which starts at 8 and lets bits fall faster; and put numbers beside them.

# %% tags=["parameters"]
# scale: smoke (embedded data, seconds), tiny, small or paper; see "Repeat it" for the data they need.
scale = "smoke"
seeds = [0]
device = "auto"
engine = "local"
recompute = False
# Weight of the penalty in our setting; None takes 1 for the hurried run of smoke and 0.1 on real data.
gamma = None

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% [markdown]
# ## What the paper shows and claims
#
# - *Figure 1(a)*: grey dots, accuracy at some size, and a black line, "the best fit to the data". The caption says that size falls
#   rapidly early in training, then more slowly, while accuracy is kept.
# - *Figure 1(b)*: the time of a step falls as parameters are pruned, "sampled 3000 data points".
# - *Figure 3*: weights concentrate near the centre, with tails that "represent significant weights".
#
# ## What this page trains
#
# One float network and two compressed ones, each for the first of `seeds`: the safe run of [Table I](table1.ipynb) in the published setting,
# and one in our setting. At smoke that is the hurried run of the chapter.

# %%
import efflib
from efflib.trials import Store

seed = 0 if isinstance(seeds, int) else seeds[0]
trials = show.own_trials(scale, seed, gamma)
efflib.run(list(trials.values()), scale, engine=engine, device=device, recompute=recompute, progress=False)
store = Store.for_scale(scale)
runs = show.own_runs(trials, scale, store)

# %% [markdown]
# ## Figure 1(a): size and accuracy during training
#
# Left: *soft size*, the sum of all bit depths, and *tight size*, the bits that the codes really need, with the accuracy on test and
# preserved images. Right: one grey dot per checkpoint (the untrained network is left out) and a parabola in the logarithm of the
# size, fitted by least squares. Time runs from right to left there, as the size falls.

# %% tags=["hide-input"]
show.size_figure(runs)

# %% tags=["hide-input"]
show.pace_table(runs)

# %% [markdown]
# How to read the upper line: in the published setting the soft size is a *clock*. It falls by the same amount at every step, whatever
# the network does ([drift check](drift.ipynb)), so accuracy against size is accuracy against time with the axis
# reversed, and any network that learns gives a rising accuracy at falling size. What the codes need hardly changes, because
# no bit that goes was in use. In our setting the fall is steep first, as the caption says, and ends in a knee: there
# weights are clipped and the cross-entropy resists.
#
# A smooth line through such dots describes one run. It cannot say what another size would have cost: each dot was trained for
# another number of steps.
#
# On real data, at the largest scale recorded so far:

# %% tags=["hide-input"]
show.size_figure(recorded)

# %% tags=["hide-input"]
show.pace_table(recorded)

# %% [markdown]
# ## Figure 1(b): does a step become faster?
#
# Only if something is really *removed*. A channel with zero bits still takes part in every multiplication. We put a share of the
# channels of every layer of the paper's CNN to zero bits and time training steps, with the dead channels left in the tensors, and with them
# taken out of weights, batch norm, next layer and optimiser.

# %% tags=["hide-input"]
rows = show.time_rows()
show.time_figure(rows)

# %% tags=["hide-input"]
show.time_table(rows)

# %% [markdown]
# These are clock times of the machine that made the page, on its CPU, the median of some steps; whatever else it did meanwhile is part of them.
# In the first row both networks are the same, so their difference shows how far such times can be trusted. Dead channels that are left
# in save no multiplication; removed ones save most of them. On a GPU a network this small waits for its many small operations to
# be started, and hardly gains.
#
# Does it happen in training? The time of a step between two notes of the runs above, with the channels that are alive. Our runs leave dead
# channels in place, so that they can be restored; only the packed file leaves them out.

# %% tags=["hide-input"]
show.pace_figure(runs)

# %% tags=["hide-input"]
show.pace_figure(recorded)

# %% [markdown]
# In the published setting *no channel dies*, because no bit depth comes near zero; so none can be removed and no step can become faster for
# that reason. The released code contains no removal either ({ref}`audit <audit-safety-11>`). A falling curve needs another cause
# there.
#
# ## Figure 3: the histogram of weights
#
# Weights as the networks compute with them, in 100 bins between the outermost thousandths, and a Gaussian kernel estimate of their density (Scott's rule for its
# width); below, without exact zeros. Beside the compressed networks stand the float twin, and the same network before any
# training. The *excess kurtosis* measures tails: 0 for a normal distribution, above for heavier tails, -1.2 for a uniform one.

# %% tags=["hide-input"]
weights = show.largest_weight_sets(trials, store, recorded, Store.for_scale("paper"))
show.weights_figure(weights)

# %% tags=["hide-input"]
show.weights_table(weights)

# %% [markdown]
# Two traps lie in such a picture. *Layers are mixed*: each starts uniform, in a range that depends on its number of inputs, and the sum
# of wide and narrow boxes has a peak and tails before any training ({ref}`exercise <safety-figures-ex1>`). Compare the column of single layers. And *the
# float network shows nearly the same picture* as the one of the published setting, so the picture cannot be the work of quantisation
# there.
#
# In our setting the picture is another one, but look at the column *clipped*: the share of weights that lie beyond the range of their
# channel and sit on its bounds, where their own gradient is zero. It is large where bits fall faster than the exponents can follow.
# The codes, layer by layer:

# %% tags=["hide-input"]
show.codes_figure(weights)

# %% [markdown]
# ## What we decided where the paper is silent
#
# 1. *Which runs*: the paper does not say which of its runs the figures show; we take the safe CNN.
# 2. *The fit* of Figure 1(a): a parabola in the logarithm of the size over the checkpoints of one run.
# 3. *Size*: soft bytes, which the paper reports, with tight bytes beside them.
# 4. *Time*: of whole training steps; medians on this page's CPU, and means between notes in the records. Nothing is concluded from
#    them beyond the direction.
# 5. *Histogram*: all quantised layers together, as the caption suggests; codes by layer beside it. Weights of recorded runs are not part of the
#    book's records: where this machine does not hold them, the histograms are those of this page's run.
#
# ## What the audit says about these figures

# %% tags=["remove-input"]
show.audit("figures")

# %% [markdown]
# ## Repeat it
#
# This line runs the page again on your machine, at the scale you choose; what is recorded is not run twice. Set `EFFLIB_DATA` to a
# folder with the data, or let the first run download them.
#
# ```bash
# papermill notebooks/safety/figures.ipynb figures.ipynb -p scale tiny -p gamma 0.3
# ```
#
# ## Exercises
#
# ````{exercise}
# :label: safety-figures-ex1
#
# Before training the weights of each convolution are uniform in $\pm 1 / \sqrt{n}$, with $n$ its inputs: 25, 800, 288 and 576 for the CNN, of 800,
# 25,600, 18,432 and 36,864 weights. For a uniform distribution in $\pm a$ the mean of $x^2$ is $a^2 / 3$ and that of $x^4$ is $a^4 / 5$.
# What is the excess kurtosis of one layer, and of all of them together? Expected output:
#
# ```text
# one layer -1.20, all together 3.60
# ```
# ````
#
# ````{solution} safety-figures-ex1
# :class: dropdown
#
# One percent of all weights, the wide ones of the first layer, make the tails, without any training or quantisation.
#
# ```python
# layers = [(800, 25), (25_600, 800), (18_432, 288), (36_864, 576)]  # weights, inputs
#
#
# def excess(chosen):
#     total = sum(weights for weights, _ in chosen)
#     second = sum(weights * (1 / n) / 3 for weights, n in chosen) / total
#     fourth = sum(weights * (1 / n) ** 2 / 5 for weights, n in chosen) / total
#     return fourth / second**2 - 3
#
#
# print(f"one layer {excess(layers[:1]):.2f}, all together {excess(layers):.2f}")
# ```
# ````
#
# ````{exercise}
# :label: safety-figures-ex2
#
# Half of the channels of every convolution of the CNN die and are removed. Which share of the convolutions' weights and of all
# multiplications is left? Why is it not a half? Expected output:
#
# ```text
# weights 25.2 %, multiplications 25.9 %
# ```
# ````
#
# ````{solution} safety-figures-ex2
# :class: dropdown
#
# A layer loses half of its outputs and half of its inputs, so a quarter is left; only the first layer, whose input is the image, keeps a half.
#
# ```python
# from efflib import create_model
# from efflib.models import count_macs
#
# whole, half = (create_model("mnist_cnn", 10, width=width) for width in (1.0, 0.5))
# weights = [sum(p.numel() for p in model.parameters() if p.ndim == 4) for model in (whole, half)]
# macs = [count_macs(model, 28, 1) for model in (whole, half)]
# print(f"weights {weights[1] / weights[0]:.1%}, multiplications {macs[1] / macs[0]:.1%}".replace("%", " %"))
# ```
# ````
