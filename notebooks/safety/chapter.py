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
# (safety)=
# # Safety-guided self compression: a network that shrinks while it learns, and what watches over it
#
# *Self-compression* {cite:p}`csefalvay2023self` makes the number of bits of every channel of a network a trained number and
# puts the size of the model into the loss: bits that are not needed go, and a channel without bits is taken out. The paper
# of this chapter {cite:p}`zbeeb2025safety` adds a guard, the *preservation set*: examples whose loss counts extra and whose
# accuracy is watched while the network shrinks. It reports better accuracy at about 60 % of the size, for a CNN on MNIST
# {cite:p}`lecun1998mnist` and a decoder of names. This chapter takes the method apart on live weights. The pages behind it
# repeat the tables and figures.

# %% tags=["remove-input"]
from efflib.papers.safety import show

show.up_front()

# %% tags=["parameters"]
# `seed` fixes weights and batches; `bits` is the depth of the quantiser shown; `gamma` weighs the penalty of the live run.
seed = 0
bits = 3.0
gamma = 1.0
device = "auto"

# %% tags=["remove-cell"]
from efflib.notebooks import check_parameters

check_parameters(globals())

# %% [markdown]
# ## The idea
#
# 1. Every output channel (a kernel of a convolution, a row of a linear layer) owns two trained numbers: a *bit depth* $b$
#    and an *exponent* $e$. The network computes with weights that were rounded to what these allow.
# 2. The loss contains the mean bit depth $Q$, weighed by $\gamma$. Training lowers $b$ where bits are not needed; a channel
#    whose $b$ reaches 0 is zero everywhere and can be removed.
# 3. *Safety*: a tenth of the training examples, chosen because they are hard or typical, form the preservation set. Its
#    cross-entropy is a further term of the loss, weighed by $\lambda$.
# 4. If the result on the preservation set falls by too much, some channels get bits back.
#
# The loss of a step is
#
# $$
# L = \mathrm{CE}(\text{batch}) + \alpha \sum |W| + \gamma Q + \lambda\, \mathrm{CE}(\text{preserved batch}),
# \qquad Q = \frac{1}{N} \sum_{\text{channels } i} n_i \max(b_i, 0) ,
# $$ (safety-loss)
#
# with $n_i$ the weights of channel $i$ and $N$ those of the whole network. The authors' "unsafe" network is the same without the
# last term and without restoration.
#
# ## A network to look at
#
# A CNN of the paper's shape, a quarter as wide, learns scikit-learn's handwritten digits, enlarged to 28 pixels; first
# without compression (the *float twin*), then with it. The second run starts at 8 bits and hurries: its penalty and the
# rate of its bits are large, so that within some seconds it does everything the method can do.

# %%
import efflib
from efflib.trials import Store

trial = show.live_trial(seed, gamma)
efflib.run([trial.parents["float"], trial], scale="smoke", device=device, progress=False)
shown = show.scene(trial, Store.for_scale("smoke"))

# %% [markdown]
# ## The quantiser, step by step
#
# A weight $x$ of a channel with $b > 0$ is divided by the step $2^e$, clipped, rounded, and multiplied again:
#
# $$
# s = 2^{-e} x, \quad c = \min(\max(s, -2^{b-1}), 2^{b-1} - 1), \quad n = \mathrm{round}(c), \quad y = 2^{e} n .
# $$ (safety-steps)
#
# The integer $n$ is the *code*, the thing that a file stores. With $b \le 0$ both bounds are 0, and so is $y$. Note what the two
# numbers do: $e$ sets how *fine* the values are, $b$ only how *far* they reach. Some weights of one trained channel, at a depth
# that clips the outermost ones:

# %% tags=["hide-input"]
channel = shown.twin.conv2.weight[0]
show.steps_table(channel, bits)

# %% [markdown]
# Rounding is flat almost everywhere, so its true derivative is useless. The *straight-through estimator*
# {cite:p}`bengio2013estimating` takes it to be 1. What follows, per weight, for $\partial L / \partial y = 1$:
#
# | where $s$ lies | $\partial y / \partial x$ | $\partial y / \partial b$ | $\partial y / \partial e$ |
# |---|---|---|---|
# | inside, or on a bound | 1 | 0 | $\ln 2\,(y - x)$ |
# | above | 0 | $+\ln 2 \cdot 2^{e+b-1}$ | $\ln 2\, y$ |
# | below | 0 | $-\ln 2 \cdot 2^{e+b-1}$ | $\ln 2\, y$ |
# | anywhere, if $b \le 0$ | 0 | 0 | 0 |
#
# Two entries matter for all that follows. Inside, $b$ gets *nothing*. And where $b \le 0$ nothing moves at all: a channel that
# has died stays dead, unless somebody restores it. One weight in each region, through the layer that all our runs use:

# %% tags=["hide-input"]
show.gradient_table()

# %% [markdown]
# *On the bound* a weight counts as inside. Automatic differentiation would split the gradient of such a tie in halves; after a
# file of integers was loaded, weights sit on bounds all the time.
#
# *Round, not floor.* The paper prints floor brackets; its code, and the original method, round to the nearest integer, halves to
# the even one. The difference decides whether anything can ever be removed. With $b$ near 0 the bounds are $-1/2$
# and $-1/2$: rounding gives 0, the floor gives $-1$, and a channel "without bits" would be $-2^e$ everywhere.

# %% tags=["hide-input"]
show.rounding_table(channel)

# %% [markdown]
# ## What a fraction of a bit means
#
# $b$ is a real number, codes are integers. With $h = 2^{b-1}$ codes reach from $-\mathrm{round}(h)$ to $\mathrm{round}(h) - 1$,
# so a channel has $2\,\mathrm{round}(h)$ *levels*, a staircase. A file cannot store 2.4 bits per code either: it needs the least
# whole $k$ with $2^b \le 2^k + 1$. Left: levels counted by sending a ramp through the quantiser. Right: bits in the file.

# %% tags=["hide-input"]
show.levels_figure()

# %% [markdown]
# The *soft size* that the paper reports adds up $\max(b, 0)$. Where the staircase lies above the dotted line, soft size
# promises less than any file of whole bits can hold. The stairs end at $\log_2(2^k + 1)$, and trained bit depths like to rest
# there, where the next level would appear. We therefore report four sizes: *soft*; *chain*, which no longer counts inputs from
# dead channels; *tight*, the bits that the codes present need; and the *file* with everything it takes to run the network.
#
# ## Nothing but the penalty moves $b$, until the clamp engages
#
# Inside the range $\partial y / \partial b = 0$. So as long as no weight of a channel is clipped, the cross-entropy, that of
# the preservation set included, has no say about its bits. We put the float twin on the exponent of the released
# code, $2^{-8}$ for all channels, and lower $b$:

# %% tags=["hide-input"]
rows = show.clip_rows(shown, [depth / 2 for depth in range(24, 3, -1)])
show.clip_figure(rows)

# %% tags=["remove-input"]
show.clip_words(rows)

# %% [markdown]
# The penalty pushes with the same strength everywhere. Against it stands nothing at first; then, once weights are clipped, a
# gradient that soon exceeds it. That edge is the *clamp*. All learning of bit depths takes place at the clamp and below. At
# the far end the gradient fades again, because hardly anything is left of the network. The released runs start at 32 bits and,
# with steps of 0.001, end long before the clamp ([drift check](drift.ipynb)).
#
# A second effect is easy to miss: a clipped weight has $\partial y / \partial x = 0$, so it stops learning. Bits that fall faster
# than the exponent can follow leave many weights stuck on their bounds; [the figures](figures.ipynb) show how many.
#
# ## What is preserved: images
#
# The paper names three reasons for an image to be preserved: Grad-CAM, uncertainty, and diversity. It gives no formulas. Ours, all
# computed by the float twin in evaluation mode, for a set of $M$ images, a tenth of the training images:
#
# - *evidence* (half of the set): Grad-CAM {cite:p}`selvaraju2017gradcam` weighs the maps of the last convolution by the
#   mean gradient of the predicted class. The map is scaled to $[0, 1]$ and summed: a large sum means that the evidence
#   is spread over the image.
# - *uncertain* (a quarter): the smallest *margin*, the largest predicted probability less the second one.
# - *diverse* (the rest): k-means with ten clusters per class on the classifier's inputs, scaled to unit length; cluster by cluster
#   the image nearest to the centre.

# %% tags=["hide-input"]
found = show.preserved(shown)
show.preserved_strip(shown, found)

# %% tags=["hide-input"]
show.preserved_table(shown, found)

# %% [markdown]
# Only the second line is *hard*. The preserved images are training images, so $\lambda$ does not add data, it weighs some
# examples more and looks at more examples per step. Two controls keep that apart in [Table I](table1.ipynb): a set
# of the same size drawn by chance, and a second batch of ordinary images. The released code chooses among the *test* images instead
# ({ref}`audit <audit-safety-9>`).
#
# ## What is preserved: names
#
# For the decoder the released code scores each name by how probable its letters are, one after the other:
#
# $$
# \mathrm{score}(x_1 \dots x_m) = \frac{1}{m-1} \sum_{i=1}^{m-1} P(x_{i+1} \mid x_i) ,
# $$ (safety-bigrams)
#
# with $P$ counted inside the names themselves, and preserves those with the *lowest* scores. We count in the training names only. On the
# names embedded in this library:

# %% tags=["hide-input"]
show.names_table()

# %% [markdown]
# The score favours short names: a mean over one pair can be lower than a mean over five.
#
# ## Restoration
#
# At every check the network is measured on the whole preservation set. A result worse than the best so far by more than a
# tolerance (one point of accuracy, 0.05 nats) is a *violation*. Then, in every layer:
#
# - of the dead channels, the tenth with the largest latent weights gets at least 2 bits;
# - of the living channels with fewer bits than at the last good check, the tenth where the lost bits would help the preservation loss
#   most gets those bits back.
#
# Restored channels are free of the penalty until the next check, their momentum in Adam is cleared, and no channel is restored more
# than three times. What happened in the live run, whose checks fall on its notes:

# %% tags=["hide-input"]
show.events_table(shown.metrics)

# %% [markdown]
# In the released code restoration cannot act ({ref}`audit <audit-safety-11>`): where bits stay above 17 there is nothing to give back.
#
# ## Pruning
#
# A channel without bits outputs zero. *Soft-dead* it stays in the tensor and can be restored; *hard removal* takes it out of its own
# layer, of the batch norm behind it, and of the inputs of the next layer. The outputs of the network must not change by more than the
# order of summation does. One trap: batch norm in evaluation mode subtracts a running mean, and one that dates from before a channel's
# death turns zero into a constant. So the statistics are estimated anew first; `remove_dead` refuses otherwise.

# %% tags=["hide-input"]
gone = show.removed(shown)
show.removed_table(shown, gone)

# %% [markdown]
# ## A file of the size that was claimed
#
# A size in a table is a claim; a file is a proof. Ours holds, per layer, which channels are alive, for each of them the width of
# its codes and its step, then all codes in one stream of bits without gaps, then the remaining numbers of the network as they are.
# A checksum guards all of it. The compressed network of this page, written, read back, and damaged:

# %% tags=["hide-input"]
show.packed_tables(shown, gone)

# %% [markdown]
# In a network as narrow as this one the classifier, which the method leaves in single precision, outweighs the codes. The soft size
# counts neither it nor the side information.
#
# ## Guide to the pages
#
# - [Drift check](drift.ipynb): the published sizes from the optimiser alone, without data and without a network.
# - [Table I](table1.ipynb): the CNN; float, unsafe and safe, the controls that the paper does not have, and our own setting.
# - [Table II](table2.ipynb): the decoder, on the names in their order and shuffled.
# - [Figures 1 and 3](figures.ipynb): size and accuracy during training, step time, and the histogram of weights.
# - [Pareto front](pareto.ipynb): the method beside post-training quantisation, quantisation-aware training and pruning, by result
#   and bytes.
#
# ## What we decided where the paper is silent
#
# 1. *Rounding*: to the nearest integer, halves to even, as in the code; equation 1 prints a floor.
# 2. *Granularity*: one $b$ and one $e$ per output channel or row. Equation 4 and Algorithm 1 differ on this.
# 3. *Size* of a layer: its kernel, as in the code; the text says feature map ({ref}`audit <audit-safety-8>`).
# 4. *$N$ in $Q$*: the quantised weights, so that $Q$ is their mean bit depth; in the published setting all trained numbers, as in the
#    code. The paper says the number of layers.
# 5. *Start*: 32 bits and $e = -8$ in the published setting; 8 bits and an exponent that clips nothing in ours. The paper lists
#    2, 4, 8 and 16 bits ({ref}`audit <audit-safety-7>`).
# 6. *Weights of the terms*: $\lambda = 0.05$ as in the code; $\alpha$ is 0 in the published setting, as in the code, and
#    0.00001 for the CNN in ours; several $\gamma$ in ours.
# 7. *Preservation set*: from training images, by the scores above.
# 8. *Restoration*: the rule above; the paper has three different ones ({ref}`audit <audit-safety-15>`).
# 9. *Evaluation*: running statistics of batch norm estimated anew on training images. The released code normalises all test images as
#    one batch.
#
# ## Exercises
#
# ````{exercise}
# :label: safety-chapter-ex1
#
# A layer has 64 channels of 288 weights each, all at $b = 2.4$. How many levels has a channel, how many bits does each code need, and
# how far apart are the soft size and the size of the codes in a file? Expected output:
#
# ```text
# 6 levels, 3 bits in the file
# soft 5,530 bytes, packed 6,912 bytes
# ```
# ````
#
# ````{solution} safety-chapter-ex1
# :class: dropdown
#
# $2^{1.4} \approx 2.64$ rounds to 3: codes from -3 to 2. Six of the eight values that three bits could hold are used.
#
# ```python
# from efflib.papers.safety.show import levels
# from efflib.quantize import bits_needed
#
# b, weights = 2.4, 64 * 288
# print(f"{levels([b])[0]} levels, {bits_needed(b)} bits in the file")
# print(f"soft {weights * b / 8:,.0f} bytes, packed {weights * bits_needed(b) / 8:,.0f} bytes")
# ```
# ````
#
# ````{exercise}
# :label: safety-chapter-ex2
#
# One channel has the codes -4, 3, 0, -1 with 3 bits each, the next -2, 1, 0, 1 with 2 bits each. Write the stream by hand: two's
# complement, least significant bit first, no gaps; a byte fills from its least significant bit. Then check it with
# `efflib.quantize.packed.pack_codes` and read it back. Expected output:
#
# ```text
# 1c 6e 04
# [[-4, 3, 0, -1], [-2, 1, 0, 1]]
# ```
# ````
#
# ````{solution} safety-chapter-ex2
# :class: dropdown
#
# -4 is 100 in three bits, sent as 0 0 1; 3 is 011, sent as 1 1 0; then 0 0 of the next code. Read from the right the first
# byte is 0001 1100, in hexadecimal 1c. Twenty bits take three bytes.
#
# ```python
# import numpy as np
# from efflib.quantize.packed import pack_codes, unpack_codes
#
# codes, widths = np.array([[-4, 3, 0, -1], [-2, 1, 0, 1]]), np.array([3, 2])
# stream = pack_codes(codes, widths)
# print(stream.hex(" "))
# print(unpack_codes(stream, widths, count=4).tolist())
# ```
# ````
