"""Messages about names that do not exist, and the options that a function takes."""

from __future__ import annotations

import pytest

from efflib import distill
from efflib.text import keyword_only, unknown


def test_unknown_names_list_what_is_meant_and_what_there_is() -> None:
    assert unknown("fruit", "aple", ["apple", "pear"]) == (
        "unknown fruit: 'aple'. Did you mean 'apple'? Valid: apple, pear."
    )
    assert unknown("fruit", None, ["pear", "apple"]) == "unknown fruit: None. Valid: pear, apple."
    assert unknown("option of at", "beta", []) == "unknown option of at: 'beta'. Valid: none."


def test_options_are_the_keyword_only_parameters_in_order() -> None:
    def function(a, /, b, *rest, later=1, earlier=2, **more): ...

    assert keyword_only(function) == ["later", "earlier"]


def test_options_of_a_distillation_method() -> None:
    assert "temperature" in distill.options_of("kd")
    every = {name for method in distill.METHODS for name in distill.options_of(method)}
    assert not {"self", "student", "teacher"} & every
    with pytest.raises(ValueError, match=r"unknown method: 'dkdd'\. Did you mean 'dkd'"):
        distill.options_of("dkdd")
