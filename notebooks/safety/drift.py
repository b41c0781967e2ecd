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
# (safety-drift)=
# # Drift check: the published sizes without data and without a network

# %% tags=["remove-input"]
from efflib.papers.safety import drift_page

drift_page.headline()

# %% [markdown]
# Self-compression {cite:p}`csefalvay2023self` makes the bit depth $b$ of every channel a trained number and puts the size of
# the model into the loss. The paper of this chapter {cite:p}`zbeeb2025safety` adds a preservation set that is to protect
# what matters, and prints the sizes that come out. This page asks how much of those sizes was *learned*. It takes the
# optimiser of the published code, feeds it the one gradient that $b$ receives in those runs, a constant, and compares the
# sizes that follow with the published ones.

# %% tags=["parameters"]
# What "This page's own parameters" below simulates.
lr = 0.001
initial_bits = 16.0
steps = 6000
optimiser = "adam"  # or "adamw"
weight_decay = 0.0
gamma = 0.1
# Every page has these; here is nothing to train, so they change nothing.
scale = "smoke"
seeds = [0]
device = "auto"
engine = "local"
recompute = False

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% tags=["hide-input"]
from efflib.papers.safety.drift import Optimiser

own = Optimiser(optimiser, learning_rate=lr, weight_decay=weight_decay)

# %% [markdown]
# ## What the paper prints, and what its code logs
#
# Tables I and II print three sizes each. The released notebooks start every channel at 32 bits and log the size while they
# train: one line at the end for the CNN, a log of 101 lines for the decoder, of which 21 are quoted here. The size that
# they report is
#
# $$
# \text{bytes} = \frac{1}{8} \sum_{\text{channels } i} n_i \max(b_i, 0) ,
# $$ (safety-soft-bytes)
#
# with $n_i$ the weights of channel $i$.
#
# ## Why a constant gradient becomes a constant step
#
# *Which gradient does $b$ get?* The loss is cross-entropy plus $\gamma Q$, with $Q$ the sum in equation
# {eq}`safety-soft-bytes` (in bits) divided by the number $N$ of trained scalars. So $\partial \gamma Q / \partial b_i =
# \gamma n_i / N$: a constant. The cross-entropy reaches $b_i$ only through weights that are *clipped*, because $b$ sets
# where the range of the quantiser ends, not how fine it is. At 32 bits the range is astronomically wide, and nothing is
# clipped. The preservation loss is a cross-entropy too, so it is silent as well.
#
# *What does Adam do with it?* Adam {cite:p}`kingma2015adam` keeps two running means and divides out that they start at zero:
#
# $$
# m_t = \beta_1 m_{t-1} + (1-\beta_1) g, \quad v_t = \beta_2 v_{t-1} + (1-\beta_2) g^2, \quad
# \hat m_t = \frac{m_t}{1-\beta_1^t}, \quad \hat v_t = \frac{v_t}{1-\beta_2^t} .
# $$
#
# With the same $g$ at every step the sums are geometric: $m_t = (1-\beta_1^t)\, g$ and $v_t = (1-\beta_2^t)\, g^2$. Hence
# $\hat m_t = g$ and $\hat v_t = g^2$ from the first step on, and the update is
#
# $$
# b_t - b_{t-1} = -\eta \, \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} = -\eta \, \frac{g}{|g| + \epsilon}
# \approx -\eta \, \mathrm{sign}(g) .
# $$ (safety-sign)
#
# The size of $g$ is gone, and with it $\gamma$, $n_i$ and $N$. Every bit depth of every layer falls by the learning rate
# $\eta$ per step: with $\eta = 0.001$ a thousand steps cost one bit, whatever the network, the data and the penalty are.
# AdamW {cite:p}`loshchilov2019adamw` also multiplies $b$ by $1 - \eta w$ at every step; the decoder's notebook applies its
# weight decay $w = 0.01$ to $b$ too, so
#
# $$
# b_t = (b_0 + 100)(1 - 10^{-5})^t - 100 .
# $$
#
# The table lets $\gamma$ run over many orders of magnitude. Only where the gradient is as small as $\epsilon$ does Adam
# begin to notice it. The authors of the method use a large $\epsilon$ for $b$, which brings $\gamma$ back. Plain gradient
# descent would hardly move.

# %% tags=["hide-input"]
drift_page.gamma_table()

# %% [markdown]
# *What is left is rounding.* $b$ is a single-precision number. Between 16 and 32 its neighbours are $2^{-19}$ apart, and
# 0.001 is not a multiple of that, so each step is rounded to the nearest one. This is why sizes can be compared to the
# last printed digit.

# %% tags=["hide-input"]
drift_page.rounding_table(lr)

# %% [markdown]
# ## Is the simulation right?
#
# `bits_after` repeats PyTorch's operations in single precision, one by one. Beside PyTorch's own optimisers on a parameter
# with one entry, compared bit by bit:

# %%
drift_page.torch_check(steps=1000)

# %% [markdown]
# ## Printed against simulated
#
# The log first: each line names its step, so that nothing is chosen. Learning rate, start and weight decay are those of the
# released notebooks.

# %% tags=["hide-input"]
drift_page.log_table()

# %% [markdown]
# The other published sizes come without a step. For each: the nearest size that the optimiser passes through, and after how
# many steps. *Apart* is to be read beside *one step*: any size at all lies within half a step of the line, so that only a
# match much nearer than that says something.

# %% tags=["hide-input"]
drift_page.printed_table()

# %% [markdown]
# The row without quantisation of Table I is not the size of a float network, but fits a quantised run shortly after its
# start ({ref}`audit <audit-safety-5>`). The CNN's last logged size fits to the printed digit, after more steps than its
# loop has: the notebook's cell counters suggest that a loop had run before on the same model. The earlier version's size
# lies between two steps. Its counters suggest that settings were changed on the way; Adam's second mean needs about a
# thousand steps to forget a gradient of another size, and until then steps are not constant ({ref}`exercise <safety-drift-ex2>`). The other sizes
# of the tables can be step counts, and the paper calls its results averages; the line alone cannot tell.

# %% tags=["hide-input"]
drift_page.figure(own, initial_bits, steps, gamma)

# %% [markdown]
# ## Move it yourself
#
# The sliders run the same arithmetic in your browser: choose how the training starts and when it stops, and read the size.
# The dotted lines are the published sizes; the buttons set the sliders to them. With the paper's range of learning rates,
# from 0.0001 to 0.01, you can reach any size you like.

# %% tags=["remove-input"]
drift_page.explorer()

# %% [markdown]
# ## This page's own parameters
#
# With a kernel you can set everything: the parameters at the top of the page, or `-p` on the command line.

# %%
drift_page.own_table(own, initial_bits, steps, gamma)

# %% [markdown]
# ## Where the drift ends: the clamp
#
# The code of a weight is the weight divided by $2^e$, rounded, and all exponents start at $e = -8$. As long as $b$ is larger
# than the bits that the largest code of a channel needs, lowering it changes nothing: the same codes, the same outputs, the
# same loss. Weights of small trained networks are some tenths at most, so that resistance should begin near 7 or 8 bits:

# %% tags=["hide-input"]
drift_page.width_table()

# %% [markdown]
# From there on weights are clipped, the cross-entropy has a gradient for $b$, and the method begins to do what it is made
# for. Below that line this page's simulation says nothing. With the settings of the released code it lies far off:

# %% tags=["hide-input"]
drift_page.clamp_table()

# %% [markdown]
# So in the published loops the clamp was never reached, and most of the 32 bits were never used. Before any training, the
# codes of freshly drawn weights need

# %% tags=["hide-input"]
drift_page.start_table()

# %% [markdown]
# A file that stores each code in as many bits as it needs (*tight bytes*) drops the unused ones and gives the same outputs.
# [Table I](table1.ipynb) measures what that saves on trained networks.
#
# ## What this shows, and what it does not
#
# - The published sizes are *consistent with* a count of steps. They cannot be a trade-off between size and accuracy found
#   by the loss, because in these runs the bit depths receive no gradient that depends on accuracy.
# - It does not show which steps the tables were taken at, and it says nothing about accuracies and losses: those are
#   measured in [Table I](table1.ipynb) and [Table II](table2.ipynb).
# - It does not show that the method fails. It shows a regime in which it has not begun: with a small start or a faster rate
#   for $b$ the clamp engages. The preset `default` of the tables is such a regime, the preset `drift` repeats the
#   published one.
#
# ## What we decided where the paper is silent
#
# 1. *Learning rate, optimiser, start*: those of the released notebooks. The paper gives ranges that do not contain 32 bits.
# 2. $N$ in $Q$: all trained scalars, as in the notebooks (equation 3 says layers). It scales the gradient, so it has no
#    influence here.
# 3. *Size*: equation {eq}`safety-soft-bytes`, after the step for the decoder's log and the table, before it for $Q$.
# 4. *Clamp*: left out. Once $b$ is not positive its gradient is zero, as that of the `relu` in $Q$; its momentum carries it
#    on for some steps.
#
# ## What the audit says about these sizes

# %% tags=["remove-input"]
drift_page.audit()

# %% [markdown]
# ## Repeat it
#
# This line runs the page with other settings: a start at 8 bits, ten times the learning rate.
#
# ```bash
# papermill notebooks/safety/drift.ipynb drift.ipynb -p lr 0.01 -p initial_bits 8 -p steps 1000 -p optimiser adamw -p weight_decay 0.01
# ```
#
# ## Exercises
#
# ````{exercise}
# :label: safety-drift-ex1
#
# The CNN starts at 8 bits and is trained for 300 steps with Adam and a learning rate of 0.01. Work out its size by hand,
# with nothing clipped, then simulate it. Expected output:
#
# ```text
# by hand 51,060 bytes, simulated 51,061 bytes
# ```
# ````
#
# ````{solution} safety-drift-ex1
# :class: dropdown
#
# Each step takes 0.01 bits off all 81,696 weights: 8 - 3 = 5 bits are left. The byte between the two is rounding.
#
# ```python
# from efflib.papers.safety.drift import Optimiser, sizes_after
#
# by_hand = (8 - 300 * 0.01) * 81_696 / 8
# simulated = sizes_after("mnist_cnn", 300, Optimiser("adam", learning_rate=0.01), initial_bits=8)[-1]
# print(f"by hand {by_hand:,.0f} bytes, simulated {simulated:,.0f} bytes")
# ```
# ````
#
# ````{exercise}
# :label: safety-drift-ex2
#
# Gamma has no influence as long as it is *constant*. Train the CNN from 32 bits for 10,000 steps with $\gamma = 0.05$,
# then, without resetting Adam, for 2,000 more with $\gamma = 0.5$. By how many bytes is it smaller than with $\gamma =
# 0.05$ throughout, and how many steps is that worth? Why? Expected output:
#
# ```text
# 10,825 bytes smaller, worth 1,061 steps
# ```
# ````
#
# ````{solution} safety-drift-ex2
# :class: dropdown
#
# The first mean forgets the old gradient within some ten steps, the second one within some thousand. In between the larger
# gradient is divided by the root of a mean that is still small, and steps are several times as long.
#
# ```python
# from efflib.papers.safety.drift import sizes_after
#
# constant = sizes_after("mnist_cnn", 12_000, gamma=0.05)
# changed = sizes_after("mnist_cnn", 12_000, gamma=[0.05] * 10_000 + [0.5] * 2_000)
# apart = constant[-1] - changed[-1]
# step = (constant[0] - constant[10_000]) / 10_000
# print(f"{apart:,.0f} bytes smaller, worth {apart / step:,.0f} steps")
# ```
# ````
