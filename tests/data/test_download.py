"""Downloads against a local server: good, truncated, altered, a web page, nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from efflib.data import DataNotFound, available, download_dataset, load_dataset, load_names, names, sets
from efflib.data.download import DownloadError, fetch

GOOD = bytes(range(256)) * 40
PAGE = b"<!DOCTYPE html><html>Please sign in</html>"


class Handler(BaseHTTPRequestHandler):
    served: list[str] = []  # noqa: RUF012 - shared by the requests of one test on purpose
    extra: dict[str, bytes] = {}  # noqa: RUF012

    def do_GET(self):
        self.served.append(self.path)
        bodies = {
            "/good": GOOD,
            "/altered": GOOD[:-1] + b"!",
            "/short": GOOD[:500],
            "/page": PAGE,
            **self.extra,
        }
        body = bodies.get(self.path, PAGE)
        self.send_response(200 if self.path in bodies else 404)
        self.send_header("Content-Length", str(len(GOOD) if self.path == "/short" else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    Handler.served, Handler.extra = [], {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_a_good_file_arrives_once(server, tmp_path):
    path = fetch(f"{server}/good", tmp_path / "downloads" / "good", md5(GOOD))
    assert path.read_bytes() == GOOD
    fetch(f"{server}/good", path, md5(GOOD))
    assert Handler.served == ["/good"]
    assert [p.name for p in path.parent.iterdir()] == ["good"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", "truncated, 500 of 10240 bytes"),
        ("altered", "altered or truncated, md5 is"),
        ("page", "a web page instead of the file"),
        ("missing", "404"),
    ],
)
def test_a_bad_file_never_gets_its_name(name, message, server, tmp_path):
    with pytest.raises(DownloadError, match=message):
        fetch(f"{server}/{name}", tmp_path / "downloads" / "file", md5(GOOD))
    assert not list((tmp_path / "downloads").iterdir())
    assert Handler.served == [f"/{name}"]  # asked once, nothing retried in silence


def test_a_broken_file_from_before_is_replaced(server, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(GOOD[:100])
    assert fetch(f"{server}/good", path, md5(GOOD)).read_bytes() == GOOD


def test_no_server_is_an_error_with_the_address(server, tmp_path):
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/x"):
        fetch("http://127.0.0.1:9/x", tmp_path / "file", md5(GOOD))
    assert not list(tmp_path.glob("*file*"))


@pytest.fixture
def remote(server, make, tmp_path, monkeypatch):
    """cifar10 with its official archive on the local server; returns the archive's content."""
    pictures = make.synthetic()
    files = make.official_files("cifar10", pictures)
    folder = sets.REAL["cifar10"].official.folder
    path = make.write_tar(tmp_path / "elsewhere.tar.gz", {f"{folder}/{f}": c for f, c in files.items()})
    make.trust(monkeypatch, "cifar10", files, path)
    content = path.read_bytes()
    address = {"cifar-10-python.tar.gz": (f"{server}/archive", md5(content))}
    monkeypatch.setitem(sets.REAL, "cifar10", dataclasses.replace(sets.REAL["cifar10"], downloads=address))
    monkeypatch.delenv("EFFLIB_OFFLINE")
    Handler.extra = {"/archive": content}
    return content


def test_load_downloads_what_is_missing_once(remote, places):
    assert not available("cifar10")
    train = load_dataset("cifar10", "train")
    assert train.variant == "official"
    assert train.images.shape == (30, 32, 32, 3)
    assert np.array_equal(np.bincount(train.labels), [3] * 10)
    assert (places[1] / "downloads" / "cifar-10-python.tar.gz").read_bytes() == remote
    assert not list(places[0].iterdir())
    load_dataset("cifar10", "test")
    assert Handler.served == ["/archive"]
    assert available("cifar10")


def test_forbidden_downloads_do_not_happen(remote, monkeypatch):
    with pytest.raises(DataNotFound, match="download=False"):
        load_dataset("cifar10", "train", download=False)
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
    with pytest.raises(DataNotFound, match="EFFLIB_OFFLINE is set"):
        load_dataset("cifar10", "train")
    with pytest.raises(DataNotFound, match="EFFLIB_OFFLINE is set"):
        download_dataset("cifar10")
    assert not Handler.served
    monkeypatch.setenv("EFFLIB_OFFLINE", "0")
    assert len(load_dataset("cifar10", "test")) == 30


@pytest.mark.parametrize("body", [PAGE, b"cut"])
def test_a_failed_download_is_one_clear_error(body, remote, places):
    Handler.extra = {"/archive": body}
    with pytest.raises(DataNotFound) as error:
        load_dataset("cifar10", "train")
    for part in (
        "cifar-10-python.tar.gz",
        "download failed",
        "/archive",
        str(places[0]),
        "efflib data cifar10",
    ):
        assert part in str(error.value)
    assert not list((places[1] / "downloads").iterdir())


def test_download_dataset_gives_the_paths(remote, places):
    assert download_dataset("cifar10") == [places[1] / "downloads" / "cifar-10-python.tar.gz"]
    assert download_dataset("digits") == []
    with pytest.raises(ValueError, match="unknown data set"):
        download_dataset("cifar")


@pytest.fixture
def tiny_remote(server, make, tmp_path, monkeypatch):
    """Tiny ImageNet with its official zip on the local server; returns the zip's content."""
    path = make.write_zip(tmp_path / "elsewhere.zip", make.tiny_tree())
    make.trust_zip(monkeypatch, path)
    content = path.read_bytes()
    known = sets.REAL["tiny_imagenet"]
    address = {known.official.archive: (f"{server}/zip", md5(content))}
    monkeypatch.setitem(sets.REAL, "tiny_imagenet", dataclasses.replace(known, downloads=address))
    monkeypatch.delenv("EFFLIB_OFFLINE")
    Handler.extra = {"/zip": content}
    return content


def test_tiny_imagenet_is_downloaded_once(tiny_remote, places):
    assert load_dataset("tiny_imagenet", "train").variant == "official"
    assert len(load_dataset("tiny_imagenet", "test")) == 6
    assert Handler.served == ["/zip"]
    assert (places[1] / "downloads" / "tiny-imagenet-200.zip").read_bytes() == tiny_remote
    assert available("tiny_imagenet")


@pytest.mark.parametrize("damage", [lambda c: PAGE, lambda c: c[:-100], lambda c: c[:-1] + b"!"])
def test_a_failed_download_of_tiny_imagenet_is_one_clear_error(damage, tiny_remote, places):
    Handler.extra = {"/zip": damage(tiny_remote)}
    with pytest.raises(DataNotFound, match=r"(?s)tiny-imagenet-200\.zip.*download failed: .*/zip.*efflib data tiny_"):
        load_dataset("tiny_imagenet", "train")
    assert not list((places[1] / "downloads").iterdir())


def test_the_address_of_tiny_imagenet():
    known = sets.TINY_IMAGENET
    ((name, (url, sum_)),) = known.downloads.items()
    assert (name, sum_) == (known.official.archive, known.official.archive_md5)
    assert url == "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    assert sum_ == "90528d7ca1a48142e341f4ef8d21d0de"


def test_official_addresses_and_sums_are_torchvisions():
    """Compared as text: importing torchvision takes seconds, its constants are literals."""
    package = importlib.util.find_spec("torchvision")
    if package is None:
        pytest.skip("torchvision is not installed: nothing to compare with")
    folder = Path(package.origin).parent / "datasets"
    cifar, mnist = ((folder / name).read_text() for name in ("cifar.py", "mnist.py"))
    for ours in (sets.CIFAR10, sets.CIFAR100):
        ((name, (url, md5)),) = ours.downloads.items()
        assert all(f'"{text}"' in cifar for text in (name, url, md5))
        for batches in (*ours.official.files.values(), dict([ours.official.meta])):
            assert all(re.search(f'"{file}"(?s:.){{1,60}}"{md5}"', cifar) for file, md5 in batches.items())
    for name, (url, md5) in sets.MNIST.downloads.items():
        assert f'("{name}", "{md5}")' in mnist
        assert f'"{url.removesuffix(name)}"' in mnist


@pytest.fixture
def names_remote(server, monkeypatch):
    """makemore's list on the local server; returns its content."""
    content = b"emma\nolivia\nava"
    monkeypatch.setattr(names, "URL", f"{server}/names")
    monkeypatch.setattr(names, "MD5", md5(content))
    monkeypatch.setattr(names, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.delenv("EFFLIB_OFFLINE")
    Handler.extra = {"/names": content}
    return content


def test_names_are_downloaded_once(names_remote, places):
    found = load_names()
    assert (found.names, found.variant) == (("emma", "olivia", "ava"), "official")
    assert load_names() == found
    assert Handler.served == ["/names"] and not list(places[0].iterdir())
    assert (places[1] / "downloads" / "names.txt").read_bytes() == names_remote


@pytest.mark.parametrize("damage", [lambda c: PAGE, lambda c: c[:-2], lambda c: c[:-1] + b"e"])
def test_a_failed_download_of_names_is_one_clear_error(damage, names_remote, places):
    Handler.extra = {"/names": damage(names_remote)}
    with pytest.raises(DataNotFound, match=r"(?s)names\.txt.*download failed: .*/names.*efflib data names --download"):
        load_names()
    assert not list((places[1] / "downloads").iterdir())


def test_names_are_not_downloaded_where_that_is_forbidden(names_remote, monkeypatch):
    with pytest.raises(DataNotFound, match="download=False"):
        load_names(download=False)
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
    with pytest.raises(DataNotFound, match="EFFLIB_OFFLINE is set"):
        load_names()
    assert not Handler.served


def test_the_address_of_the_names():
    assert names.URL == "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt"
