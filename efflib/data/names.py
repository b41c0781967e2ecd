"""Given names as a stream of characters: makemore's list from a file or a download, and a list of our own.

A list is one text, names joined by newlines, over 27 characters. Its first 90 % of characters are the training stream,
the rest is for validation; there is no separate test text. Source: section 3.2 and 3.3 of the safety spec.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from efflib.data.download import DownloadError, downloads_folder, fetch, offline
from efflib.data.errors import DataBroken, DataNotFound
from efflib.data.sources import roots
from efflib.text import unknown

VOCABULARY = "\n" + string.ascii_lowercase
PROTOCOLS = ("stream", "shuffled")
WINDOW = 32

FILE = "names.txt"
URL = "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt"
MD5 = "401b3c4cac9e28a586ed15e81256680d"
SHA256 = "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"
OWN = Path(__file__).with_name("names_list.txt")
RUNS = 10


@dataclass(frozen=True)
class Names:
    """A list of names.

    Args:
        name: "names" or "embedded_names".
        names: lower case a to z, in the order of the file; the same name may come twice.
        variant: "official" (the text is makemore's, byte for byte up to line ends), "embedded" or "unverified".
    """

    name: str
    names: tuple[str, ...]
    variant: str

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Names({self.name}: {len(self):,} names, {len(self.text):,} characters, {self.variant})"

    @cached_property
    def text(self) -> str:
        """The names joined by newlines, without one at the end."""
        return "\n".join(self.names)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the text: for the official list, that of its file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def vocabulary(self) -> str:
        """The 27 characters; a token is a position in it."""
        return VOCABULARY

    def encode(self, text: str) -> np.ndarray:
        """Tokens of a text, see `encode`."""
        return encode(text)

    def decode(self, tokens: npt.ArrayLike) -> str:
        """Text of tokens, see `decode`."""
        return decode(tokens)

    def split(self, protocol: str = "stream", tune: bool = False) -> NameSplit:
        """Training and validation text.

        Args:
            protocol: "stream" keeps the order of the file, as the paper's code does: the official list is sorted within
                blocks, so that neighbours resemble each other; "shuffled" shuffles the names first, with seed 0.
            tune: hold out the last 5 % of the training stream, for choices that must not see the validation text.

        Returns:
            NameSplit; its parts follow each other in the text.

        Raises:
            ValueError: unknown protocol.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(unknown("protocol of names", protocol, PROTOCOLS))
        names = list(self.names)
        if protocol == "shuffled":
            random.Random(0).shuffle(names)  # Python has kept this order since 3.2; a test would notice another
        text = "\n".join(names)
        end = len(text) * 9 // 10
        cut = end * 95 // 100 if tune else end
        parts = [_part(text, start, stop) for start, stop in ((0, cut), (cut, end), (end, len(text)))]
        return NameSplit(parts[0], parts[1] if tune else None, parts[2])


class NamePart(NamedTuple):
    """A piece of a text of names.

    text: cut anywhere, also inside a name.
    names: those that lie wholly inside.
    """

    text: str
    names: tuple[str, ...]

    @property
    def tokens(self) -> np.ndarray:
        """int64, one per character of the text."""
        return encode(self.text)


class NameSplit(NamedTuple):
    """train, tune (None unless asked for), validation."""

    train: NamePart
    tune: NamePart | None
    validation: NamePart


def _part(text: str, start: int, stop: int) -> NamePart:
    """A name is whole where a newline or an end of the text comes before it and after it."""
    whole = text[start:stop].split("\n")
    if start > 0 and text[start - 1] != "\n":
        whole = whole[1:]
    if stop < len(text) and text[stop] != "\n":
        whole = whole[:-1]
    return NamePart(text[start:stop], tuple(name for name in whole if name))


# --- reading --------------------


def load_names(root: str | os.PathLike | None = None, download: bool = True) -> Names:
    """makemore's list of names: 32,033 of them, 228,145 characters.

    The file names.txt is looked up in `root` (default: EFFLIB_DATA) and its folder `names`, then among earlier
    downloads, then fetched with checksum. Line ends may be those of Windows.

    Args:
        root: folder with the data; None takes EFFLIB_DATA.
        download: False forbids downloading, as does EFFLIB_OFFLINE=1.

    Raises:
        DataNotFound: the file is nowhere and cannot be downloaded.
        DataBroken: it is no list of names.

    Source: github.com/karpathy/makemore (MIT licence), there described as the most common names of 2018 from ssa.gov.
    """
    path = find_names(root) or _download(root, download)
    found = _read(path, "names", "unverified")
    official = found.fingerprint == SHA256
    return Names(found.name, found.names, "official") if official else found


def find_names(root: str | os.PathLike | None = None) -> Path | None:
    """The file that `load_names` would read without a download, or None.

    Raises:
        DataNotFound: `root` or EFFLIB_DATA is no folder.
    """
    places = (folder / FILE for base in roots(root) for folder in (base, base / "names"))
    return next((path for path in places if path.is_file()), None)


@lru_cache(maxsize=1)
def embedded_names() -> Names:
    """1,500 given names of many cultures, written for this project, in ten alphabetical runs.

    The official list consists of such runs. In a single one, validation would be on the last letters of the alphabet,
    which training had hardly seen.
    """
    sorted_ = _read(OWN, "embedded_names", "embedded").names
    return Names("embedded_names", tuple(name for run in range(RUNS) for name in sorted_[run::RUNS]), "embedded")


def _read(path: Path, name: str, variant: str) -> Names:
    # What is no ASCII becomes a sign that no name has.
    text = path.read_bytes().decode("ascii", "replace").replace("\r\n", "\n").removesuffix("\n")
    names = tuple(text.split("\n"))
    for number, each in enumerate(names, start=1):
        if not re.fullmatch("[a-z]+", each):
            raise DataBroken(
                f"{path} is no list of names: line {number} is {each[:40]!r}, and every line must be one name of "
                f"letters a to z. Remove it, or put makemore's {FILE} there (from {URL})"
            )
    return Names(name, names, variant)


def _download(root: str | os.PathLike | None, allowed: bool) -> Path:
    if not allowed or offline():
        raise _not_found(root, f"It was not downloaded: {'EFFLIB_OFFLINE is set' if offline() else 'download=False'}.")
    try:
        return fetch(URL, downloads_folder() / FILE, MD5)
    except DownloadError as error:
        raise _not_found(root, f"The download failed: {error}") from error


def _not_found(root: str | os.PathLike | None, why: str) -> DataNotFound:
    unset = "" if root is not None or os.environ.get("EFFLIB_DATA") else " (EFFLIB_DATA is not set)"
    return DataNotFound(
        f"The list of names was not found.\n"
        f"  looked for: {FILE} or names/{FILE}\n"
        f"  looked in: {', '.join(map(str, roots(root)))}{unset}\n"
        f"  {why}\n"
        f"  to get it: efflib data names --download, or save {URL} in a folder that EFFLIB_DATA names"
    )


# The lists by the name that a trial gives its data; they have no splits of their own: a trial cuts the text itself.
NAME_LISTS: dict[str, Callable[[], Names]] = {"names": load_names, "embedded_names": embedded_names}


# --- tokens and windows --------------------


def encode(text: str) -> np.ndarray:
    """Tokens of a text: newline 0, a to z 1 to 26.

    Returns:
        int64 (len(text),).

    Raises:
        ValueError: a character outside the vocabulary.
    """
    foreign = sorted(set(text) - set(VOCABULARY))
    if foreign:
        raise ValueError(f"only newlines and a to z can be encoded, got {', '.join(map(repr, foreign[:5]))}")
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64)
    return np.where(codes == ord("\n"), 0, codes - ord("a") + 1)


def decode(tokens: npt.ArrayLike) -> str:
    """The text that `encode` made these tokens of.

    Raises:
        ValueError: numbers that are no tokens.
    """
    codes = np.asarray(tokens)
    if codes.size == 0:
        return ""
    if codes.ndim != 1 or codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= len(VOCABULARY):
        raise ValueError(f"tokens must be whole numbers 0..{len(VOCABULARY) - 1} in one row, got {tokens!r}")
    return "".join(VOCABULARY[code] for code in codes)


def windows(tokens: np.ndarray, length: int = WINDOW) -> tuple[np.ndarray, np.ndarray]:
    """All windows that follow each other without overlap; what is left at the end is dropped.

    Args:
        tokens: int64 (L,).
        length: tokens of a window.

    Returns:
        Inputs and targets, int64 ((L - 1) // length, length) each: targets are the tokens one further on.

    Raises:
        ValueError: not even one window.
    """
    _check_window(tokens, length)
    count = (len(tokens) - 1) // length
    return (
        tokens[: count * length].reshape(count, length).copy(),
        tokens[1 : count * length + 1].reshape(count, length).copy(),
    )


def _check_window(tokens: np.ndarray, length: int) -> None:
    if length < 1 or len(tokens) <= length:
        raise ValueError(
            f"a window of {length} tokens and its targets need a text of at least {max(length, 1) + 1} tokens and a "
            f"length of at least 1, got {len(tokens)} tokens"
        )


# --- what a list is like --------------------


def ngram_cross_entropy(train: np.ndarray, held: np.ndarray, order: int) -> float:
    """Mean of -ln p over a text, p from counts of n-grams in another text plus one each.

    p(c | the `order` tokens before) = (count + 1) / (count of the tokens before + 27). The first `order` tokens of the
    text are not predicted.

    Args:
        train: int64 (L,), tokens that are counted.
        held: int64 (M,), tokens that are predicted.
        order: 0 to 4, how many tokens before are looked at.

    Returns:
        Nats per character; ln 27 = 3.296 is chance.

    Raises:
        ValueError: order out of range, or a text that is not longer.
    """
    if order not in range(5) or min(len(train), len(held)) <= order:
        raise ValueError(f"order must be 0 to 4 and below the length of both texts, got {order!r}")
    V = len(VOCABULARY)
    counts = np.bincount(_grams(train, order + 1), minlength=V ** (order + 1)).reshape(-1, V)
    grams = _grams(held, order + 1)
    p = (counts.reshape(-1)[grams] + 1) / (counts.sum(1)[grams // V] + V)
    return float(-np.log(p).mean())


def _grams(tokens: np.ndarray, n: int) -> np.ndarray:
    """Number of the n-gram that starts at each position, (L - n + 1,)."""
    pieces = np.lib.stride_tricks.sliding_window_view(tokens, n)
    return pieces @ (len(VOCABULARY) ** np.arange(n)[::-1])


def shared_beginnings(names: Sequence[str], letters: int) -> float:
    """Share of neighbours in a list that begin with the same letters: near 1 where the list is sorted."""
    if letters < 1 or len(names) < 2:
        raise ValueError(f"need at least two names and one letter, got {len(names)} and {letters!r}")
    same = sum(first[:letters] == second[:letters] for first, second in pairwise(names))
    return same / (len(names) - 1)


def already_seen(names: Sequence[str], seen: Sequence[str]) -> float:
    """Share of the names that are among those already seen."""
    if not names:
        raise ValueError("the share of no names is not defined")
    known = set(seen)
    return sum(name in known for name in names) / len(names)
