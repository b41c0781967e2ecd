"""The two things that can be wrong with data on disk."""

from __future__ import annotations


class DataNotFound(FileNotFoundError):
    """The data set, or a part of it, is not here and was not downloaded; the message says where we looked."""


class DataBroken(ValueError):
    """Data are here but cannot be used: truncated, altered or something else; the message names the file."""
