"""The small decoder of the safety paper's table II: a character model of given names, 204,827 parameters.

Token and position embeddings of 64; four blocks, each x + attention(LN(x)), then x + feed-forward(LN(x)); LN; linear.
Four causal heads of 16; q, k and v without bias; feed-forward of 256 with ReLU; no dropout, no shared weights. The
twelve small matrices of a block's q, k and v are one linear layer with a row per output, which is the same function.
Source: section 3.2 of the safety spec; the architecture is that of the paper's repository.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflib.models.registry import channels, register

EMBEDDING = 64
BLOCKS = 4
HEADS = 4
CONTEXT = 32


class DecoderBlock(nn.Module):
    """(B, T, E) -> (B, T, E).

    Args:
        embedding: E, a multiple of the number of heads.

    `qkv` has the rows of all heads' queries, then keys, then values; `head_rows` says how many (query, value) rows each
    head has (keys: as queries). They differ only once rows were removed. `score_factor` is E**-0.5 and not the usual
    head size**-0.5, as the repository has it, and stays when rows go.
    """

    def __init__(self, embedding: int) -> None:
        super().__init__()
        size = embedding // HEADS
        self.head_rows = ((size, size),) * HEADS
        self.score_factor = embedding**-0.5
        self.norm1 = nn.LayerNorm(embedding)
        self.qkv = nn.Linear(embedding, 3 * embedding, bias=False)
        self.proj = nn.Linear(embedding, embedding)
        self.norm2 = nn.LayerNorm(embedding)
        self.ff1 = nn.Linear(embedding, 4 * embedding)
        self.ff2 = nn.Linear(4 * embedding, embedding)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.proj(self._attended(self.qkv(self.norm1(x))))
        return x + self.ff2(F.relu(self.ff1(self.norm2(x))))

    def _attended(self, qkv: Tensor) -> Tensor:
        """(B, T, rows of qkv) -> (B, T, value rows), head after head."""
        queries, values = zip(*self.head_rows)
        if len({*queries, *values}) == 1 and queries[0]:
            B, T, _ = qkv.shape
            q, k, v = qkv.view(B, T, 3, len(queries), -1).permute(2, 0, 3, 1, 4)  # 3 x (B, heads, T, size)
            heads = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.score_factor)
            return heads.transpose(1, 2).reshape(B, T, -1)
        parts = qkv.split([*queries, *queries, *values], dim=-1)
        by_head = zip(*(parts[start : start + len(queries)] for start in range(0, len(parts), len(queries))))
        return torch.cat([causal_attention(q, k, v, self.score_factor) for q, k, v in by_head], dim=-1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, factor: float) -> Tensor:
    """softmax(factor q k^T, over positions up to the own one) v, the definition of a head.

    Without any query and key rows (D = 0) all scores are 0: each position takes the mean of the values up to it.

    Args:
        q, k: (B, T, D).
        v: (B, T, V).
        factor: of the scores.

    Returns:
        (B, T, V).
    """
    T = q.shape[1]
    later = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    scores = (factor * q @ k.transpose(1, 2)).masked_fill(later, -math.inf)
    return scores.softmax(-1) @ v


class NamesDecoder(nn.Module):
    """Tokens (B, T) -> logits (B, T, vocabulary) of the next token at each position."""

    def __init__(self, vocabulary: int, width: float, context: int) -> None:
        super().__init__()
        if isinstance(context, bool) or not isinstance(context, int) or context < 1:
            raise ValueError(f"context must be a whole number of at least 1 token, got {context!r}")
        embedding = channels(EMBEDDING, width)
        self.context = context
        self.tokens = nn.Embedding(vocabulary, embedding)
        self.positions = nn.Embedding(context, embedding)
        self.blocks = nn.ModuleList(DecoderBlock(embedding) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(embedding)
        self.head = nn.Linear(embedding, vocabulary)
        _initialise(self)

    @property
    def quantizable(self) -> tuple[str, ...]:
        """Names of the layers that the paper's code quantises: every linear layer."""
        return tuple(name for name, module in self.named_modules() if isinstance(module, nn.Linear))

    def chain(self) -> list[tuple[str, str | None, int]]:
        """What feeds each layer: (layer, layer whose output channels are its inputs or None, inputs per channel).

        Where the feeding layer has more channels than the layer has inputs, its LAST ones feed: proj reads the value
        rows of qkv. Layers that read the residual stream have no feeder: removing a row of proj, ff2 or an embedding
        column leaves the stream as wide as it was.
        """
        feeders = {"proj": "qkv", "ff2": "ff1"}
        links: list[tuple[str, str | None, int]] = []
        for name in self.quantizable:
            block, _, part = name.rpartition(".")
            links.append((name, f"{block}.{feeders[part]}" if part in feeders else None, 1))
        return links

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, T, vocabulary); position t sees tokens 0 to t.

        Args:
            tokens: int64 (B, T), T from 1 to `context`, values from 0 to vocabulary - 1.

        Raises:
            ValueError: another dtype or shape, more tokens than the context, or values out of range (seen on the CPU;
                on a GPU looking would stop every step, and PyTorch's own assertion ends the run).
        """
        self._check(tokens)
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def _check(self, tokens: Tensor) -> None:
        if tokens.dtype != torch.int64 or tokens.ndim != 2 or not tokens.numel():
            raise ValueError(
                f"names_decoder reads tokens, int64 (B, T) with at least one: got {tokens.dtype} {tuple(tokens.shape)}"
            )
        if tokens.shape[1] > self.context:
            raise ValueError(
                f"names_decoder sees at most {self.context} tokens, got {tokens.shape[1]}: cut the text, or build it "
                f"with context={tokens.shape[1]}"
            )
        size = self.tokens.num_embeddings
        if tokens.device.type == "cpu" and not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
            raise ValueError(f"tokens must be from 0 to {size - 1}, got {int(tokens.min())} to {int(tokens.max())}")


def macs_per_token(model: NamesDecoder, length: int | None = None) -> int:
    """Multiply-accumulates of one token in a window of `length` (default: the context), embeddings and norms apart.

    Attention counts all pairs of positions, the masked ones too, as the spec does: 214,720 for the model as built.
    """
    length = model.context if length is None else length
    blocks = [module for module in model.modules() if isinstance(module, DecoderBlock)]
    per_position = sum(queries + values for block in blocks for queries, values in block.head_rows)
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    return length * per_position + weights


def _initialise(model: nn.Module) -> None:
    """Linear weights uniform within 1 / sqrt(fan-in), their biases zero, embeddings N(0, 1)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)


@register
def names_decoder(num_classes: int, *, width: float = 1.0, context: int = CONTEXT) -> nn.Module:
    """The safety paper's decoder; num_classes is the size of the vocabulary, 27 for names."""
    return NamesDecoder(num_classes, width, context)
