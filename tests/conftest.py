"""Tiny random networks, pictures made on the spot, and the command line called as a user would call it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from layerscope import cli


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """CI fails where something was skipped: what may be missing elsewhere is there. No machine of CI has CUDA."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [str(report.longrepr) for report in reporter.stats.get("skipped", [])] if reporter else []
    missed = [reason for reason in skipped if "no CUDA device" not in reason]
    if missed and os.environ.get("LAYERSCOPE_SKIP_NOTHING"):
        print("\nskipped, though LAYERSCOPE_SKIP_NOTHING is set:", *missed, sep="\n", file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny networks: on cores that others use as well, threads that wait for each other cost more than they gain."""
    torch.set_num_threads(1)


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The one line of an error."""
        lines = [line for line in self.err.splitlines() if line.startswith("layerscope: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """run("weights", "x.pth", "--json") in a folder of its own -> exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["layerscope", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        captured = capsys.readouterr()
        return Ran(int(done.value.code or 0), captured.out, captured.err)

    return call


CODE = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.relu(self.conv(x)) + x)


class Small(nn.Module):
    def __init__(self, inplace=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace)
        self.block = Block()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 4)
        self.spare = nn.Linear(6, 4)

    def forward(self, x):
        x = self.block(self.act(self.bn(self.stem(x))))
        return self.head(self.pool(x).flatten(1))


def small():
    torch.manual_seed(0)
    return Small()


class Broken(Small):
    def forward(self, x):
        raise ValueError("expected a sequence,\\ngot an image")
"""


@pytest.fixture
def code(tmp_path) -> Path:
    """A file of a user's own networks: small (runs), Broken (raises in forward)."""
    path = tmp_path / "nets.py"
    path.write_text(CODE)
    return path


@pytest.fixture
def photo(tmp_path) -> Path:
    """A picture of 48 x 40 with structure in it."""
    return picture(tmp_path / "photo.png", 48, 40)


def picture(path: Path, width: int, height: int, seed: int = 0, **options: Any) -> Path:
    rows, cols = np.mgrid[0:height, 0:width]
    rng = np.random.default_rng(seed)
    pixels = np.stack([rows * 5, cols * 4, rng.integers(0, 255, (height, width))], 2) % 256
    Image.fromarray(pixels.astype(np.uint8)).save(path, **options)
    return path


@pytest.fixture
def small() -> nn.Module:
    space: dict[str, Any] = {}
    exec(CODE, space)
    return space["small"]()


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A state dict with convolution, batch norm and linear tensors, trained for one batch."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    net(torch.randn(4, 3, 12, 12))
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    return path
