"""Training as a user does it: folders of small pictures, a network of one's own."""

from __future__ import annotations

import gzip
import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from layerscope import errors
from layerscope.images.preprocessing import HALF
from layerscope.inspection import features
from layerscope.networks.open import open_network
from layerscope.training import Diverged, train
from layerscope.training.data import ahead, batches, find_examples
from layerscope.training.keep import Best
from layerscope.training.loop import Epoch, Score

NETS = """
import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self, classes=3, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, stride=2)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = self.bn(self.stem(x)).relu().mean((2, 3))
        return self.fc(self.drop(x))


class Sides(Tiny):  # as GoogLeNet: more than one output while it learns
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits * 0) if self.training else logits


class Brittle(Tiny):  # no number from the third step of learning on
    steps = 0

    def forward(self, x):
        self.steps += self.training
        return super().forward(x) * (float("nan") if self.steps > 2 else 1)


class Refuses(Tiny):
    def forward(self, x):
        raise ValueError("not today")


def two():
    return Tiny(2)


def gray():
    return Tiny(10, channels=1)
"""


@pytest.fixture
def nets(tmp_path) -> str:
    """A file of the user's own networks, with the colon after it."""
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return f"{path}:"


def paint(folder: Path, classes: list[str], each: int = 10) -> Path:
    """Noise in which one colour is strong, another for every class; sizes differ."""
    rng = np.random.default_rng(1)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for at in range(each):
            pixels = rng.integers(0, 120, (12 + at % 3, 16, 3))
            pixels[:, :, number % 3] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{at:02}.png")
    return folder


@pytest.fixture
def colors(tmp_path) -> Path:
    return paint(tmp_path / "colors", ["blue", "green", "red"])


def idx(folder: Path, digits: list[int], compress: bool = False) -> Path:
    """MNIST's files: each digit is a bright row, that many rows down."""
    folder.mkdir()
    rng = np.random.default_rng(2)
    pictures = rng.integers(0, 60, (len(digits), 12, 12), dtype=np.uint8)
    for picture, digit in zip(pictures, digits, strict=True):
        picture[digit] = 250
    opener, end = (gzip.open, ".gz") if compress else (open, "")
    with opener(folder / f"train-images-idx3-ubyte{end}", "wb") as file:
        file.write(struct.pack(">HBB3I", 0, 8, 3, *pictures.shape) + pictures.tobytes())
    with opener(folder / f"train-labels-idx1-ubyte{end}", "wb") as file:
        file.write(struct.pack(">HBBI", 0, 8, 1, len(digits)) + bytes(digits))
    return folder


def quick(images: Path, network: str, save: Path, **options):
    """`train` with what makes it quick, quiet unless asked."""
    lines: list[str] = []
    result = train(images, network, save, **{"size": 16, "batch_size": 8, "lr": 0.03, "say": lines.append, **options})
    return result, lines


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], but: str = "nothing") -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a if not key.startswith(but))


# the whole way


def test_a_folder_of_images_becomes_a_checkpoint_that_knows_its_classes(run, colors, nets):
    options = ["--size", 16, "--epochs", 4, "--lr", 0.03, "--batch", 8, "--save", "out/tiny.pth"]
    ran = run("train", colors, "--network", nets + "Tiny", *options)
    assert ran.code == 0, ran.err
    assert "3 classes: 24 images to learn from, 6 held out" in ran.out
    epochs = [line for line in ran.out.splitlines() if line.startswith("epoch ")]
    assert len(epochs) == 4
    assert all("validation loss" in line and "images/s" in line for line in epochs)
    assert epochs[0].endswith("best")
    known = json.loads(Path("out/classes.json").read_text())["tiny.pth"]
    assert known["classes"] == ["blue", "green", "red"]
    assert known["network"] == nets + "Tiny"
    assert known["preprocessing"]["resize"] == [16, 16]
    assert names_in(Path("out")) == ["classes.json", "tiny.pth"]


def test_it_learns(colors, nets, tmp_path):
    result, _ = quick(colors, nets + "Tiny", tmp_path / "a.pth", epochs=5)
    assert result.best_accuracy >= 0.9
    assert result.best_accuracy == max(epoch.val.accuracy for epoch in result.epochs)
    assert result.epochs[result.epoch - 1].val.accuracy == result.best_accuracy


def test_the_file_gives_the_scores_that_were_said(colors, nets, tmp_path):
    result, _ = quick(colors, nets + "Tiny", tmp_path / "a.pth")
    network = open_network(f"{nets}Tiny={tmp_path / 'a.pth'}")
    examples = find_examples(colors, 0, 0.2, None)
    network.model.eval()
    with torch.no_grad():
        images, targets = next(batches(examples, examples.held_out, result.preprocessing, 99))
        logits = network.model(images)
    assert result.epochs[0].val.loss == pytest.approx(cross_entropy(logits, targets).item(), rel=1e-5)
    assert result.best_accuracy == pytest.approx((logits.argmax(1) == targets).float().mean().item())


def test_the_tutorials_alexnet_is_opened_again_with_labels_and_preprocessing(tmp_path):
    images = paint(tmp_path / "pets", ["cat", "dog"], each=3)
    result, _ = quick(images, "layerscope:alexnet", tmp_path / "AlexNet.pth", size=None, lr=1e-4)
    assert result.classes == ["cat", "dog"]
    network = open_network(str(tmp_path / "AlexNet.pth"))
    assert network.name == "layerscope:alexnet"
    assert network.labels == ["cat", "dog"]
    assert network.preprocessing == result.preprocessing == HALF
    record = features(network, images / "dog" / "00.png", ["features.0"])
    assert {one.label for one in record.predictions[0]} == {"cat", "dog"}


def test_a_library_network_is_trained_at_another_size(tmp_path):
    images = paint(tmp_path / "pets", ["cat", "dog"], each=3)
    quick(images, "torchvision:squeezenet1_1", tmp_path / "s.pth", size=40)
    network = open_network(str(tmp_path / "s.pth"))
    assert network.labels == ["cat", "dog"]
    assert network.preprocessing.resize == (40, 40)
    assert network.preprocessing.crop is None
    assert network.preprocessing.mean == (0.485, 0.456, 0.406)


def test_several_outputs_while_learning(colors, nets, tmp_path):
    result, _ = quick(colors, nets + "Sides", tmp_path / "a.pth", epochs=2)
    assert len(result.epochs) == 2


# what it is trained on


def test_the_split_comes_from_the_seed_and_is_even(colors):
    first, again, other = (find_examples(colors, seed, 0.2, None) for seed in (0, 0, 1))
    assert first.train.tolist() == again.train.tolist()
    assert first.held_out.tolist() == again.held_out.tolist()
    assert first.held_out.tolist() != other.held_out.tolist()
    assert not set(first.train) & set(first.held_out)
    assert len(first.train) + len(first.held_out) == 30
    assert np.bincount(first.targets[first.held_out]).tolist() == [2, 2, 2]


def test_few_images_are_drawn_evenly(colors):
    for extra in range(40):
        Image.new("RGB", (8, 8), "red").save(colors / "red" / f"x{extra}.png")
    examples = find_examples(colors, 0, 0.25, 12)
    assert np.bincount(examples.targets).tolist() == [4, 4, 4]
    assert (len(examples.train), len(examples.held_out)) == (9, 3)
    assert find_examples(colors, 0, 0.25, 48).targets.tolist().count(2) == 28  # the others have 10 each


@pytest.mark.parametrize("compress", [False, True])
def test_idx_files(tmp_path, nets, compress):
    folder = idx(tmp_path / "mnist", [0, 1, 2, 7] * 8, compress)
    result, lines = quick(folder, nets + "gray", tmp_path / "m.pth", epochs=2)
    assert result.classes == list("0123456789")
    assert lines[0] == "10 classes: 24 images to learn from, 8 held out to validate"
    assert result.preprocessing.mean == (0.5,)  # the network takes one channel


def test_idx_files_as_kaggle_names_them(tmp_path):
    folder = idx(tmp_path / "mnist", [0, 1] * 4)
    for name in ("images-idx3", "labels-idx1"):
        (folder / f"train-{name}-ubyte").rename(folder / f"train-{name.replace('-', '.')}-ubyte")
    assert len(find_examples(folder, 0, 0.25, None).targets) == 8


def test_gray_pictures_for_a_network_that_wants_colour(tmp_path):
    examples = find_examples(idx(tmp_path / "mnist", [0, 1] * 4), 0, 0.25, None)
    images, _ = next(batches(examples, examples.train, HALF, 4))
    assert images.shape == (3, 3, 224, 224)
    assert torch.equal(images[:, 0], images[:, 1])


def test_the_names_of_fashion(tmp_path):
    classes = find_examples(idx(tmp_path / "fashion-mnist", [0, 9] * 4), 0, 0.25, None).classes
    assert (classes[0], classes[9], len(classes)) == ("T-shirt", "ankle boot", 10)


def test_idx_files_that_do_not_belong_together(tmp_path, nets):
    folder = idx(tmp_path / "mnist", [0, 1] * 4)
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 3) + bytes(3))
    with pytest.raises(errors.ImageError, match="do not belong together"):
        quick(folder, nets + "gray", tmp_path / "m.pth")


def test_broken_images_are_counted_named_once_and_left_out(colors, nets, tmp_path):
    whole = (colors / "red" / "00.png").read_bytes()
    (colors / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (colors / "blue" / "text.jpg").write_text("no picture")
    (colors / "blue" / "notes.txt").write_text("no picture, and nobody says it is one")
    result, lines = quick(colors, nets + "Tiny", tmp_path / "a.pth", epochs=2)
    assert sorted(path.name for path in result.broken) == ["cut.png", "text.jpg"]
    (line,) = [line for line in lines if "cannot be read" in line]
    assert line.startswith("2 images")
    assert "cut.png" in line
    assert lines[0].startswith("3 classes: 24 images to learn from, 6 held out")


def test_folders_that_are_split_already(tmp_path, nets):
    paint(tmp_path / "data" / "train", ["blue", "green", "red"], each=5)
    paint(tmp_path / "data" / "val", ["blue", "red"], each=3)
    _, lines = quick(tmp_path / "data", nets + "Tiny", tmp_path / "a.pth")
    assert lines[0] == "3 classes: 15 images to learn from, 6 held out to validate"
    paint(tmp_path / "data" / "val", ["violet"], each=1)
    with pytest.raises(errors.ImageError, match="'violet' is not among"):
        quick(tmp_path / "data", nets + "Tiny", tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["alone"], "two classes or more .* only 'alone'"),
        ([], "no images in folders here"),
        (None, "no such folder"),
    ],
)
def test_too_little_to_train_on(tmp_path, nets, classes, said):
    folder = tmp_path / "few"
    if classes is not None:
        folder.mkdir()
        paint(folder, classes)
    with pytest.raises(errors.ImageError, match=said):
        quick(folder, nets + "Tiny", tmp_path / "a.pth")
    assert not (tmp_path / "a.pth").exists()


def test_one_broken_class_leaves_one(tmp_path, nets):
    folder = paint(tmp_path / "two", ["cat", "dog"], each=2)
    for file in (folder / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(errors.ImageError, match="only 'cat'"):
        quick(folder, nets + "two", tmp_path / "a.pth")


def test_batches_are_even_and_come_in_order(colors):
    examples = find_examples(colors, 0, 0.2, None)
    sizes = [len(targets) for _, targets in batches(examples, examples.train[:17], HALF, 8)]
    assert sizes == [6, 6, 5]  # not 8, 8 and 1
    assert list(ahead(iter([(1, 2), (3, 4), (5, 6)]))) == [(1, 2), (3, 4), (5, 6)]


# the same again, and nothing else changed


def world() -> tuple[object, ...]:
    """What a training could change outside of itself."""
    states = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
    return *states, torch.get_num_threads(), torch.is_grad_enabled()


def test_a_seed_gives_the_same_weights_and_leaves_the_world_as_it_was(colors, nets, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(1)  # whatever was drawn before
        before = world()
        quick(colors, nets + "Tiny", tmp_path / f"{name}.pth", epochs=2, seed=seed)
        assert world() == before
    a, b, c = (state(tmp_path / f"{name}.pth") for name in "abc")
    assert same(a, b)
    assert not same(a, c)


# the checkpoint


def epoch_of(number: int, accuracy: float, loss: float) -> Epoch:
    return Epoch(number, 5, Score(1, 1, 2), Score(loss * 10, round(accuracy * 10), 10), 1e-3, 10)


def test_the_best_epoch_is_kept(nets, tmp_path):
    network = open_network(nets + "Tiny")
    best = Best(tmp_path / "a.pth", network)
    taken = []
    for number, scores in enumerate([(0.5, 0.9), (0.8, 0.7), (0.8, 0.7), (0.8, 0.6), (0.7, 0.1)], start=1):
        torch.nn.init.constant_(network.model.fc.bias, number)
        taken.append(best.offer(epoch_of(number, *scores)))
    assert taken == [True, True, False, True, False]  # of equal accuracies the one with less loss
    assert state(tmp_path / "a.pth")["fc.bias"].tolist() == [4, 4, 4]
    assert "accuracy 0.8000 after epoch 4" in str(best)


def test_ctrl_c_leaves_the_best_whole(colors, nets, tmp_path):
    quick(colors, nets + "Tiny", tmp_path / "one.pth", epochs=1)
    lines: list[str] = []

    def interrupt(_done, _of, text):
        if text.startswith("epoch 2/9"):
            raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        quick(colors, nets + "Tiny", tmp_path / "out" / "a.pth", epochs=9, progress=interrupt, say=lines.append)
    assert same(state(tmp_path / "out" / "a.pth"), state(tmp_path / "one.pth"))
    assert names_in(tmp_path / "out") == ["a.pth", "classes.json"]
    assert lines[-1].startswith("interrupted: the best so far, accuracy")


def test_ctrl_c_in_the_middle_of_the_write(colors, nets, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    quick(colors, nets + "Tiny", out / "a.pth")
    before = (out / "a.pth").read_bytes()
    real = Path.write_bytes

    def half(path, data):
        real(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        quick(colors, nets + "Tiny", out / "a.pth", seed=5)
    assert (out / "a.pth").read_bytes() == before
    assert names_in(out) == ["a.pth", "classes.json"]


def test_ctrl_c_before_anything_is_there(colors, nets, tmp_path):
    lines: list[str] = []

    def interrupt(_done, _of, text):
        if text.startswith("epoch"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(colors, nets + "Tiny", tmp_path / "a.pth", progress=interrupt, say=lines.append)
    assert lines[-1] == "interrupted: no epoch was finished, nothing was saved"
    assert not (tmp_path / "a.pth").exists()


def test_classes_of_other_checkpoints_stay(colors, nets, tmp_path):
    for name in ("a.pth", "b.pth"):
        quick(colors, nets + "Tiny", tmp_path / name)
    assert list(json.loads((tmp_path / "classes.json").read_text())) == ["a.pth", "b.pth"]
    (tmp_path / "classes.json").write_text('{"cut')
    quick(colors, nets + "Tiny", tmp_path / "b.pth")
    assert list(json.loads((tmp_path / "classes.json").read_text())) == ["b.pth"]


@pytest.mark.parametrize("where", ["colors", "nets.py/a.pth", "/proc/a.pth"])
def test_nowhere_to_write_is_said_before_training(colors, nets, tmp_path, where):
    with pytest.raises(errors.OutputError):
        quick(
            colors,
            nets + "Tiny",
            tmp_path / where,
            progress=lambda _d, _o, text: text.startswith("epoch") and 1 / 0,
        )


# beginning with a checkpoint


def test_fine_tuning_copies_what_fits(colors, nets, tmp_path):
    quick(colors, nets + "Tiny", tmp_path / "three.pth")
    folder = paint(tmp_path / "pets", ["cat", "dog"])
    _, lines = quick(folder, nets + "two", tmp_path / "two.pth", weights=str(tmp_path / "three.pth"), lr=1e-12)
    assert any("6 of 8 tensors" in line and "new are fc.weight, fc.bias" in line for line in lines)
    assert torch.allclose(state(tmp_path / "two.pth")["stem.weight"], state(tmp_path / "three.pth")["stem.weight"])


def test_frozen_is_frozen(colors, nets, tmp_path):
    quick(colors, nets + "Tiny", tmp_path / "old.pth")
    quick(colors, nets + "Tiny", tmp_path / "new.pth", weights=str(tmp_path / "old.pth"), freeze=True, epochs=2)
    old, new = state(tmp_path / "old.pth"), state(tmp_path / "new.pth")
    assert same(old, new, but="fc.")  # batch norm's running statistics too
    assert not torch.equal(old["fc.weight"], new["fc.weight"])


def test_a_checkpoint_of_another_network(colors, nets, tmp_path):
    torch.save({"nothing.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(errors.NetworkError, match="does not fit"):
        quick(colors, nets + "Tiny", tmp_path / "a.pth", weights=str(tmp_path / "other.pth"))


# what can go wrong


def test_a_loss_that_is_no_number(run, colors, nets):
    ran = run("train", colors, "--network", nets + "Brittle", "--size", 16, "--batch", 8, "--save", "a.pth")
    assert ran.code == 1
    assert "epoch 1/1, step 3: the loss is nan; take a --lr below 0.0002" in ran.line
    assert "nothing was saved" in ran.line


def test_the_best_before_it_is_kept(colors, nets, tmp_path):
    with pytest.raises(Diverged, match=r"epoch 2/3, step 3: .*accuracy [01]\.\d+ after epoch 1, is in .*a\.pth"):
        quick(colors, nets + "Brittle", tmp_path / "a.pth", batch_size=12, epochs=3)
    assert torch.isfinite(state(tmp_path / "a.pth")["fc.weight"]).all()


@pytest.mark.parametrize(
    ("network", "options", "kind", "said"),
    [
        ("two", {}, errors.NetworkError, r"gives \(2, 2\) for 2 images, and 3 classes need \(2, 3\)"),
        ("Refuses", {}, errors.ForwardError, "not today"),
        ("Nowhere", {}, errors.NetworkError, "Nowhere"),
        ("Tiny", {"lr": 0.0}, errors.UsageError, "--lr"),
        ("Tiny", {"lr": float("nan")}, errors.UsageError, "--lr"),
        ("Tiny", {"seed": -1}, errors.UsageError, "--seed"),
        ("Tiny", {"val": 1.0}, errors.UsageError, "--val"),
        ("Tiny", {"epochs": 0}, errors.UsageError, "--epochs"),
        ("Tiny", {"batch_size": 0}, errors.UsageError, "--batch"),
        ("Tiny", {"size": 0}, errors.UsageError, "--size"),
        ("Tiny", {"most": 1}, errors.UsageError, "--images"),
        ("Tiny", {"probe": Path("no.png")}, errors.ImageError, "no.png"),
        ("Tiny", {"weights": "no.pth"}, errors.CheckpointError, "no.pth"),
    ],
)
def test_wrong_wishes(colors, nets, tmp_path, network, options, kind, said):
    with pytest.raises(kind, match=said):
        quick(colors, nets + network, tmp_path / "a.pth", **options)
    assert not (tmp_path / "a.pth").exists()


@pytest.mark.parametrize("network", ["alexnet", "AlexNet.pth", "torchvision:resnet18=a.pth"])
def test_what_is_no_network_to_train(colors, tmp_path, network):
    with pytest.raises(errors.UsageError, match="cannot be trained; name a network such as"):
        quick(colors, network, tmp_path / "a.pth")
