"""What a newcomer adds, and what it takes: one thing of each kind in a copy of the package, used as a user would.

The number of files and lines is what the table in docs/architecture.md says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import layerscope

SOURCE = Path(layerscope.__file__).parent
TABLE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text().split("## Where a newcomer adds things")[1]


@dataclass
class Addition:
    """`file` and its text; `lines`: in which file, behind which line, what is put."""

    file: str = ""
    text: str = ""
    lines: list[tuple[str, str, str]] = field(default_factory=list)


FORMAT = Addition(
    "checkpoints/plain_text.py",
    '''"""A tensor a line: its name and its numbers."""

import numpy as np

from layerscope.checkpoints.base import Checkpoint, Listing, TensorSpec


def sniff(head, path):
    return head.startswith(b"#tensors")


def open(path):
    listing = Listing()
    for line in path.read_text().splitlines()[1:]:
        name, *numbers = line.split()
        values = np.array(numbers, np.float32)
        listing.add(TensorSpec(name, values.shape, "float32"), values.copy)
    return Checkpoint(path, "plain text", listing.specs, listing.loaders)
''',
    [
        ("checkpoints/__init__.py", "from pathlib import", "from layerscope.checkpoints import plain_text"),
        ("checkpoints/__init__.py", "READERS: dict[str, Reader] = {", '    "plain_text": plain_text,'),
    ],
)
STATISTIC = Addition(
    lines=[
        (
            "stats/table.py",
            "STATISTICS: list[Statistic] = [",
            '    Statistic("rms", "rms", "float", "root of the mean square",'
            " lambda c: np.sqrt(c.m2 / np.maximum(c.count, 1) + c.mean**2), brief=True),",
        )
    ]
)
VIEW = Addition(
    "views/names.py",
    '''"""The keys of a record, a line each."""

from pathlib import Path

from layerscope.files import save


def write(record, path):
    return save("\\n".join(record).encode(), Path(path))
''',
    [("views/__init__.py", "VIEWS: dict[str, View] = {", '    "names": View("names", "write", "file"),')],
)
COMMAND = Addition(
    "commands/count.py",
    '''"""The command `layerscope count`."""

import click


@click.command()
@click.argument("checkpoint")
def count(checkpoint):
    """How many tensors a checkpoint has."""
    from layerscope.checkpoints import open_checkpoint

    click.echo(len(open_checkpoint(checkpoint).specs))
''',
    [("cli.py", "COMMANDS = {", '    "count": "How many tensors a checkpoint has.",')],
)
PANEL = Addition(
    "web/planted.js",
    """// How many layers there are, below everything.

/** @param {Store} store */
export function setUpPlanted(store) {
  const panel = document.createElement("p");
  panel.id = "planted";
  document.body.append(panel);
  store.on("index", () => { panel.textContent = `${store.state.index?.layers.length ?? 0} planted`; });
}
""",
    [
        ("web/main.js", 'import { Stage } from "./stage.js";', 'import { setUpPlanted } from "./planted.js";'),
        ("web/main.js", "  setUpHelp();", "  setUpPlanted(store);"),
    ],
)
ENGINE = Addition(
    "surveying/running/backwards.py",
    '''"""The last chunk first, in this process."""

from layerscope.surveying.running.worker import Worker


def backwards(job, chunks, setup):
    yield from Worker(job).measure(sorted(chunks, reverse=True), setup.passed)
''',
    [
        (
            "surveying/running/run.py",
            "from layerscope.progress import",
            "from layerscope.surveying.running.backwards import backwards",
        ),
        ("surveying/running/run.py", "ENGINES: dict[str, Engine] =", 'ENGINES["backwards"] = backwards'),
    ],
)
THINGS = {
    "format of checkpoints": FORMAT,
    "statistic": STATISTIC,
    "view": VIEW,
    "command": COMMAND,
    "panel of the page": PANEL,
    "engine": ENGINE,
}


def grown(folder: Path, addition: Addition) -> Path:
    """A copy of the package with what is added."""
    shutil.copytree(SOURCE, folder / "layerscope", ignore=shutil.ignore_patterns("*.pyc"))
    if addition.file:
        path = folder / "layerscope" / addition.file
        assert not path.exists()
        path.write_text(addition.text)
    for name, behind, line in addition.lines:
        path = folder / "layerscope" / name
        lines = path.read_text().splitlines()
        (place,) = [number for number, text in enumerate(lines) if text.startswith(behind)]
        lines.insert(place + 1, line)
        path.write_text("\n".join(lines) + "\n")
    return folder


def ran(folder: Path, *arguments: object, code: str = "") -> str:
    """What `layerscope ARGUMENTS`, or Python code, prints with that copy."""
    command = ["-c", code] if code else ["-m", "layerscope", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)}, path)
    return path


@pytest.mark.parametrize("thing", THINGS)
def test_the_documentation_says_what_it_takes(thing):
    (row,) = re.findall(rf"^\| {thing} \| (\d+) \| (\d+) \|", TABLE, re.M)
    assert row == (str(int(bool(THINGS[thing].file))), str(len(THINGS[thing].lines)))
    assert len(re.findall(r"^\| [a-z][a-z ]+ \| \d+ \| \d+ \|", TABLE, re.M)) == len(THINGS)


def test_a_format(tmp_path):
    (tmp_path / "a.txt").write_text("#tensors\nbias 1 2 3\nscale 4 6\n")
    document = json.loads(ran(grown(tmp_path, FORMAT), "weights", "a.txt", "--json"))
    assert document["format"] == "plain text"
    assert {tensor["name"]: tensor["mean"] for tensor in document["tensors"]} == {"bias": 2.0, "scale": 5.0}


def test_a_statistic(tmp_path, checkpoint):
    grown(tmp_path, STATISTIC)
    document = json.loads(ran(tmp_path, "weights", checkpoint, "--json", "--csv", "a.csv"))
    right = float(np.sqrt(np.mean(np.arange(24.0) ** 2)))
    assert document["tensors"][0]["rms"] == pytest.approx(right, rel=1e-12)
    assert "rms" in (tmp_path / "a.csv").read_text().splitlines()[0].split(",")
    assert "rms" in ran(tmp_path, "weights", checkpoint)


def test_a_view(tmp_path, checkpoint):
    grown(tmp_path, VIEW)
    code = "import layerscope; from layerscope.views import VIEWS\n"
    code += f"print(VIEWS['names'].write(layerscope.weights({str(checkpoint)!r}), 'names.txt'))"
    assert "names.txt" in ran(tmp_path, code=code)
    assert (tmp_path / "names.txt").read_text() == "conv.weight"


def test_a_command(tmp_path, checkpoint):
    grown(tmp_path, COMMAND)
    assert ran(tmp_path, "count", checkpoint) == "1\n"
    assert "How many tensors" in ran(tmp_path, "--help")


def test_an_engine(tmp_path):
    grown(tmp_path, ENGINE)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    command = ["survey", "torchvision:squeezenet1_1", "photos", "--size", "64", "--layers", "features.0", "--json"]
    document = json.loads(ran(tmp_path, *command, "--engine", "backwards"))
    assert document["images"] == 3
