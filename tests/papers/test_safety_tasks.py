"""Images and names as tasks: what is drawn, and what is measured, against definitions written out in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from efflib.data import NORMALISATION, ImageSet, embedded_names
from efflib.data.names import windows
from efflib.models import create_model
from efflib.papers.safety import tasks
from efflib.papers.safety.tasks import (
    Images,
    ImageTask,
    TextTask,
    accuracy,
    draw_windows,
    jitter,
    text_loss,
)
from efflib.training import seeded

MEAN, STD = NORMALISATION["digits28"]
SIDE = 28


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count, seed=0, dtype=torch.float64):
    """Images whose brightness tells their class, with noise."""
    y = torch.arange(count) % 10
    x = torch.randn(count, 1, SIDE, SIDE, generator=generator(seed), dtype=dtype) + y[:, None, None, None] / 3
    return Images(x, y)


@pytest.fixture
def net():
    with seeded(0):
        return create_model("mnist_cnn", 10, width=0.125).double()


@pytest.fixture
def decoder():
    with seeded(0):
        return create_model("names_decoder", 27, width=0.125, context=8).double()


# --- images -----------------------------------------------------------------------------------------------


def test_images_are_normalised_once():
    pixels = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 1), dtype=np.uint8)
    data = ImageSet("digits28", "train", pixels, np.arange(6), tuple("0123456789"), np.arange(6), "f", "embedded")
    found = Images.of(data, MEAN, STD, "cpu", torch.float32)
    wanted = (pixels.astype(np.float64) / 255 - MEAN[0]) / STD[0]
    assert np.allclose(found.x[:, 0].numpy(), wanted[..., 0], atol=1e-6) and found.x.dtype == torch.float32
    assert found.y.tolist() == list(range(6)) and len(found) == 6
    some = found.take(np.array([4, 1]))
    assert torch.equal(some.x, found.x[[4, 1]]) and some.y.tolist() == [4, 1]


def test_images_are_drawn_with_replacement_and_keep_their_labels():
    x = torch.arange(10.0).reshape(10, 1, 1, 1)
    images = Images(x, torch.arange(10))
    drawn, labels = images.draw(generator(), 400)
    assert torch.equal(drawn.flatten(), labels.float())
    assert torch.bincount(labels, minlength=10).min() > 15
    assert torch.equal(images.draw(generator(), 400)[1], labels)
    assert not torch.equal(images.draw(generator(1), 400)[1], labels)


def test_accuracy_is_the_share_of_right_answers(net):
    net.train()
    images = pictures(23)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = accuracy(net, images, batch_size=5)
    assert net.training and all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net.eval()
    with torch.no_grad():
        right = [int(net(x[None]).argmax()) == int(y) for x, y in zip(images.x, images.y, strict=True)]
    assert found == 100 * sum(right) / 23 == accuracy(net, images, batch_size=23)


def test_the_loss_is_the_mean_cross_entropy(net):
    images, task = pictures(12), ImageTask(pictures(12), pictures(4), None, seed=0)
    net.eval()
    logits = net(images.x).detach().numpy()
    naive = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, images.y, strict=True)])
    assert float(task.loss(net, (images.x, images.y)).detach()) == pytest.approx(naive, rel=1e-12)


def test_recalibration_is_the_plain_average_over_batches_that_are_always_the_same(net, monkeypatch):
    monkeypatch.setattr(tasks, "RECALIBRATION", (20, 15))
    train = pictures(30)
    task = ImageTask(train, pictures(4), None, seed=3)
    net.train()
    net(pictures(8, seed=5).x)  # leaves statistics behind that must go
    task.recalibrate(net)
    assert net.training and net.bn2.momentum == 0.1
    draws, means, variances = generator(3), [], []
    for _ in range(2):  # small sets are not seen many times over
        before = torch.relu(net.conv2(torch.relu(net.conv1(train.draw(draws, 15)[0]))))
        means.append(before.mean((0, 2, 3)))
        variances.append(before.var((0, 2, 3)))
    assert torch.allclose(net.bn2.running_mean, torch.stack(means).mean(0))
    assert torch.allclose(net.bn2.running_var, torch.stack(variances).mean(0))
    first = net.bn4.running_mean.clone()
    task.recalibrate(net)
    assert torch.equal(first, net.bn4.running_mean)


@pytest.mark.parametrize(
    ("count", "wanted"), [(30, (1, 30)), (1_023, (1, 512)), (1_024, (2, 512)), (55_000, (20, 512))]
)
def test_how_much_recalibration_looks_at(count, wanted, net, monkeypatch):
    seen = []
    monkeypatch.setattr(tasks, "recalibrate_batch_norm", lambda model, batches: seen.extend(map(len, batches)))
    images = Images(torch.zeros(count, 1, 1, 1), torch.zeros(count, dtype=torch.int64))
    ImageTask(images, images, None, seed=0).recalibrate(net)
    assert (len(seen), seen[0]) == wanted and len(set(seen)) == 1


def test_measuring_leaves_the_training_of_a_network_with_batch_norm_alone(net):
    """Running statistics are all that it changes, and training does not read them."""
    task = ImageTask(pictures(20), pictures(6), None, seed=0)
    with seeded(0):
        other = create_model("mnist_cnn", 10, width=0.125).double()
    for model, measured in ((net, True), (other, False)):
        draws, optimiser = generator(), torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            model.train()
            optimiser.zero_grad()
            task.loss(model, task.batch(draws, 4)).backward()
            optimiser.step()
            if measured:
                task.measure(model)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert not torch.equal(net.bn2.running_mean, other.bn2.running_mean)


def test_what_is_measured_of_images(net):
    train, test, held = pictures(40), pictures(10, seed=1), pictures(7, seed=2)
    task = ImageTask(train, test, held, seed=0)
    found = task.measure(net)
    assert found == {"test": accuracy(net, test)}
    final = task.final(net)
    first = Images(train.x[:10], train.y[:10])
    assert (final["train"], final["held"]) == (accuracy(net, first), accuracy(net, held))
    assert set(ImageTask(train, test, None, seed=0).final(net)) == {"train", "test_batch_statistics"}
    assert task.score(net, held) == accuracy(net, held)


def test_the_authors_test_normalises_all_test_images_by_their_own_statistics(net):
    test = pictures(10, seed=1)
    found = ImageTask(pictures(40), test, None, seed=0).final(net)["test_batch_statistics"]

    def normed(x):
        return (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()

    with torch.no_grad():
        x = nn.functional.max_pool2d(normed(torch.relu(net.conv2(torch.relu(net.conv1(test.x))))), 2)
        x = nn.functional.max_pool2d(normed(torch.relu(net.conv4(torch.relu(net.conv3(x))))), 2)
        right = net.head(x.flatten(1)).argmax(1) == test.y
    assert found == 100 * right.double().mean()


# --- turned and shifted -----------------------------------------------------------------------------------


def blob(count, row=13.5, column=13.5):
    """A soft spot at a place; without one, in the middle."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    spot = torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4).double()
    return spot.expand(count, 1, SIDE, SIDE).clone()


def centre(x):
    """(N, 2) rows and columns of the centre of mass, counted from the middle."""
    place = torch.arange(SIDE).double() - 13.5
    weight = x[:, 0] / x[:, 0].sum((1, 2), keepdim=True)
    return torch.stack([(weight.sum(2) * place).sum(1), (weight.sum(1) * place).sum(1)], dim=1)


def test_no_turn_and_no_shift_is_the_image(monkeypatch):
    monkeypatch.setattr(tasks, "ROTATION", 0.0)
    monkeypatch.setattr(tasks, "SHIFT", 0.0)
    x = torch.randn(5, 1, SIDE, SIDE, generator=generator(), dtype=torch.float64)
    assert torch.allclose(jitter(x, generator(), -0.4), x, atol=1e-12)


def test_what_comes_in_from_outside_is_the_fill():
    fill = -MEAN[0] / STD[0]
    black = torch.full((8, 1, SIDE, SIDE), fill, dtype=torch.float64)
    assert torch.allclose(jitter(black, generator(), fill), black, atol=1e-12)
    white = jitter(torch.full_like(black, 2.0), generator(), fill)
    assert float(white.min()) == pytest.approx(fill) and float(white.max()) == pytest.approx(2)
    assert float(white[:, :, 9:19, 9:19].min()) == pytest.approx(2)


def test_shifts_are_up_to_a_tenth_of_the_side(monkeypatch):
    monkeypatch.setattr(tasks, "ROTATION", 0.0)
    moved = centre(jitter(blob(2_000), generator(), 0.0))
    assert 2.75 < float(moved.abs().max()) <= 2.8 + 1e-3
    assert (moved.mean(0).abs() < 0.15).all()
    assert torch.allclose(moved.std(0), torch.full((2,), 5.6 / math.sqrt(12), dtype=torch.float64), rtol=0.05)
    assert abs(float(torch.corrcoef(moved.T)[0, 1])) < 0.1


def test_turns_are_up_to_ten_degrees_about_the_middle(monkeypatch):
    monkeypatch.setattr(tasks, "SHIFT", 0.0)
    assert torch.allclose(centre(jitter(blob(50), generator(), 0.0)), torch.zeros(50, 2).double(), atol=1e-9)
    found = centre(jitter(blob(2_000, column=21.5), generator(), 0.0))  # 8 pixels to the right of the middle
    angle = torch.rad2deg(torch.atan2(found[:, 0], found[:, 1]))
    assert 9.8 < float(angle.max()) <= 10.01 and -10.01 <= float(angle.min()) < -9.8
    assert torch.allclose(found.norm(dim=1), torch.full((2_000,), 8.0).double(), atol=0.02)
    assert float(angle.std()) == pytest.approx(20 / math.sqrt(12), rel=0.05)


def test_turn_and_shift_together_stay_within_what_the_docstring_says():
    moved = centre(jitter(blob(4_000), generator(), 0.0)).abs().max() / SIDE
    angle = math.radians(10)
    assert 0.1 < float(moved) <= 0.1 * (math.cos(angle) + math.sin(angle)) + 1e-4


def test_each_image_is_turned_and_shifted_by_itself_by_the_generator():
    x = blob(4, column=20.0)
    found = jitter(x, generator(), 0.0)
    assert torch.equal(found, jitter(x, generator(), 0.0)) and not torch.equal(found, jitter(x, generator(1), 0.0))
    assert all(not torch.equal(found[0], other) for other in found[1:])
    assert jitter(x.float(), generator(), 0.0).dtype == torch.float32
    assert torch.allclose(jitter(x.float(), generator(), 0.0).double(), found, atol=1e-4)


# --- names ------------------------------------------------------------------------------------------------


def naive_loss(model, inputs, targets):
    """Mean of -log p, window by window and position by position."""
    model.eval()
    with torch.no_grad():
        logits = [model(window[None])[0].double().numpy() for window in inputs]
    losses = [
        math.log(np.exp(row).sum()) - row[token]
        for window, wanted in zip(logits, targets.tolist(), strict=True)
        for row, token in zip(window, wanted, strict=True)
    ]
    return sum(losses) / len(losses)


@pytest.fixture(scope="module")
def stream():
    return torch.from_numpy(embedded_names().split().train.tokens[:600])


def pair(tokens, window=8):
    return tuple(map(torch.from_numpy, windows(tokens.numpy(), window)))


def test_text_loss_against_its_definition(decoder, stream):
    decoder.train()
    inputs, targets = pair(stream[:200])
    found = text_loss(decoder, inputs, targets, batch_size=7)
    assert decoder.training
    assert found == pytest.approx(naive_loss(decoder, inputs, targets), rel=1e-12)
    assert found == pytest.approx(text_loss(decoder, inputs, targets), rel=1e-12)
    single = decoder.float()
    assert text_loss(single, inputs, targets) == pytest.approx(found, abs=1e-5)


def test_a_model_that_knows_nothing_loses_ln_27(decoder, stream):
    nn.init.zeros_(decoder.head.weight)
    assert text_loss(decoder, *pair(stream)) == pytest.approx(math.log(27), rel=1e-12)


def test_training_loss_of_windows_is_their_mean(decoder, stream):
    task = TextTask(stream, stream[:100], None, window=8)
    inputs, targets = pair(stream[:100])
    decoder.train()
    assert float(task.loss(decoder, (inputs, targets)).detach()) == pytest.approx(
        naive_loss(decoder, inputs, targets), rel=1e-6
    )


def test_windows_are_drawn_from_everywhere_and_targets_are_one_further(stream):
    tokens = torch.arange(20)
    inputs, targets = draw_windows(tokens, generator(), 500, 8)
    assert inputs.shape == targets.shape == (500, 8) and torch.equal(targets, inputs + 1)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert set(inputs[:, 0].tolist()) == set(range(12)) and int(targets.max()) == 19
    task = TextTask(stream, stream[:100], None, window=8)
    assert torch.equal(task.batch(generator(4), 6)[0], draw_windows(stream, generator(4), 6, 8)[0])


def test_what_is_measured_of_names(decoder, stream):
    train, tune, validation = stream[:400], stream[400:500], stream[500:]
    task = TextTask(train, validation, tune, window=8)
    assert task.measure(decoder) == {"test": text_loss(decoder, *pair(validation))}
    final = task.final(decoder)
    assert final == {"train": text_loss(decoder, *pair(train[:100])), "held": text_loss(decoder, *pair(tune))}
    assert set(TextTask(train, validation, None, window=8).final(decoder)) == {"train"}
    assert task.score(decoder, tune) == final["held"]
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    task.recalibrate(decoder)
    assert all(torch.equal(before[name], value) for name, value in decoder.state_dict().items())


def test_a_text_without_a_window_is_refused(decoder, stream):
    with pytest.raises(ValueError, match="a window of 8 tokens and its targets need a text of at least 9 tokens"):
        TextTask(stream, stream[:8], None, window=8)
