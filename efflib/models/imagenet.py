"""torchvision's networks with ImageNet weights: found on disk, or downloaded with checksum; never random by mistake.

Three are in use: ResNet50 (images scored by LCDnet-CL, in BIMask's table 4), the convolutional part of VGG16 (images
clustered within their class, in EncodeNet), and that of MobileNetV2 (a start for the networks of the thesis).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

import torch
from torch import nn

from efflib.data import DataBroken, DataNotFound
from efflib.data.cache import digests
from efflib.data.download import downloads_folder, offline
from efflib.data.errors import UNREADABLE
from efflib.models.measure import layer_macs
from efflib.models.registry import choice
from efflib.models.shapes import shapes_only

# Mean and standard deviation of RGB images in 0..1 that torchvision's networks expect.
IMAGENET_INPUT = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The preprocessing of VGG16's weights: RGB in 0..1, minus the mean, times 255, as in the original Caffe network.
VGG16_INPUT = ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3)


@dataclass(frozen=True)
class Pretrained:
    """One file of weights.

    Args:
        title: what messages call the network.
        url: torchvision's; the file's name ends with the start of its sha256.
        instead: what to do without the file, as the end of a message.
        build: makes the network that the file's state is of; it is called on the meta device.
        part: only the entries of the state below this name are read.
    """

    title: str
    url: str
    instead: str
    build: Callable[[], nn.Module]
    part: str = ""

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def checksum(self) -> str:
        """First eight digits of the sha256."""
        return self.file.removesuffix(".pth")[-8:]


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return resnet50()


def _vgg16_features() -> nn.Module:
    from torchvision.models import vgg16

    return vgg16(init_weights=False).features


def _mobilenetv2_backbone() -> nn.Module:
    from efflib.models.registry import create_model  # its layers have the names of torchvision's

    return create_model("mobilenetv2", 1).backbone  # type: ignore[return-value]


PRETRAINED = {
    "resnet50": Pretrained(  # ResNet50_Weights.IMAGENET1K_V1
        "ResNet50",
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "use scorer='cifar_oof', which needs no such file",
        _resnet50,
    ),
    "vgg16": Pretrained(  # VGG16_Weights.IMAGENET1K_FEATURES: a port of the original weights; its classifier is NaN
        "VGG16",
        "https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth",
        "use feature_source='baseline_penultimate', which needs no such file",
        _vgg16_features,
        part="features.",
    ),
    "mobilenetv2": Pretrained(  # MobileNet_V2_Weights.IMAGENET1K_V1; width 1
        "MobileNetV2",
        "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
        "use init='scratch', which needs no such file",
        _mobilenetv2_backbone,
        part="features.",
    ),
}


def imagenet_resnet50(weights: str | Path | None = None) -> nn.Module:
    """torchvision's ResNet50 without its classifier: images (N, 3, 224, 224) -> (N, 2048); see `pretrained`."""
    network = pretrained("resnet50", weights)
    network.fc = nn.Identity()
    return network


def imagenet_vgg16(weights: str | Path | None = None) -> nn.Module:
    """torchvision's `vgg16().features`, all 31 modules: images (N, 3, 32, 32) -> (N, 512, 1, 1); see `pretrained`.

    Images are to be normalised by `VGG16_INPUT`. Module 28 is the 13th convolution (512 x 2 x 2 for 32 pixels), module
    30 the max-pool behind it (section 2.2 of the EncodeNet spec).
    """
    return pretrained("vgg16", weights)


def pretrained(name: str, weights: str | Path | None = None) -> nn.Module:
    """A network of `PRETRAINED` with its ImageNet weights, float32, on the CPU, in train mode.

    Args:
        name: "resnet50", "vgg16" (its `features`) or "mobilenetv2" (the `backbone` of ours).
        weights: file of the network's state, taken as it is; None looks for torchvision's file in EFFLIB_DATA, among
            earlier downloads and in torch's own cache, and then downloads it.

    Raises:
        DataNotFound: no such file, and it could or may not be downloaded.
        DataBroken: a file that is not this network's state, or whose checksum is not the one in its name.
    """
    known = PRETRAINED[name]
    path = _weights_file(known, weights)
    with shapes_only():  # no memory, and no random numbers of the caller's, for weights that are replaced
        network = known.build()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        own = {key[len(known.part) :]: value for key, value in state.items() if key.startswith(known.part)}
        network.load_state_dict(own, assign=True)
    except (*UNREADABLE, TypeError, AttributeError) as problem:  # a file may hold another thing than a state
        why = (str(problem) or type(problem).__name__).splitlines()[0]
        raise DataBroken(
            f"{path} does not hold torchvision's {known.title} ({why}): remove it, or give weights= another file"
        ) from problem
    return network.float()


@cache
def imagenet_macs(name: str, side: int) -> int:
    """Multiply-accumulates of a network of `PRETRAINED` for one image of `side` pixels, without its weights."""
    with shapes_only():
        network = PRETRAINED[name].build().eval()
        return layer_macs(network, lambda: network(torch.empty(1, 3, side, side)))


def weights_file(name: str, download: bool = True) -> Path:
    """The file of a network's ImageNet weights: where it is, or where it was downloaded to just now.

    Args:
        name: of PRETRAINED.
        download: False only looks.

    Raises:
        ValueError: not a name of PRETRAINED.
        DataNotFound, DataBroken: as `pretrained`.
    """
    choice("name", name, tuple(PRETRAINED))
    return _weights_file(PRETRAINED[name], None, download)


def _weights_file(known: Pretrained, given: str | Path | None, download: bool = True) -> Path:
    """The file of the weights: the given one, or the first of its usual places, or a download."""
    if given is not None:
        places = [Path(given)]
    else:
        data = os.environ.get("EFFLIB_DATA")
        folders = [*([Path(data)] if data else []), downloads_folder(), Path(torch.hub.get_dir()) / "checkpoints"]
        places = [folder / known.file for folder in folders]
    for path in places:
        if path.is_file():
            if given is None:  # a file that the caller names may hold other weights
                _check_sum(known, path)
            return path
    looked = f"looked for {', '.join(map(str, places))}"
    if given is not None or not download:
        raise _no_weights(known, looked)
    if offline():
        raise _no_weights(known, f"{looked}; EFFLIB_OFFLINE is set, nothing was downloaded")
    return _downloaded(known, looked)


def _downloaded(known: Pretrained, looked: str) -> Path:
    path = downloads_folder() / known.file
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(known.url, str(path), hash_prefix=known.checksum, progress=False)
    except (OSError, RuntimeError, HTTPException) as problem:  # no connection, an error page, or another checksum
        if isinstance(problem, HTTPError):
            problem.close()  # it holds the connection
        raise _no_weights(known, f"{looked}; the download failed: {problem}") from problem
    return path


def _check_sum(known: Pretrained, path: Path) -> None:
    found = digests(path)["sha256"]
    if not found.startswith(known.checksum):
        raise DataBroken(
            f"{path} has sha256 {found[:8]}..., its name says {known.checksum}: truncated, altered or another file. "
            f"Remove it, and get it from {known.url}"
        )


def _no_weights(known: Pretrained, why: str) -> DataNotFound:
    return DataNotFound(
        f"the ImageNet weights of {known.title} were not found: {why}.\n"
        f"  Put {known.file} there (from {known.url}), or {known.instead}"
    )
