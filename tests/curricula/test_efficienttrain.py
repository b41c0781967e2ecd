"""EfficientTrain: the crop keeps low frequencies and nothing else, at the right sizes, in training only."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from efflib.curricula import create
from efflib.curricula.efficienttrain import EfficientTrain, low_frequency_crop, rand_augment
from efflib.data import load_dataset
from efflib.models import create_model, list_models
from efflib.training import seeded


def noise(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def defined(image, B):
    """The spec's formula with explicit Fourier matrices: (H, H) -> (B, B)."""
    H = len(image)
    low = [*range(B // 2), *range(H - B // 2, H)]
    forward = np.exp(-2j * np.pi * np.outer(low, np.arange(H)) / H)
    back = np.exp(2j * np.pi * np.outer(np.arange(B), np.arange(B)) / B) / B
    return (back @ (forward @ image @ forward.T * (B / H) ** 2) @ back.T).real


def test_the_ramp_of_the_spec():
    ramp = torch.arange(16, dtype=torch.float64).reshape(1, 1, 4, 4)
    assert low_frequency_crop(ramp, 2)[0, 0].tolist() == [pytest.approx([5, 6]), pytest.approx([9, 10])]


@pytest.mark.parametrize(("H", "B"), [(32, 22), (32, 28), (8, 6), (7, 4), (64, 46), (9, 2)])
def test_it_is_the_definition(H, B):
    images = noise(2, 3, H, H)
    got = low_frequency_crop(images, B)
    assert got.shape == (2, 3, B, B) and got.dtype == torch.float64
    for n in range(2):
        for c in range(3):
            assert got[n, c].numpy() == pytest.approx(defined(images[n, c].numpy(), B), abs=1e-12)
    assert low_frequency_crop(images.float(), B).numpy() == pytest.approx(got.numpy(), abs=2e-6)


def test_the_mean_and_a_constant_are_kept():
    images = noise(2, 3, 32, 32)
    assert low_frequency_crop(images, 22).mean(dim=(2, 3)).numpy() == pytest.approx(images.mean(dim=(2, 3)).numpy())
    assert low_frequency_crop(torch.full((1, 3, 32, 32), 0.7), 22).numpy() == pytest.approx(0.7, abs=1e-6)


def test_full_size_is_the_identity():
    for side in (7, 8, 32):
        images = noise(2, 1, side, side)
        assert low_frequency_crop(images, side) is images


@pytest.mark.parametrize("frequency", [1, 5, 10])
def test_a_slow_wave_is_sampled_anew_and_a_fast_one_is_gone(frequency):
    def wave(f, side):
        return torch.cos(2 * math.pi * f * torch.arange(side, dtype=torch.float64) / side + 0.3).expand(
            1, 1, side, side
        )

    assert low_frequency_crop(wave(frequency, 32), 22).numpy() == pytest.approx(wave(frequency, 22).numpy(), abs=1e-12)
    for fast in (12, 15, 16):
        assert low_frequency_crop(wave(fast, 32), 22).abs().max() < 1e-12


def test_energy_outside_the_kept_band_is_zero():
    """Enlarged back to H x H by its spectrum, the crop equals the original inside the band, zero outside."""
    H, B = 32, 22
    images = noise(1, 1, H, H)
    original, cropped = torch.fft.fft2(images)[0, 0], torch.fft.fft2(low_frequency_crop(images, B))[0, 0] * (H / B) ** 2
    inner = [*range(B // 2), *range(B // 2 + 1, B)]  # index B/2 has no partner of opposite sign in the band
    in_full = [*range(B // 2), *range(H - B // 2 + 1, H)]
    assert (cropped[inner][:, inner] - original[in_full][:, in_full]).abs().max() < 1e-10
    shown = torch.zeros(H, H, dtype=torch.complex128)
    shown[torch.tensor(in_full)[:, None], torch.tensor(in_full)] = cropped[inner][:, inner]
    smooth = torch.fft.ifft2(shown).real
    again = low_frequency_crop(smooth[None, None], B)
    assert torch.fft.fft2(again)[0, 0, B // 2].abs().max() < 1e-10
    assert (torch.fft.fft2(again)[0, 0][inner][:, inner] * (H / B) ** 2 - cropped[inner][:, inner]).abs().max() < 1e-10


def test_dtype_and_memory_order_stay():
    images = noise(2, 3, 32, 32, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    got = low_frequency_crop(images, 22)
    assert got.dtype == torch.bfloat16 and got.is_contiguous(memory_format=torch.channels_last)
    assert low_frequency_crop(noise(2, 3, 32, 32), 22).is_contiguous()


def test_sizes_and_compute_of_the_spec():
    plain = EfficientTrain()
    assert plain.sizes_for(32) == (22, 22, 22, 28, 32)
    assert plain.sizes_for(224) == (160, 160, 160, 192, 224)
    assert plain.sizes_for(64) == (46, 46, 46, 54, 64)
    assert plain.compute_factor(32) == pytest.approx(0.637, abs=5e-4)
    assert EfficientTrain(sizes=(32,) * 5).compute_factor(32) == 1
    expected = {0: 22, 39.99: 22, 119.99: 22, 120: 28, 159.99: 28, 160: 32, 199.99: 32}
    assert {when: plain.size_at(when, 200, 32) for when in expected} == expected
    assert [plain.size_at(epoch, 30, 32) for epoch in (0, 17, 18, 23, 24, 29)] == [22, 22, 28, 28, 32, 32]
    # With 7 epochs the fifths end within epochs: 4.2 and 5.6.
    assert [plain.size_at(when, 7, 32) for when in (4.1, 4.2, 5.5, 5.6)] == [22, 28, 28, 32]


def test_the_network_is_trained_on_small_images_and_evaluated_at_full_size(train, network):
    model = network()
    shapes = []
    model.register_forward_pre_hook(lambda module, inputs: shapes.append((module.training, inputs[0].shape[-1])))
    sizes = (4, 4, 6, 6, 8)
    _, _, batches = train(EfficientTrain(sizes=sizes), model)
    assert [batch.images.shape[-1] for batch in batches] == [size for size in sizes for _ in range(3)]
    trained = [side for training, side in shapes if training]
    assert trained == [size for size in sizes for _ in range(3)]
    # One image before training, the checks of the sizes, and the test set after each of five epochs.
    assert [side for training, side in shapes if not training] == [8, 4, 6, 8, 8, 8, 8, 8, 8]


def test_the_images_are_the_plain_ones_cropped(train):
    _, _, plain = train()
    _, _, cropped = train(EfficientTrain(sizes=(6, 6, 6, 6, 8)))
    for one, two in zip(plain, cropped):
        assert torch.equal(one.indices, two.indices)
        assert torch.equal(low_frequency_crop(one.images, two.images.shape[-1]), two.images)


def test_full_sizes_change_nothing_and_small_ones_do(train):
    _, plain, _ = train()
    _, same, _ = train(EfficientTrain(sizes=(8,) * 5))
    _, small, _ = train(EfficientTrain())
    assert all(torch.equal(plain[name], same[name]) for name in plain)
    assert not torch.equal(plain["conv1.weight"], small["conv1.weight"])


# One reads images of 28 pixels only, the other text.
@pytest.mark.parametrize("name", sorted({*list_models()} - {"mnist_cnn", "names_decoder"}))
def test_every_network_takes_the_small_images(name):
    images = load_dataset("objects32", "test").take(range(1))
    with seeded(0):
        model = create_model(name, 10, width=0.25)
    EfficientTrain().check(model, images, None)
    assert model.training  # as it was


class FixedPool(nn.Module):
    """The head of many CIFAR networks: an average pool of fixed size."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.AvgPool2d(8), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.pool(self.conv(x)).flatten(1))


def test_a_network_that_needs_the_full_size_is_a_clear_error(train):
    with pytest.raises(ValueError, match=r"6x6 pixels, which FixedPool cannot take .*adaptive pooling .*sizes=\(8, 8"):
        train(EfficientTrain(), FixedPool())
    history, _, _ = train(EfficientTrain(sizes=(8,) * 5), FixedPool())
    assert history.epochs == 5


def test_wrong_options_and_images(train, data):
    with pytest.raises(ValueError, match=r"sizes must be five, one for each fifth of training, got \(22, 32\)"):
        create("efficienttrain", sizes=(22, 32))
    with pytest.raises(ValueError, match="randaug must be one of none, linear, fifths, got 'on'"):
        create("efficienttrain", randaug="on")
    for sizes, wrong in (((7, 8, 8, 8, 8), 7), ((8, 8, 8, 8, 10), 10), ((0, 8, 8, 8, 8), 0)):
        with pytest.raises(ValueError, match=f"size must be even and between 2 and 8, the images' own, got {wrong}"):
            train(EfficientTrain(sizes=sizes))
    with pytest.raises(ValueError, match="cut from square images, got 32x24"):
        low_frequency_crop(torch.zeros(1, 3, 32, 24), 22)


# --- RandAugment ----------------------------------------------------------------------------------------------


def test_magnitudes_rise():
    assert EfficientTrain().magnitude_at(7, 10) is None
    linear = EfficientTrain(randaug="linear")
    assert [linear.magnitude_at(when, 200) for when in (0, 100, 199.99)] == [0, 14, 27]  # 3 x 0, 4.5, 9
    fifths = EfficientTrain(randaug="fifths")
    assert [fifths.magnitude_at(when, 200) for when in (0, 39, 40, 80, 120, 160, 199)] == [3, 3, 9, 15, 21, 27, 27]


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_changes_pixels_and_nothing_else(channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, 8, 8, channels), generator=generator, dtype=torch.uint8)
    before = images.clone()
    with seeded(1):
        one = rand_augment(images, 27)
    with seeded(1):
        again = rand_augment(images, 27)
    assert torch.equal(one, again) and torch.equal(images, before)
    assert one.shape == images.shape and one.dtype == torch.uint8
    changed = (one != images).flatten(1).any(dim=1)
    assert changed.float().mean() > 0.7  # identity is one of 14 operations, others may leave an image as it is
    with seeded(2):
        assert not torch.equal(rand_augment(images, 27), one)


def test_rand_augment_in_training(train):
    _, _, plain = train()
    _, one, augmented = train(EfficientTrain(sizes=(8,) * 5, randaug="linear"))
    _, two, _ = train(EfficientTrain(sizes=(8,) * 5, randaug="linear"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    last = [(a.images, b.images) for a, b in zip(plain, augmented)][-1]
    assert torch.equal(plain[0].indices, augmented[0].indices) and not torch.equal(*last)
