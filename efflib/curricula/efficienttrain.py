"""EfficientTrain (Wang et al. 2023): low frequencies first.

Each normalised batch of H x H images is cut in the Fourier domain to B x B:

    F = FFT2(x);  keep the rows and columns 0 .. B/2 - 1 and H - B/2 .. H - 1;  x' = Re IFFT2(F_kept) (B / H)^2

The network sees the small image, which keeps the mean and all waves longer than 2 H / B pixels. B is 160, 160, 160,
192, 224 of H = 224 over five equal fifths of training; for other H the even sizes nearest to these shares: 22, 22, 22,
28, 32 for 32 pixels. Evaluation sees full size. (BIMask's paper says that it selects samples; it uses all of them.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from efflib.curricula.common import one_of
from efflib.data import ImageSet
from efflib.models import evaluating
from efflib.training import Curriculum, TrainingRecipe

SHARES = (160 / 224, 160 / 224, 160 / 224, 192 / 224, 1.0)
RANDAUG = ("none", "linear", "fifths")


def low_frequency_crop(images: Tensor, size: int) -> Tensor:
    """Keep the lowest frequencies of a batch.

    Args:
        images: (N, C, H, H), float32 or float64 (others are computed in float32).
        size: even number of pixels, at most H; H itself changes nothing.

    Returns:
        (N, C, size, size) in the dtype and memory order of the images.

    Raises:
        ValueError: images that are not square, or a size that is odd or out of range.

    Source: Wang et al. 2023, section 4.1; the factor (B / H)^2 keeps grey values.
    """
    H, W = images.shape[2:]
    _check_size(size, H, W)
    if size == H:
        return images
    exact = images if images.dtype == torch.float64 else images.float()
    low = torch.arange(size, device=images.device)
    low[size // 2 :] += H - size  # the negative frequencies lie at the end
    kept = torch.fft.fft2(exact)[:, :, low[:, None], low]
    small = torch.fft.ifft2(kept).real * (size / H) ** 2
    order = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return small.to(images.dtype).contiguous(memory_format=order)


def _check_size(size: int, H: int, W: int) -> None:
    if H != W:
        raise ValueError(f"low frequencies are cut from square images, got {H}x{W}")
    if not 2 <= size <= H or (size % 2 and size != H):
        raise ValueError(f"size must be even and between 2 and {H}, the images' own, got {size!r}")


@dataclass
class EfficientTrain(Curriculum):
    """Low-frequency crops over five fifths of training.

    Args:
        sizes: B in each fifth, or None for the paper's shares of the image size.
        randaug: RandAugment on top, two operations per image: "none"; "linear", magnitude 0 to 9 of 10 (the paper);
            "fifths", 1, 3, 5, 7, 9 (the code). It acts on the raw images and is drawn from PyTorch's global generator,
            which `fit` seeds for each epoch.
    """

    sizes: tuple[int, ...] | None = None
    randaug: Literal["none", "linear", "fifths"] = "none"

    def __post_init__(self) -> None:
        one_of("randaug", self.randaug, RANDAUG)
        if self.sizes is not None:
            self.sizes = tuple(self.sizes)
            if len(self.sizes) != len(SHARES):
                raise ValueError(f"sizes must be five, one for each fifth of training, got {self.sizes}")

    def sizes_for(self, side: int) -> tuple[int, ...]:
        """B in each fifth for images of `side` pixels.

        Raises:
            ValueError: a size that is odd or larger than the images.
        """
        if self.sizes is None:
            return tuple(side if share == 1 else 2 * round(side * share / 2) for share in SHARES)
        for size in self.sizes:
            _check_size(size, side, side)
        return self.sizes

    def size_at(self, progress: float, epochs: int, side: int) -> int:
        """B after so many epochs of training."""
        return self.sizes_for(side)[_fifth(progress, epochs)]

    def magnitude_at(self, progress: float, epochs: int) -> int | None:
        """RandAugment's magnitude on torchvision's scale of 31 steps, 0 to 30: three times the paper's; None is off."""
        if self.randaug == "none":
            return None
        if self.randaug == "fifths":
            return 3 * (1, 3, 5, 7, 9)[_fifth(progress, epochs)]
        return round(27 * progress / epochs)

    def check(self, model: nn.Module, train: ImageSet, recipe: TrainingRecipe) -> None:
        _, H, W, C = train.images.shape
        _check_size(H, H, W)
        parameter = next(model.parameters())
        for size in sorted(set(self.sizes_for(H))):
            try:
                with evaluating(model), torch.no_grad():
                    model(parameter.new_zeros(1, C, size, size))
            except (RuntimeError, ValueError) as problem:
                raise ValueError(
                    f"EfficientTrain shows images of {size}x{size} pixels, which {type(model).__name__} cannot take "
                    f"({str(problem).splitlines()[0]}): use a network with adaptive pooling before its head, or "
                    f"sizes=({', '.join([str(H)] * len(SHARES))})"
                ) from problem

    def pixels(self, images: Tensor, progress: float, epochs: int) -> Tensor:
        magnitude = self.magnitude_at(progress, epochs)
        return images if magnitude is None else rand_augment(images, magnitude)

    def images(self, images: Tensor, progress: float, epochs: int) -> Tensor:
        return low_frequency_crop(images, self.size_at(progress, epochs, images.shape[2]))

    def compute_factor(self, side: int) -> float:
        """Pixels shown, relative to full size: 0.637 for 32 pixels."""
        return sum((size / side) ** 2 for size in self.sizes_for(side)) / len(SHARES)


def rand_augment(images: Tensor, magnitude: int, operations: int = 2) -> Tensor:
    """torchvision's RandAugment, drawn for each image: (N, H, W, C) uint8 -> the same; magnitude 0 to 30.

    C is 1 or 3. The operations and their order of drawing are the library's, one image after another: slow, and only
    for the option.
    """
    from torchvision.transforms import RandAugment

    change = RandAugment(num_ops=operations, magnitude=magnitude, num_magnitude_bins=31)
    changed = torch.stack([change(image) for image in images.permute(0, 3, 1, 2).contiguous()])
    return changed.permute(0, 2, 3, 1).contiguous()


def _fifth(progress: float, epochs: int) -> int:
    return min(int(len(SHARES) * progress / epochs + 1e-9), len(SHARES) - 1)
