"""Fetch official files: into the cache, checked before they get their name, nothing retried in silence."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO

from efflib.data.cache import cache_root, digests, replacing
from efflib.data.errors import DataNotFound
from efflib.data.sets import RealSet

TIMEOUT = 30  # seconds without a byte


class DownloadError(OSError):
    """A file could not be fetched whole and unaltered; the message says what came instead."""


def downloads_folder() -> Path:
    """Where downloaded files are kept: `downloads` under `cache_root()`."""
    return cache_root() / "downloads"


def offline() -> bool:
    """True when the environment forbids downloads (EFFLIB_OFFLINE set to anything but 0 or nothing)."""
    return os.environ.get("EFFLIB_OFFLINE", "") not in ("", "0")


def fetch(url: str, path: Path, md5: str) -> Path:
    """Download one file and compare its checksum; `path` appears only when both went well.

    Args:
        url: http or https address.
        path: the file to make; a file that is there already with the right md5 is kept.
        md5: hex, as published.

    Returns:
        path.

    Raises:
        DownloadError: no answer, an error page, a truncated or an altered file.
    """
    if path.exists() and digests(path)["md5"] == md5:
        return path
    try:
        with replacing(path) as file:
            _copy(url, file, md5)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(f"{url}: {error}") from error
    return path


def _copy(url: str, file: IO[bytes], md5: str) -> None:
    from tqdm import tqdm

    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        length = int(answer.headers.get("Content-Length") or 0)
        start, got, digest = b"", 0, hashlib.md5(usedforsecurity=False)
        name = url.rsplit("/", 1)[-1]
        with tqdm(desc=name, total=length or None, unit="B", unit_scale=True, disable=length < 1 << 20) as bar:
            while block := answer.read(1 << 18):
                start = start or block[:512]
                file.write(block)
                digest.update(block)
                got += len(block)
                bar.update(len(block))
    _check(url, start, got, length, digest.hexdigest(), md5)


def _check(url: str, start: bytes, got: int, length: int, found: str, md5: str) -> None:
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise DownloadError(f"{url}: the server sent a web page instead of the file")
    if length and got != length:
        raise DownloadError(f"{url}: truncated, {got} of {length} bytes came")
    if found != md5:
        raise DownloadError(f"{url}: altered or truncated, md5 is {found}, published is {md5}")


def fetch_set(known: RealSet) -> list[Path]:
    """Download all official files of one set into `downloads_folder()`.

    Raises:
        DataNotFound: downloads are forbidden by EFFLIB_OFFLINE, or one failed; the message has the reason.
    """
    if offline():
        raise DataNotFound(f"{known.title}: EFFLIB_OFFLINE is set, so nothing was downloaded; unset it or set it to 0")
    try:
        return [fetch(url, downloads_folder() / name, md5) for name, (url, md5) in known.downloads.items()]
    except DownloadError as error:
        raise DataNotFound(f"{known.title}: download failed: {error}") from error
