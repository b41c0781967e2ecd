"""ImageNet weights: where they are looked for, what is no such file, downloads from a local server, two networks."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torch import nn
from torchvision.models import MobileNet_V2_Weights, ResNet50_Weights, VGG16_Weights, mobilenet_v2, resnet50, vgg16

from efflib.data import DataBroken, DataNotFound
from efflib.models import imagenet
from efflib.models.imagenet import (
    IMAGENET_INPUT,
    PRETRAINED,
    VGG16_INPUT,
    imagenet_resnet50,
    imagenet_vgg16,
    pretrained,
)
from efflib.training import seeded


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A private EFFLIB_DATA, private caches, no proxy and no network for every test here."""
    for name in ("EFFLIB_DATA", "EFFLIB_CACHE", "TORCH_HOME"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("EFFLIB_OFFLINE", "1")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


# --- the two networks -----------------------------------------------------------------------------------------


def test_files_are_those_of_torchvision():
    assert PRETRAINED["resnet50"].url == ResNet50_Weights.IMAGENET1K_V1.url
    assert PRETRAINED["vgg16"].url == VGG16_Weights.IMAGENET1K_FEATURES.url
    assert PRETRAINED["vgg16"].file == "vgg16_features-amdegroot-88682ab5.pth"
    assert PRETRAINED["mobilenetv2"].url == MobileNet_V2_Weights.IMAGENET1K_V1.url
    assert [known.checksum for known in PRETRAINED.values()] == ["0676ba61", "88682ab5", "b0353104"]
    for usual in (MobileNet_V2_Weights.IMAGENET1K_V1.transforms(), ResNet50_Weights.IMAGENET1K_V1.transforms()):
        assert (tuple(usual.mean), tuple(usual.std)) == IMAGENET_INPUT
    preset = VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    assert (tuple(preset.mean), tuple(preset.std)) == VGG16_INPUT


@pytest.fixture(scope="module")
def convolutions():
    """State of VGG16's convolutions with random weights, 59 MB."""
    with seeded(0), torch.device("meta"):
        network = vgg16(init_weights=False)
    return {name: 0.02 * torch.randn(value.shape) for name, value in network.features.state_dict().items()}


def test_vgg16_reads_the_convolutions_only(convolutions, tmp_path):
    state = {f"features.{name}": value for name, value in convolutions.items()}
    torch.save(state, tmp_path / "without.pth")
    nothing = {"classifier.0.weight": torch.full((2, 2), float("nan"))}  # whatever its shape
    torch.save({**state, **nothing}, tmp_path / "with.pth")
    torch.manual_seed(1)
    expected_random = torch.rand(2)
    torch.manual_seed(1)
    networks = [imagenet_vgg16(tmp_path / name) for name in ("without.pth", "with.pth")]
    assert torch.equal(torch.rand(2), expected_random)  # the caller's random state stays
    for network in networks:
        assert len(network) == 31
        assert all(torch.equal(value, convolutions[name]) for name, value in network.state_dict().items())
        assert all(parameter.requires_grad and not parameter.is_meta for parameter in network.parameters())


def test_vgg16_has_the_maps_of_the_spec(convolutions, tmp_path):
    """Section 7: shapes after modules 4, 9, 16, 23, 30; module 28 is the 13th convolution."""
    torch.save({f"features.{name}": value for name, value in convolutions.items()}, tmp_path / "vgg.pth")
    network, shapes = imagenet_vgg16(tmp_path / "vgg.pth"), {}
    x = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        for number, module in enumerate(network):
            x = module(x)
            shapes[number] = tuple(x.shape[1:])
    assert [shapes[number] for number in (4, 9, 16, 23, 30)] == [
        (64, 16, 16),
        (128, 8, 8),
        (256, 4, 4),
        (512, 2, 2),
        (512, 1, 1),
    ]
    places = [number for number, module in enumerate(network) if isinstance(module, nn.Conv2d)]
    assert len(places) == 13 and places[-1] == 28 and shapes[28] == (512, 2, 2)


def test_half_precision_files_give_float32_networks(convolutions, tmp_path):
    torch.save({f"features.{name}": value.bfloat16() for name, value in convolutions.items()}, tmp_path / "half.pth")
    assert {value.dtype for value in imagenet_vgg16(tmp_path / "half.pth").state_dict().values()} == {torch.float32}


def test_resnet50_gives_its_pooled_vector(tmp_path):
    with seeded(0):
        network = resnet50()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    found, x = imagenet_resnet50(tmp_path / "mine.pth"), torch.randn(2, 3, 64, 64)
    network.fc = nn.Identity()
    with torch.no_grad():
        assert found.eval()(x).shape == (2, 2048)
        assert torch.equal(found(x), network.eval()(x))


def test_mobilenetv2_reads_the_backbone_only(tmp_path):
    with seeded(0):
        theirs = mobilenet_v2().eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    found, x = pretrained("mobilenetv2", tmp_path / "theirs.pth").eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found(x), theirs.features(x))


# --- no such file, another file -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "title", "file", "instead"),
    [
        (imagenet_resnet50, "ResNet50", "resnet50-0676ba61.pth", "scorer='cifar_oof'"),
        (imagenet_vgg16, "VGG16", "vgg16_features-amdegroot-88682ab5.pth", "feature_source='baseline_penultimate'"),
    ],
)
def test_missing_weights_name_the_file_the_places_and_the_way_out(build, title, file, instead, places, tmp_path):
    with pytest.raises(DataNotFound) as found:
        build()
    cache = places / "EFFLIB_CACHE" / "downloads" / file
    for part in (f"the ImageNet weights of {title} were not found", str(places / "EFFLIB_DATA" / file), str(cache),
                 str(places / "TORCH_HOME"), "EFFLIB_OFFLINE is set", f"https://download.pytorch.org/models/{file}",
                 instead):  # fmt: skip
        assert part in str(found.value)
    with pytest.raises(DataNotFound, match=r"looked for .*nothing\.pth\."):
        build(tmp_path / "nothing.pth")


def test_broken_weights_are_noticed(places, tmp_path):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(DataBroken, match=r"other\.pth does not hold torchvision's ResNet50 \(.*remove it, or give"):
        imagenet_resnet50(tmp_path / "other.pth")
    for name, content in (("page", b"<html>"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataBroken, match="does not hold torchvision's ResNet50"):
            imagenet_resnet50(tmp_path / name)
    (places / "EFFLIB_DATA" / PRETRAINED["resnet50"].file).write_bytes(b"altered")
    with pytest.raises(DataBroken, match=r"has sha256 \w{8}\.\.\., its name says 0676ba61: truncated, altered"):
        imagenet_resnet50()


def test_files_of_something_else_are_not_vgg16(tmp_path):
    others = {
        "another network": {"conv1.weight": torch.zeros(2)},
        "other shapes": {"features.0.weight": torch.zeros(2, 2)},
        "a list": [torch.zeros(2)],
        "numbered": {0: torch.zeros(2)},
    }
    for number, content in enumerate(others.values()):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(DataBroken, match=rf"{number}\.pth does not hold torchvision's VGG16 \(.*remove it, or"):
            imagenet_vgg16(tmp_path / f"{number}.pth")


# --- downloads ------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    bodies: dict[str, bytes] = {}  # noqa: RUF012 - shared by the requests of one test on purpose
    served: list[str] = []  # noqa: RUF012

    def do_GET(self):
        self.served.append(self.path)
        body = self.bodies.get(self.path, b"<html>no such page</html>")
        self.send_response(200 if self.path in self.bodies else 404)
        self.send_header("Content-Length", str(len(body) + 1000 * ("short" in self.path)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """tiny(folder, body): a network of one layer whose file the local server gives as `body`; returns its content."""
    Handler.bodies, Handler.served = {}, []
    monkeypatch.setenv("EFFLIB_OFFLINE", "0")
    torch.save({"part.weight": torch.eye(2), "part.bias": torch.ones(2)}, tmp_path / "tiny.pth")
    content = (tmp_path / "tiny.pth").read_bytes()
    file = f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:

        def serve(folder: str, body: bytes | None) -> bytes:
            if body is not None:
                Handler.bodies[f"/{folder}/{file}"] = body
            url = f"http://127.0.0.1:{http.server_address[1]}/{folder}/{file}"
            known = dataclasses.replace(PRETRAINED["vgg16"], title="Tiny", url=url, build=layer, part="part.")
            monkeypatch.setitem(imagenet.PRETRAINED, "tiny", known)
            return content

        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        serve.content = content
        yield serve
        http.shutdown()
        thread.join()


def layer() -> nn.Module:
    return nn.Linear(2, 2)


def test_a_missing_file_is_downloaded_once(tiny, places):
    tiny("good", tiny.content)
    assert torch.equal(pretrained("tiny").weight, torch.eye(2))
    kept = places / "EFFLIB_CACHE" / "downloads"
    assert [path.name for path in kept.iterdir()] == [PRETRAINED["tiny"].file]
    assert torch.equal(pretrained("tiny").bias, torch.ones(2))
    assert len(Handler.served) == 1


def test_a_file_at_hand_is_not_downloaded(tiny, places):
    tiny("good", tiny.content)
    checkpoints = places / "TORCH_HOME" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / PRETRAINED["tiny"].file).write_bytes(tiny.content)
    assert torch.equal(pretrained("tiny").weight, torch.eye(2))
    assert Handler.served == []


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("altered", lambda content: content[:-1] + b"!", "invalid hash value"),
        ("short", lambda content: content[:100], "invalid hash value|100 bytes"),
        ("page", lambda content: b"<!DOCTYPE html>Please sign in", "invalid hash value"),
        ("missing", lambda content: None, "404"),
    ],
)
def test_a_bad_download_is_a_clear_error_and_leaves_nothing(folder, change, message, tiny, places):
    tiny(folder, change(tiny.content))
    with pytest.raises(DataNotFound, match=rf"the download failed: .*({message})") as found:
        pretrained("tiny")
    assert "feature_source='baseline_penultimate'" in str(found.value)
    assert list((places / "EFFLIB_CACHE" / "downloads").iterdir()) == []
    assert len(Handler.served) == 1  # asked once, nothing retried in silence


def test_a_failed_download_is_a_clear_error(places, monkeypatch):
    monkeypatch.setenv("EFFLIB_OFFLINE", "0")
    nobody = dataclasses.replace(PRETRAINED["resnet50"], url="http://127.0.0.1:9/resnet50-0676ba61.pth")
    monkeypatch.setitem(PRETRAINED, "resnet50", nobody)
    with pytest.raises(DataNotFound, match=r"the download failed: .*refused"):
        imagenet_resnet50()
