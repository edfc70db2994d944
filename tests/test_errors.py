"""Bad input: one line on standard error that names the file, the value and the next step; exit code 1; no traceback."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from layerscope import errors
from layerscope.text import nearest
from tests.conftest import picture

ROOT = os.geteuid() == 0


def test_the_tree_in_the_docstring_is_that_of_the_classes():
    drawn, above = {}, []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)(\w+) {2,}\S", line):
            depth = len(found[1]) // 4
            above = [*above[:depth], found[2]]
            drawn[found[2]] = above[-2] if depth else "Exception"
    classes = {name: one for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert drawn == {name: one.__bases__[0].__name__ for name, one in classes.items()}
    assert set(errors.__all__) == {*classes, "writing"}


def test_no_error_for_users_stands_outside_of_the_tree():
    for path in Path(errors.__file__).parent.rglob("*.py"):
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        names = {base.id for node in classes for base in node.bases if isinstance(base, ast.Name)}
        # Of the server's worker: it never leaves the server.
        assert path.name in ("errors.py", "worker.py") or not names & set(errors.__all__), path


def test_what_a_record_does_not_have_is_a_key_error_without_its_quotes():
    error = errors.NoEntry("'a' is not in this record")
    assert isinstance(error, errors.RecordError) and isinstance(error, KeyError)
    assert str(error) == "'a' is not in this record"


def bad_checkpoints(folder: Path) -> dict[str, str]:
    """name of the file -> words that its error must have"""
    torch.save({"weight": torch.randn(100, 100)}, folder / "whole.pth")
    (folder / "cut.pth").write_bytes((folder / "whole.pth").read_bytes()[:9000])
    (folder / "empty.pth").touch()
    (folder / "text.pth").write_text("these are no weights\n")
    (folder / "folder.pth").mkdir()
    picture(folder / "photo.pth.png", 8, 8).rename(folder / "photo.pth")
    return {
        "cut.pth": "truncated",
        "empty.pth": "empty",
        "text.pth": "text",
        "folder.pth": "folder",
        "photo.pth": "image",
        "none.pth": "does not exist",
    }


def test_bad_checkpoints(run, tmp_path, photo):
    for name, words in bad_checkpoints(tmp_path).items():
        for command in (["weights", name], ["features", name, photo], ["layers", name], ["compare", name, name]):
            ran = run(*command)
            assert ran.code == 1, (command, ran.err)
            assert words in ran.line and name in ran.line, ran.line
            assert ran.out == ""


def test_bad_images(run, code, tmp_path):
    picture(tmp_path / "whole.jpg", 300, 300)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    for name, words in {"cut.jpg": "cut off", "none.jpg": "no such image"}.items():
        ran = run("features", f"{code}:small", name)
        assert ran.code == 1
        assert words in ran.line and name in ran.line


def test_nearest_names_are_told_as_a_terminal_takes_them():
    assert nearest("conv1", ["co\x1bnv1", "con\ud8001"]) == "; nearest: co?nv1, con?1"
    assert len(nearest("conv1" * 1000, ["conv1" * 1000, "other"])) < 250


def test_a_second_layer_without_its_option_is_no_image(run, code, photo):
    ran = run("features", f"{code}:small", photo, "--layers", "stem", "head")
    assert (ran.code, ran.out) == (1, "")
    assert ran.line == "layerscope: head: no such image; check the path. If it is a layer, put --layers in front of it"


def test_odd_images_work(run, code, tmp_path):
    one = Image.new("RGB", (1, 1), "red")
    one.save(tmp_path / "one.png")
    for mode in ("CMYK", "L", "P", "I;16"):
        image = Image.new("I;16", (9, 7), 40000) if mode == "I;16" else one.resize((9, 7)).convert(mode)
        image.save(tmp_path / f"{mode[0]}.tiff")
    Image.new("RGBA", (9, 7), (9, 9, 9, 9)).save(tmp_path / "rgba.png")
    names = ["one.png", "C.tiff", "L.tiff", "P.tiff", "I.tiff", "rgba.png"]
    document = run("features", f"{code}:small", *names, "--size", 32, "--json").json
    assert document["images"] == names
    assert document["layers"][0]["shape"] == [6, 6, 16, 16]


def test_a_network_that_raises_inside_forward(run, code, photo):
    for command in (["features", f"{code}:Broken", photo], ["layers", f"{code}:Broken"]):
        ran = run(*command)
        assert ran.code == 1
        assert "forward raised ValueError on an input of shape (1, 3, 224, 224): expected a sequence, got" in ran.line


def test_a_glob_that_matches_no_layer(run, code, photo):
    ran = run("features", f"{code}:small", photo, "--layers", "blok*")
    assert ran.code == 1
    assert "no layer matches 'blok*'; nearest: block" in ran.line


@pytest.mark.parametrize("option", ["--out", "--record", "--csv"])
def test_a_folder_that_cannot_be_written(run, checkpoint, tmp_path, option):
    # Root may write anywhere but into a file, so the folder here is a file.
    (tmp_path / "file").touch()
    ran = run("weights", checkpoint, option, "file/below")
    assert ran.code in (1, 2)
    assert "Traceback" not in ran.err
    assert "file/below" in ran.err


def test_a_full_disk_leaves_nothing_half_written(run, checkpoint, tmp_path, monkeypatch):
    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for option, name in (("--record", "a.layerscope"), ("--csv", "a.csv"), ("--out", "out")):
        ran = run("weights", checkpoint, option, name)
        assert ran.code == 1
        assert "No space left on device" in ran.line and name in ran.line
    assert not [
        path for path in tmp_path.rglob("*") if path.suffix == ".part" or path.name in ("a.layerscope", "a.csv")
    ]


def test_wrong_usage_is_2(run, checkpoint, code, photo):
    assert run("weights").code == 2
    assert run("weights", checkpoint, "--no-such-option").code == 2
    assert run("weights", checkpoint, "--bins", "0").code == 2
    assert run("features", f"{code}:small", photo, "--channels", "none").code == 2
    assert run("layers", f"{code}:small", "--input", "3xfoo").code == 2
    assert run("nothing").code == 2


def test_names_in_a_file_cannot_steer_the_terminal(run, tmp_path):
    torch.save({"\x1b[2Jevil[bold]\nname": torch.ones(3)}, tmp_path / "a.pth")
    ran = run("weights", "a.pth", "--out", "out")
    assert ran.code == 0
    assert "\x1b" not in ran.out + ran.err
    ran = run("weights", "a.pth", "--match", "\x1b[2J*x")
    assert "\x1b" not in ran.err


def test_ctrl_c_is_130_and_leaves_nothing_behind(tmp_path):
    # A real process and a real signal: the pass runs in a loop that never ends by itself.
    (tmp_path / "slow.py").write_text(
        "import time, torch\n"
        "class Slow(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n"
        "        x = self.conv(x)\n"
        "        open('started', 'w').close()\n"
        "        while True:\n"
        "            time.sleep(0.01)\n"
    )
    picture(tmp_path / "a.png", 16, 16)
    command = [sys.executable, "-m", "layerscope", "features", "slow.py:Slow", "a.png", "--out", "out", "--record", "r"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err and "layerscope: interrupted" in err
    assert not (tmp_path / "out").exists() and not (tmp_path / "r").exists()
