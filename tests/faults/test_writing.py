"""A full disk, folders that cannot be written, odd names, two writers: one line, exit code 1, nothing half-written."""

from __future__ import annotations

import os
import re
import stat
import threading
from pathlib import Path

import pytest

from layerscope.errors import OutputError
from layerscope.files import save
from layerscope.records.file import load
from tests.faults.conftest import WRITERS, a_record, files_below

SLOW = (
    "survey --record",
    "train --save",
    "train --logdir",
    "unit --out",
    "compare --out",
    "features --out",
    "export --html",
)
COMMANDS = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in WRITERS]


def command(name: str, to: str) -> list[str]:
    return WRITERS[name].format(to=to).split()


@pytest.mark.parametrize("name", [one for one in COMMANDS if one.values != ("train --logdir",)])  # see tests/watching
def test_a_full_disk(run, place, full, name):
    before = files_below(place)
    with full(60):
        ran = run(*command(name, "new"))
    assert ran.code == 1, ran.err
    assert re.search(r"cannot be written \((File too large|No space left on device)\)", ran.line), ran.err
    left = {path: data for path, data in files_below(place).items() if path not in before}
    # TensorBoard reads a log while it grows: what is there is whole, and no reader stumbles.
    assert not [path for path in left if "tfevents" not in path and path != "b.pth"], left.keys()


@pytest.mark.parametrize("name", [one for one in COMMANDS if "{to}/" in WRITERS[one.values[0]]])  # writes one file
def test_a_full_disk_leaves_what_was_there(run, place, full, name):
    target = Path(place, command(name, "new")[-1])
    target.parent.mkdir()
    target.write_bytes(b"kept")
    with full(60):
        assert run(*command(name, "new")).code == 1
    assert target.read_bytes() == b"kept"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("to", ["photo.png/below", "/proc/below"])
def test_a_folder_that_cannot_be_written(run, place, name, to):
    """Root may write where others may not; below a file and in /proc it may not either."""
    before = files_below(place)
    ran = run(*command(name, to))
    assert ran.code in (1, 2), ran.err
    assert "Traceback" not in ran.err
    assert to.split("/")[-1] in ran.err
    assert len([line for line in ran.err.splitlines() if "rror" in line or "cannot" in line]) == 1, ran.err
    assert files_below(place) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_a_name_that_is_too_long(run, place, name):
    before = files_below(place)
    ran = run(*command(name, "x" * 300))
    assert ran.code in (1, 2), ran.err
    assert "too long" in ran.err.lower()
    assert "Traceback" not in ran.err
    assert files_below(place) == before


NAMES = ["n\u00e4me \u2603 \u4e2d\u6587", "two\nlines", "\x1b[2J", "\u202etxt", "a'b\"c`$(touch x)", "-", " ", "\udcff"]


@pytest.mark.parametrize("name", [*NAMES[:3], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[3:])])
def test_odd_names(run, place, name):
    for suffix, command in ((".layerscope", "--record"), (".csv", "--csv"), ("", "--out")):
        ran = run("weights", "net.pth", command, name + suffix)
        assert ran.code == 0, ran.err
        assert (place / (name + suffix)).exists()
        assert "\x1b" not in ran.out + ran.err
    assert len(load(place / f"{name}.layerscope"))
    odd = place / f"odd {name}.png"
    odd.write_bytes((place / "photo.png").read_bytes())
    ran = run("features", "nets.py:small", odd.name, "--size", "32", "--json", "--out", "pictures")
    assert ran.code == 0, ran.err
    assert ran.json["images"][0].startswith("odd ")
    assert not (place / "x").exists()


@pytest.mark.parametrize("length", [230, 250, 255])
def test_the_longest_name_that_a_folder_takes(tmp_path, length):
    """A draft beside it, with a longer name, could not be written where the file itself could."""
    assert save(b"x", tmp_path / ("n" * length)).read_bytes() == b"x"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_device_stays_one(tmp_path):
    """As root, `--record /dev/null` would otherwise put a file in its place, for everybody."""
    os.mkfifo(tmp_path / "pipe")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    save(b"through", tmp_path / "pipe")
    reader.join(10)
    assert found == [b"through"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    save(b"x", Path("/dev/null"))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OutputError, match=r"/dev/full: cannot be written \(No space left on device\)"):
        save(b"x", Path("/dev/full"))


def test_a_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    for data in (b"first", b"second"):
        save(data, tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "file").read_bytes() == data


def test_a_folder_in_the_way(run, place):
    (place / "a.layerscope").mkdir()
    ran = run("weights", "net.pth", "--record", "a.layerscope")
    assert ran.code in (1, 2)
    assert "a.layerscope" in ran.err
    with pytest.raises(OutputError, match="directory"):
        save(b"x", place / "a.layerscope")


def test_many_writers_of_one_file(tmp_path):
    """The last one wins, and it is whole at every moment."""
    target, wrong, stop = tmp_path / "a", [], threading.Event()
    save(bytes(200_000), target)

    def watch() -> None:
        while not stop.is_set():
            data = target.read_bytes()
            if len(data) != 200_000 or len(set(data)) > 1:
                wrong.append(len(data))

    def write(value: int) -> None:
        for _ in range(40):
            save(bytes((value,)) * 200_000, target)

    watcher = threading.Thread(target=watch)
    writers = [threading.Thread(target=write, args=(value,)) for value in range(4)]
    for thread in (watcher, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    watcher.join()
    assert not wrong
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_interrupt_while_a_file_is_written(tmp_path, monkeypatch):
    write = Path.write_bytes

    def interrupted(self, data):
        write(self, data[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(b"x" * 100, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_record_is_saved_over_itself(tmp_path):
    """Its maps are read from the very file that is replaced."""
    path = a_record().save(tmp_path / "a.layerscope")
    load(path).save(path)
    assert (load(path)["conv"].maps[0].codes == a_record()["conv"].maps[0].codes).all()
