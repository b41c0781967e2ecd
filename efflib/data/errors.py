"""What can be wrong with data on disk, and what reading a broken file raises."""

from __future__ import annotations

import pickle
import zipfile

# What torch.load was seen to raise on truncated, altered and random files.
UNREADABLE = (RuntimeError, EOFError, OSError, ValueError, LookupError, pickle.UnpicklingError, zipfile.BadZipFile)


class DataNotFound(FileNotFoundError):
    """The data set, or a part of it, is not here and was not downloaded; the message says where we looked."""


class DataBroken(ValueError):
    """Data are here but cannot be used: truncated, altered or something else; the message names the file."""
