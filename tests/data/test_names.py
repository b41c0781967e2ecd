"""Names: the real list against the spec's numbers, what is read and refused, protocols, windows, n-grams."""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efflib.data import DataBroken, DataNotFound, Names, embedded_names, find_names, load_names
from efflib.data import names as module
from efflib.data.names import (
    VOCABULARY,
    already_seen,
    decode,
    encode,
    ngram_cross_entropy,
    shared_beginnings,
    windows,
)

DATA = os.environ.get("EFFLIB_DATA", "")  # read before the fixture of conftest.py hides it
LISTS = st.lists(st.text("abcz", min_size=1, max_size=6), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def real():
    if not DATA:
        pytest.skip("EFFLIB_DATA is not set: no real data to look at")
    if find_names(DATA) is None:
        pytest.skip("names.txt is not under EFFLIB_DATA")
    return load_names(DATA, download=False)


def listed(*names: str) -> Names:
    return Names("mine", names, "unverified")


# --- the real list: sections 3.2 and 3.3 of the spec --------------------


def test_the_real_list(real):
    assert (real.name, real.variant, real.fingerprint) == ("names", "official", module.SHA256)
    assert len(real) == 32_033 and len(set(real.names)) == 29_494 and len(real.text) == 228_145
    lengths = [len(name) for name in real.names]
    assert (min(lengths), max(lengths), round(np.mean(lengths), 2)) == (2, 15, 6.12)
    assert hashlib.md5(real.text.encode(), usedforsecurity=False).hexdigest() == module.MD5
    assert sorted(set(real.text)) == sorted(VOCABULARY) and len(VOCABULARY) == 27
    assert real.decode(real.encode(real.text)) == real.text


def test_the_real_streams(real):
    train, tune, validation = real.split()
    assert (len(train.text), tune, len(validation.text)) == (205_330, None, 22_815)
    assert train.text + validation.text == real.text
    assert len(train.names) == 28_817 and train.names == real.names[:28_817]
    inputs, targets = windows(validation.tokens)
    assert inputs.shape == (712, 32) and targets.size == 22_784
    shorter, tune, same = real.split(tune=True)
    assert (len(shorter.text), len(tune.text)) == (195_063, 10_267)
    assert shorter.text + tune.text == train.text and same == validation


@pytest.mark.parametrize(
    ("protocol", "nats"),
    [("stream", (2.923, 2.577, 2.403, 2.415)), ("shuffled", (2.816, 2.444, 2.218, 2.198))],
)
def test_ngrams_of_the_real_list(protocol, nats, real):
    train, _, validation = real.split(protocol)
    found = [ngram_cross_entropy(train.tokens, validation.tokens, order) for order in range(4)]
    assert [round(value, 3) for value in found] == list(nats)


def test_the_real_list_is_sorted_within_blocks(real):
    train, _, validation = real.split()
    shuffled = list(real.names)
    random.Random(0).shuffle(shuffled)
    shares = [
        [round(100 * shared_beginnings(names, letters), 1) for letters in (1, 2)]
        for names in (validation.names, train.names, shuffled)
    ]
    assert shares == [[98.4, 86.3], [78.2, 56.2], [6.5, 1.3]]
    assert round(100 * already_seen(validation.names, train.names), 1) == 9.2


def test_shuffling_loses_no_name(real):
    train, _, validation = real.split("shuffled")
    assert sorted((train.text + validation.text).split("\n")) == sorted(real.names)
    assert real.split("shuffled") == (train, None, validation)  # the same every time
    assert train.names[:3] != real.names[:3]


# --- the embedded list --------------------


def test_the_embedded_list():
    names = embedded_names()
    assert (names.name, names.variant, len(names)) == ("embedded_names", "embedded", 1_500)
    runs = [names.names[start : start + 150] for start in range(0, 1_500, 150)]
    assert all(list(run) == sorted(run) for run in runs) and len(set(names.names)) == 1_500
    assert all(re.fullmatch("[a-z]{2,15}", name) for name in names.names)
    assert {name[0] for name in names.names} == set(VOCABULARY[1:])
    assert names.fingerprint == hashlib.sha256(names.text.encode()).hexdigest()


def test_the_embedded_list_has_something_to_learn():
    for protocol in ("stream", "shuffled"):
        train, tune, validation = embedded_names().split(protocol, tune=True)
        zero, one = (ngram_cross_entropy(train.tokens, validation.tokens, order) for order in (0, 1))
        assert one < zero - 0.1 < math.log(27) - 0.4
        assert len(windows(validation.tokens)[0]) >= 32 and len(windows(tune.tokens)[0]) >= 14
    validation = embedded_names().split().validation
    assert shared_beginnings(validation.names, 1) > 0.8 and validation.names[0][0] < "c"


# --- reading --------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_do_not_matter(end, last, places, monkeypatch):
    text = "emma\nava\nemma"
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(text.encode()).hexdigest())
    (places[0] / "names.txt").write_bytes((text + last * "\n").replace("\n", end).encode())
    found = load_names()
    assert found.names == ("emma", "ava", "emma") and found.variant == "official"
    assert found.text == text and found.fingerprint == module.SHA256
    assert "3 names, 13 characters, official" in repr(found) and found.vocabulary == VOCABULARY


def test_another_list_is_unverified(places):
    (places[0] / "names").mkdir()
    (places[0] / "names" / "names.txt").write_text("zoe\nabe\n")
    found = load_names()
    assert found.names == ("zoe", "abe") and found.variant == "unverified"
    assert found.fingerprint != listed("abe", "zoe").fingerprint  # the order counts


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "line 1 is ''"),
        (b"emma\n\nava", "line 2 is ''"),
        (b"emma\nAva", "line 2 is 'Ava'"),
        (b"emma\nava maria", "line 2 is 'ava maria'"),
        ("emma\nzoë".encode(), "line 2 is 'zo"),
        (b"<!DOCTYPE html><html>", "line 1 is '<!DOCTYPE"),
        (b"emma\n\xff\xfe", "line 2"),
    ],
)
def test_what_is_no_list_is_named(content, line, places):
    path = places[0] / "names.txt"
    path.write_bytes(content)
    with pytest.raises(DataBroken, match=re.escape(line)) as error:
        load_names()
    assert str(path) in str(error.value) and "makemore" in str(error.value)


def test_places_in_order(places, tmp_path):
    data, cache = places
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "names.txt").write_text("download")
    assert load_names().names == ("download",)
    (data / "names").mkdir()
    (data / "names" / "names.txt").write_text("folder")
    assert load_names().names == ("folder",)
    (data / "names.txt").write_text("root")
    assert load_names().names == ("root",) and find_names() == data / "names.txt"
    assert load_names(cache / "downloads").names == ("download",)


def test_missing_names_are_one_clear_error(places, monkeypatch):
    with pytest.raises(DataNotFound) as error:
        load_names()
    for part in ("names.txt", str(places[0]), str(places[1] / "downloads"), "EFFLIB_OFFLINE", module.URL):
        assert part in str(error.value)
    assert "efflib data names --download" in str(error.value) and find_names() is None
    monkeypatch.delenv("EFFLIB_OFFLINE")
    monkeypatch.delenv("EFFLIB_DATA")
    with pytest.raises(DataNotFound, match=r"(?s)EFFLIB_DATA is not set.*download=False"):
        load_names(download=False)
    with pytest.raises(DataNotFound, match=r"root is .* no folder"):
        load_names(Path("/nowhere"))


# --- tokens --------------------


def test_the_vocabulary_is_sorted_with_the_newline_first():
    assert sorted(VOCABULARY) == list(VOCABULARY) and VOCABULARY[0] == "\n"
    assert encode("a\nz").tolist() == [1, 0, 26] and encode("a").dtype == np.int64
    assert encode("").shape == (0,) and decode([]) == ""
    assert listed("ab").decode(listed("ab").encode("b\na")) == "b\na"


@given(st.text(VOCABULARY))
def test_decoding_undoes_encoding(text):
    assert decode(encode(text)) == text


@pytest.mark.parametrize("text", ["Emma", "zoë", "a b", "a\tb", "漢"])
def test_foreign_characters_are_named(text):
    foreign = next(c for c in text if c not in VOCABULARY)
    with pytest.raises(ValueError, match=f"a to z can be encoded, got {re.escape(repr(foreign))}"):
        encode(text)


@pytest.mark.parametrize("tokens", [[27], [-1], [0.5], [[1, 2]], 3])
def test_what_is_no_token_is_refused(tokens):
    with pytest.raises(ValueError, match=r"whole numbers 0\.\.26 in one row"):
        decode(tokens)


# --- protocols --------------------


@given(LISTS, st.sampled_from(["stream", "shuffled"]))
@settings(max_examples=60, deadline=None)
def test_parts_make_the_text_and_hold_whole_names_only(names, protocol):
    train, tune, validation = listed(*names).split(protocol, tune=True)
    text = train.text + tune.text + validation.text
    assert sorted(text.split("\n")) == sorted(names)
    assert len(train.text + tune.text) == len(text) * 9 // 10
    place = 0
    whole = {"train": [], "tune": [], "validation": []}
    spans = {"train": (0, len(train.text)), "tune": (len(train.text), len(train.text + tune.text))}
    spans["validation"] = (spans["tune"][1], len(text))
    for name in text.split("\n"):
        for part, (start, stop) in spans.items():
            if start <= place and place + len(name) <= stop:
                whole[part].append(name)
        place += len(name) + 1
    assert [list(part.names) for part in (train, tune, validation)] == list(whole.values())
    assert (train.tokens.shape, train.tokens.dtype) == ((len(train.text),), np.int64)


def test_a_cut_inside_a_name_loses_the_fragments():
    train, _, validation = listed("aaa", "bbb", "cccccccccccc").split()  # 20 characters, cut at 18
    assert train.names == ("aaa", "bbb") and validation.names == () and validation.text == "cc"
    train, _, validation = listed("aaaa", "bbb", "c").split()  # 10 characters, cut before the last
    assert train.names == ("aaaa", "bbb") and validation.names == ("c",)


def test_protocols_are_checked():
    with pytest.raises(ValueError, match=r"unknown protocol of names: 'shufled'.*Did you mean 'shuffled'.*stream"):
        listed("ab").split("shufled")


# --- windows --------------------


def test_windows_follow_each_other():
    tokens = np.arange(20)
    inputs, targets = windows(tokens, 6)
    assert inputs.tolist() == [list(range(6)), list(range(6, 12)), list(range(12, 18))]
    assert np.array_equal(targets, inputs + 1)
    assert windows(np.arange(19), 6)[0].shape == (3, 6) and windows(np.arange(18), 6)[0].shape == (2, 6)
    inputs[:] = -1
    assert tokens.min() == 0  # a copy


@pytest.mark.parametrize(("count", "length"), [(8, 8), (0, 1), (5, 0), (3, 9)])
def test_texts_shorter_than_a_window(count, length):
    with pytest.raises(ValueError, match=f"a window of {length} tokens .* got {count} tokens"):
        windows(np.arange(count), length)


# --- n-grams and neighbours --------------------


def test_ngrams_by_hand():
    train, held = encode("abab"), encode("aba")
    assert ngram_cross_entropy(train, held, 0) == pytest.approx(-math.log(3 / 31))
    # After a comes b twice of two, after b comes a once of one.
    assert ngram_cross_entropy(train, held, 1) == pytest.approx(-(math.log(3 / 29) + math.log(2 / 28)) / 2)
    assert ngram_cross_entropy(train, encode("zzz"), 2) == pytest.approx(math.log(27))


@given(st.text("ab\n", min_size=5, max_size=40), st.text("abc", min_size=5, max_size=20), st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_ngrams_are_their_definition(train, held, order):
    def probability(before, letter):
        places = [place for place in range(order, len(train)) if train[place - order : place] == before]
        return (sum(train[place] == letter for place in places) + 1) / (len(places) + 27)

    terms = [-math.log(probability(held[i - order : i], held[i])) for i in range(order, len(held))]
    assert ngram_cross_entropy(encode(train), encode(held), order) == pytest.approx(np.mean(terms))


@pytest.mark.parametrize(("order", "held"), [(5, "abcdefgh"), (-1, "abcdefgh"), (3, "abc"), (0, "")])
def test_impossible_orders_are_refused(order, held):
    with pytest.raises(ValueError, match="order must be 0 to 4 and below the length of both texts"):
        ngram_cross_entropy(encode("abcdefgh"), encode(held), order)


def test_neighbours_and_repeats():
    assert shared_beginnings(["ab", "ac", "ad", "bd"], 1) == pytest.approx(2 / 3)
    assert shared_beginnings(["ab", "abc", "ac"], 2) == 0.5
    assert already_seen(["a", "b", "b", "c"], ["b", "x"]) == 0.5
    with pytest.raises(ValueError, match="at least two names"):
        shared_beginnings(["ab"], 1)
    with pytest.raises(ValueError, match="no names"):
        already_seen([], ["a"])
