"""What people install: wheel and sdist hold what they need, run in an empty environment, and type-check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import layerscope

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "layerscope"
TYPING = ROOT / "tests" / "typing"
#: made by running, or fetched: no part of the project
MADE = {"__pycache__", "node_modules", "package-lock.json"}

pytestmark = pytest.mark.slow


def called(*command: object, cwd: Path = ROOT, **variables: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def below(*names: str) -> Iterator[str]:
    for name in names:
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and not MADE & set(path.parts) and path.suffix != ".pyc":
                yield path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> SimpleNamespace:
    """Both files as `make dist` makes them: the sdist first, and the wheel out of the sdist."""
    pytest.importorskip("build", reason="the extra dev")
    pytest.importorskip("hatchling", reason="the extra dev")
    folder = tmp_path_factory.mktemp("dist")
    called(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return SimpleNamespace(wheel=wheel, sdist=sdist)


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == {name.removeprefix("src/") for name in below("src")}
    assert {"layerscope/py.typed", "layerscope/web/index.html", "layerscope/web/main.js"} <= inside
    assert {f"layerscope/networks/{name}.json.gz" for name in ("digests", "signatures")} <= inside
    assert {name.rpartition("/")[2] for name in names if "/licenses/" in name} == {"LICENSE", "NOTICES.md"}
    assert f"\nVersion: {layerscope.__version__}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata


def test_the_sdist_holds_all_that_the_tests_read(built):
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    alone = {"pyproject.toml", "Makefile", "mkdocs.yml", "README.md", "README.zh.md", "CHANGELOG.md", "LICENSE"}
    assert {*below("src", "tests", "docs", "benchmarks", "verification"), *alone} - names == set()
    assert not any(MADE & set(name.split("/")) for name in names)


def test_the_tests_run_from_the_sdist(built, tmp_path):
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    some = [f"tests/{name}.py" for name in ("test_docs", "test_record", "test_weights", "test_html")]
    quick = ["-m", "not slow and not browser", "-p", "no:cacheprovider"]
    out = called(sys.executable, "-m", "pytest", *quick, *some, cwd=tree, PYTHONPATH=str(tree / "src"))
    assert re.search(r"^\d+ passed", out, re.M), out[-500:]


def test_the_wheel_works_in_an_empty_environment(built, checkpoint, tmp_path):
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    called(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", built.wheel, cwd=tmp_path)
    (site,) = home.glob("lib/python*/site-packages")
    # What it depends on is borrowed, after what is here: torch alone is gigabytes. A path in a .pth file runs no .pth
    # file that lies there, so that the project's own sources stay out of sight.
    borrowed = {str(Path(module.__file__).parents[1]) for module in map(__import__, ["numpy", "click", "torch"])}
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)))
    run = home / "bin" / "layerscope"
    where = called(python, "-c", "import layerscope; print(layerscope.__file__)", cwd=tmp_path, PYTHONPATH="")
    assert Path(where.strip()).is_relative_to(site)
    assert called(run, "--version", cwd=tmp_path, PYTHONPATH="") == f"layerscope, version {layerscope.__version__}\n"
    said = called(run, "weights", checkpoint, "--out", "pictures", cwd=tmp_path, PYTHONPATH="")
    assert "0.weight" in said
    assert len(list((tmp_path / "pictures").glob("*.png"))) > 3
    script = "import layerscope; r = layerscope.weights('net.pth'); r.to_html('net.html'); print(len(r))"
    assert int(called(python, "-W", "error", "-c", script, cwd=tmp_path, PYTHONPATH="")) == len(
        layerscope.weights(checkpoint)
    )
    assert (tmp_path / "net.html").stat().st_size > 100_000  # the page is in it


def test_a_users_program_is_checked_against_the_interface(tmp_path):
    pytest.importorskip("mypy", reason="the extra dev")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path)]
    done = subprocess.run([*command, "user.py", "wrong.py"], cwd=TYPING, capture_output=True, text=True, timeout=280)
    found = re.findall(r"^(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.M)
    wrong = (TYPING / "wrong.py").read_text().splitlines()
    wanted = [
        ("wrong.py", str(number), line.rpartition("# expect: ")[2])
        for number, line in enumerate(wrong, 1)
        if "# expect: " in line
    ]
    assert wanted
    assert found == wanted, done.stdout + done.stderr


def test_the_changelog_has_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+)\]?", text, re.M)
    assert versions
    assert versions[0] == layerscope.__version__
