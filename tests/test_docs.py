"""What the documentation tells people to type exists and runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from layerscope.cli import cli
from tests.conftest import picture

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def typed(page: Path) -> list[str]:
    """Every `layerscope ...` of a page's code, and of the help texts' examples."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    inline = re.findall(r"`(layerscope [a-z]+ [^`]+)`", text)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("layerscope ")] + inline


def examples() -> list[str]:
    found = []
    for command in cli.commands.values():
        found += re.findall(r"^ +(layerscope .+)$", command.help or "", re.M)
    return found


COMMANDS = sorted({line for page in PAGES for line in typed(page)} | set(examples()))


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_shown_can_be_typed(line):
    name, *arguments = shlex.split(line.partition(" | ")[0])[1:]
    if any(word.isupper() or word.endswith("...") for word in arguments):
        return  # a usage line with placeholders
    command = cli.commands[name]
    with command.make_context(name, arguments) as context:
        assert context.params


def test_there_are_enough_of_them():
    assert len(COMMANDS) > 30
    assert any("--freeze" in line for line in COMMANDS)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    from layerscope.networks.build import build

    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "tulip.jpg", 64, 64)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    space = {"model": build("torchvision:resnet18").eval(), "x": torch.randn(1, 3, 32, 32)}
    exec(code, space)
    assert space["record"]["layer1.0.conv1"].columns.mean.shape == (64,)
    assert list(space["seen"]) == [f"layer{i}.{j}.conv1" for i in range(1, 5) for j in range(2)]


def test_every_link_leads_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"
