"""The rules of docs/architecture.md and the promises of the package, checked on the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import layerscope
from layerscope.cli import COMMANDS, commands

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "layerscope"

#: a file imports only from lower levels, and from its own package
LEVELS = {
    "_version": 0, "errors": 0, "dtypes": 0, "text": 0, "progress": 0,
    "files": 1, "stats": 1,
    "records": 2, "images": 2,
    "activations": 3, "tensors": 3, "checkpoints": 3,
    "networks": 4, "views": 4,
    "inspection": 5,
    "comparison": 6, "units": 6, "watching": 6,
    "training": 7, "server": 7, "surveying": 7,
    "__init__": 8,
    "commands": 9,
    "cli": 10,
    "__main__": 11,
}  # fmt: skip
#: never import torch, not even indirectly
WITHOUT_TORCH = ["errors", "dtypes", "text", "progress", "files", "stats", "records.record", "records.file",
                 "records.units", "records.kinds", "images.files", "tensors", "checkpoints", "inspection", "comparison",
                 "views.png", "views.figure", "views.terminal", "views.documents", "views.unit", "views.format",
                 "views.html", "views.notebook", "watching", "watching.run", "networks.identify", "networks.feeding",
                 "server", "cli", "commands.demo"]  # fmt: skip


def room(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path, top: bool = False) -> set[str]:
    """Rooms of this package that a file imports; `top`: outside of functions and TYPE_CHECKING alone."""
    tree = ast.parse(path.read_text())
    found = set()
    skipped = (
        {id(node) for part in ast.walk(tree) if isinstance(part, ast.If) for node in ast.walk(part)} if top else set()
    )
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("layerscope."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "layerscope":
            found.update(alias.name for alias in node.names)
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_from_lower_levels(path):
    here = room(path)
    assert here in LEVELS, f"{here} has no level: add it here and to docs/architecture.md"
    for other in imports(path) - {here}:
        assert other in LEVELS, f"{other} is no room"
        assert LEVELS[other] < LEVELS[here], f"{here} imports {other}"


def module_of(path: Path) -> str:
    return ".".join(("layerscope", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def imported_files(path: Path, modules: set[str]) -> set[str]:
    """Modules of this package that a file imports anywhere, in functions and for types too."""
    here = module_of(path).split(".") + (["__init__"] if path.name == "__init__.py" else [])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: -node.level] if node.level else []
            start = ".".join([*above, *filter(None, [node.module])])
            names = {f"{start}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else start for name in names}
    return found & modules - {module_of(path)}


def test_no_file_imports_itself_through_others():
    modules = {module_of(path) for path in FILES}
    arrows = {module_of(path): imported_files(path, modules) for path in FILES}
    assert sum(map(len, arrows.values())) > 2 * len(FILES), "this test sees no imports"
    free: set[str] = set()
    while freed := {name for name in arrows if name not in free and arrows[name] <= free}:
        free |= freed
    # What is left is in a circle, or imports one; most of the latter go once nothing imports them.
    left = {name: arrows[name] - free for name in arrows if name not in free}
    while outer := set(left) - set().union(*left.values()):
        left = {name: arrows for name, arrows in left.items() if name not in outer}
    assert not left, f"a circle of imports: {sorted(left)}"


def test_every_level_is_in_the_documentation():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for name in LEVELS:
        assert f"`{name}" in text or name.startswith("_"), name


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_modules_that_start_without_torch(module):
    script = f"import sys, layerscope.{module}; print([m for m in ('torch', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_help_and_weights_start_without_torch(checkpoint):
    script = "import sys; from layerscope.cli import cli; cli({}, standalone_mode=False); print('torch' in sys.modules)"
    for arguments in (["--help"], ["weights", "--help"], ["weights", str(checkpoint)]):
        done = subprocess.run([sys.executable, "-c", script.format(arguments)], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "False", done.stderr


#: what users can count on: what is added has to be meant, what goes is a promise broken
DOOR = [
    "CheckpointError", "DeviceError", "Diverged", "EngineError", "ForwardError", "ImageError", "LayerscopeError",
    "NetworkError", "NoEntry", "NoMatch", "OutputError", "Record", "RecordError", "UsageError", "__version__",
    "capture", "compare", "errors", "evidence", "features", "layers", "load", "open_checkpoint", "survey", "train",
    "unit", "view", "watch", "weights",
]  # fmt: skip


def test_the_door_is_what_users_count_on():
    assert sorted(layerscope.__all__) == sorted(DOOR)
    assert set(layerscope.errors.__all__) - {"writing"} <= set(DOOR), "every error that users may catch"


def test_all_that_is_exported_is_there_and_nothing_else_has_its_name():
    assert dir(layerscope) == sorted(layerscope.__all__)
    for name in sorted(set(layerscope.__all__) - {"errors"}):
        assert getattr(layerscope, name) is not None
        # `import layerscope.NAME` would replace the function of that name by the module.
        assert name.startswith("_") or (not (SOURCE / f"{name}.py").exists() and not (SOURCE / name).is_dir())
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        layerscope.nothing  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_what_it_is_and_what_it_gives(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module has a docstring"
    public = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    for node in public:
        assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_every_command_and_option_is_in_the_documentation():
    text = (ROOT / "docs" / "commands.md").read_text()
    for name, command in commands().items():
        assert f"## {name}" in text, name
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert f"`{option}" in section, f"{name} {option}"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_has_an_example_or_needs_none(run, name):
    ran = run(name, "--help")
    assert ran.code == 0
    assert "Examples:" in ran.out or name == "demo"
