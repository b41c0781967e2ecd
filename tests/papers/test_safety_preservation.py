"""Preserved names: the bigram score by hand, and the spec's check values on the real list."""

from __future__ import annotations

import os

import numpy as np
import pytest

from efflib.data import embedded_names, find_names, load_names
from efflib.papers.safety.preservation import bigram_scores, preserved_names


@pytest.fixture(scope="module")
def real():
    if not os.environ.get("EFFLIB_DATA"):
        pytest.skip("EFFLIB_DATA is not set: no real data to look at")
    if find_names() is None:
        pytest.skip("names.txt is not under EFFLIB_DATA")
    return load_names(download=False)


def test_preserved_names_of_the_spec(real):
    found = preserved_names(real.split().train.names)
    assert found.names[:5] == ("lj", "jj", "jp", "tj", "kc")
    assert f"{found.scores[0]:.8f}" == "0.00033698"
    assert (found.names[-1], f"{found.scores[-1]:.7f}") == ("aizik", "0.0677240")
    assert (len(found.text), len(set(found.names)), len(found.names)) == (5_711, 886, 1_000)


def test_a_tenth_of_the_training_names(real):
    found = preserved_names(real.split().train.names, 2_881)
    assert (len(found.text), f"{found.scores[-1]:.7f}") == (18_262, "0.0910914")


def test_the_authors_choice_lies_partly_in_the_validation_text(real):
    """Section 2.6 of the spec: scored on the whole list, as the repository does."""
    found = preserved_names(real.names)
    assert f"{found.scores[-1]:.6f}" == "0.064666" and len(found.text) + 1 == 5_607  # with a newline at the end
    assert round(np.mean([len(name) for name in found.names]), 2) == 4.61
    assert [f"{score:.5f}" for score in found.scores[:3]] == ["0.00035", "0.00035", "0.00043"]
    starts = np.cumsum([0, *(len(name) + 1 for name in real.names)])
    first = len(real.split().train.text)
    assert sum(starts[position] >= first for position in found.positions) == 148


def test_scores_by_hand():
    # After a: b twice, c once; after b: a once; nothing follows c.
    scores = bigram_scores(["ab", "aba", "ac"])
    assert scores == pytest.approx([2 / 3, (2 / 3 + 1) / 2, 1 / 3])


def test_ties_are_ordered_by_position():
    found = preserved_names(["zz", "ab", "zz", "cd", "cc"], 4)
    assert found.names == ("cd", "cc", "zz", "ab") and found.positions.tolist() == [3, 4, 0, 1]
    assert found.text == "cd\ncc\nzz\nab" and (np.diff(found.scores) >= 0).all()


def test_scores_of_the_embedded_list():
    names = embedded_names().split().train.names
    found = preserved_names(names, len(names) // 10)
    assert found.scores[-1] < np.median(bigram_scores(names))
    assert [names[position] for position in found.positions] == list(found.names)


def test_impossible_requests_are_refused():
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"{count} of 2 names cannot be preserved: choose between 1 and 2"):
            preserved_names(["ab", "bc"], count)
    with pytest.raises(ValueError, match=r"needs two letters to have a bigram, got \['a'\]"):
        bigram_scores(["ab", "a"])
