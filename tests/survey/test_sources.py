"""Images by number: folders, lists, data set objects, idx files."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from layerscope.errors import ImageError, UsageError
from layerscope.surveying.sources import Files, open_source
from tests.conftest import picture


def small(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (value, 0, 0)).save(path)
    return path


def names(source):
    return [source.name(number) for number in range(len(source))]


def labels(source):
    return [source.label(number) for number in range(len(source))]


def test_a_folder_of_classes_in_natural_order_whatever_the_file_system_says(tmp_path, monkeypatch):
    for name in ("b/image10.png", "b/image2.png", "a/deep/er/x.JPG.png", "a/x.png", "a/note.txt", ".git/x.png"):
        if name.endswith("png"):
            small(tmp_path / name)
        else:
            (tmp_path / name).write_text("no image")
    (tmp_path / "empty").mkdir()
    source = open_source(tmp_path)
    assert names(source) == ["a/x.png", "a/deep/er/x.JPG.png", "b/image2.png", "b/image10.png"]
    assert (source.classes, labels(source)) == (["a", "b"], [0, 0, 1, 1])

    before, scandir = source.fingerprint(), os.scandir

    class Turned:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name)

        def __iter__(self):
            return self

        def __next__(self):
            if not self.entries:
                raise StopIteration
            return self.entries.pop()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Turned)
    assert names(open_source(tmp_path)) == names(source)
    assert open_source(tmp_path).fingerprint() == before


def test_a_flat_folder_has_no_classes_and_loose_images_beside_folders_have_no_label(tmp_path):
    small(tmp_path / "2.png"), small(tmp_path / "10.png")
    flat = open_source(str(tmp_path))
    assert (names(flat), flat.classes, labels(flat)) == (["2.png", "10.png"], [], [None, None])
    small(tmp_path / "cats" / "c.png")
    both = open_source(tmp_path)
    assert (names(both), both.classes, labels(both)) == (["2.png", "10.png", "cats/c.png"], ["cats"], [None, None, 0])


def test_links_that_lead_back_are_not_followed_for_ever(tmp_path):
    small(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    assert names(open_source(tmp_path)) == ["a/x.png"]


def test_a_split_folder_is_not_taken_for_two_classes(tmp_path):
    small(tmp_path / "train" / "a" / "x.png"), small(tmp_path / "val" / "a" / "x.png")
    with pytest.raises(ImageError, match=r"is split into train and val; give one of them, such as .*val"):
        open_source(tmp_path)


def test_a_text_file_of_paths_and_labels_keeps_its_order(tmp_path, monkeypatch):
    small(tmp_path / "set" / "b.png", 9), small(tmp_path / "c.png", 7)
    (tmp_path / "set" / "list.txt").write_text(f"b.png\tten\n\n{tmp_path / 'c.png'}\ttwo\r\nb.png\n")
    monkeypatch.chdir(tmp_path)
    source = open_source("set/list.txt")
    assert names(source) == ["b.png", str(tmp_path / "c.png"), "b.png"]
    assert (source.classes, labels(source)) == (["ten", "two"], [0, 1, None])
    monkeypatch.chdir("/")
    assert [source.image(number).getpixel((0, 0))[0] for number in range(3)] == [9, 7, 9]


def test_a_list_of_paths_and_one_path(tmp_path):
    first, second = small(tmp_path / "b.png"), small(tmp_path / "a.png")
    assert names(open_source([first, str(second)])) == [str(first), str(second)]
    assert names(open_source(first)) == ["b.png"]


@pytest.mark.parametrize("change", ["size", "name", "fewer", "label"])
def test_the_fingerprint_tells_changed_data(tmp_path, change):
    root = tmp_path / "set"
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        small(root / name)
    before = open_source(root).fingerprint()
    assert open_source(root).fingerprint() == before
    if change == "size":
        picture(root / "a/2.png", 20, 20)
    elif change == "name":
        (root / "a/2.png").rename(root / "a/3.png")
    elif change == "fewer":
        (root / "a/2.png").unlink()
    else:
        (root / "b").rename(root / "c")
    assert open_source(root).fingerprint() != before
    moved = root.rename(tmp_path / "elsewhere")
    assert open_source(moved).fingerprint() == open_source(moved).fingerprint()


def test_the_fingerprint_does_not_depend_on_where_the_folder_is(tmp_path):
    small(tmp_path / "set" / "a.png")
    before = open_source(tmp_path / "set").fingerprint()
    assert open_source((tmp_path / "set").rename(tmp_path / "other")).fingerprint() == before


def test_a_million_paths_are_one_run_of_bytes():
    paths = (b"n%08d/ILSVRC2012_val_%08d.JPEG" % (number // 1000, number) for number in range(1_000_000))
    source = Files(".", paths, None, [], "many")
    assert source.name(999_999) == "n00000999/ILSVRC2012_val_00999999.JPEG"
    assert len(pickle.dumps(source)) < 50_000_000


def test_names_that_are_no_text_are_shown_and_opened(tmp_path):
    small(tmp_path / os.fsdecode(b"caf\xe9.png"))
    source = open_source(tmp_path)
    assert source.name(0) == "caf\ufffd.png"
    assert source.image(0).size == (4, 3)


class Set:
    """As torchvision's data sets are."""

    def __init__(self, items, classes=None, targets=None):
        self.items = items
        if classes:
            self.classes = classes
        if targets is not None:
            self.targets = targets

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


def test_a_data_set_object_of_images_and_labels():
    items = [(Image.new("RGBA", (4, 3), (0, 0, 0, 0)), 1), (Image.new("L", (4, 3), 7), torch.tensor(0))]
    source = open_source(Set(items, ["x", "y"]))
    assert (len(source), source.classes, labels(source), names(source)) == (
        2, ["x", "y"], [1, 0], ["image 0", "image 1"],
    )  # fmt: skip
    assert source.image(0).getpixel((0, 0)) == (255, 255, 255), "what is transparent lies on white"
    assert source.item(1)[0].getpixel((0, 0)) == (7, 7, 7)
    assert open_source(Set(items, ["x", "z"])).fingerprint() != source.fingerprint()


def test_classes_come_from_targets_or_the_set_below_and_odd_labels_are_none():
    pixels = np.zeros((2, 2, 3), np.uint8)
    counted = open_source(Set([(pixels, 2), (pixels, 0)], targets=torch.tensor([2, 0])))
    assert (counted.classes, labels(counted)) == (["class 0", "class 1", "class 2"], [2, 0])
    part = Set([(pixels, 0), (pixels, 9), (pixels, "cat")])
    part.dataset = Set([], ["x"])
    assert (open_source(part).classes, labels(open_source(part))) == (["x"], [0, None, None])
    assert labels(open_source(Set([(pixels, 3)]))) == [None]


def test_tensors_are_taken_as_they_are():
    batch = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2)
    source = open_source(batch)
    assert len(source) == 2
    assert torch.equal(source.item(1)[0], batch[1])
    assert source.image(1).size == (2, 2)


def test_what_is_no_image_is_named():
    with pytest.raises(ImageError, match="gave float, not an image"):
        open_source(Set([(1.5, 0)])).item(0)


def idx(path, array):
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())
    return path


def test_idx_files_by_folder_and_by_name(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("train", 5), ("t10k", 3)):
        idx(tmp_path / f"{name}-images-idx3-ubyte", rng.integers(0, 255, (count, 6, 6), np.uint8))
        idx(tmp_path / f"{name}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    train, test = open_source(tmp_path), open_source(tmp_path / "t10k-images-idx3-ubyte")
    assert (len(train), len(test)) == (5, 3)
    assert (test.classes[:2], labels(test)) == (["0", "1"], [0, 1, 2])
    sent = pickle.loads(pickle.dumps(test))
    assert sent.image(2).tobytes() == test.image(2).tobytes()
    assert sent.fingerprint() == test.fingerprint() != train.fingerprint()
    assert len(pickle.dumps(test)) < 1000, "pixels stay in the file"
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert labels(open_source(tmp_path / "t10k-images-idx3-ubyte")) == [None] * 3


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda at: at / "nothing", ImageError, "no such folder or file"),
        (lambda at: at, ImageError, "no image in this folder nor below it"),
        (lambda at: [], ImageError, "no image given"),
        (lambda at: 7, UsageError, "int is no data set"),
        (lambda at: (at / "a.pth", (at / "a.pth").write_bytes(b"PK\0\0"))[0], ImageError, "neither an image nor"),
        (lambda at: (at / "a.txt", (at / "a.txt").write_text("\n \n"))[0], ImageError, "names no image"),
    ],
)  # fmt: skip
def test_what_is_no_data_set_is_said_in_one_line(tmp_path, make, error, said):
    with pytest.raises(error, match=said) as caught:
        open_source(make(tmp_path))
    assert "\n" not in str(caught.value)
