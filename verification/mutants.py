"""Break the code on purpose, line by line, and count the breaks that the tests see: python -m verification.mutants

A mutant is one small change: a comparison with its neighbour, `+` for `-`, `and` for `or`, a number one more or less, a
condition turned round, a statement left out, `break` for `continue`. A random sample of each file's, the same for the
same seed, is tried in a copy of the project, with the tests that belong to the file. What no test sees survives.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src", "layerscope")

STATS = (
    "tests/test_stats_mutants.py tests/test_stats.py "
    "tests/test_stats_objects.py::test_what_does_not_fit_never_reaches_machine_code "
    "tests/test_stats_objects.py::test_numbers_of_bins_that_do_not_fit"
)
RECORD = (
    "tests/test_record_schemas.py tests/test_record_mutants.py tests/survey/test_record.py tests/test_record.py "
    "tests/attacks/test_records.py"
)
TORCH = (
    "tests/checkpoints/test_mutants.py tests/checkpoints/test_torch_files.py tests/checkpoints/test_door.py "
    "tests/checkpoints/test_pickles.py tests/checkpoints/test_bounds.py tests/checkpoints/test_pickle_machine.py "
    "tests/checkpoints/test_pickle_limits.py tests/checkpoints/test_archive.py"
)
OTHERS = "tests/checkpoints/test_mutants.py tests/checkpoints/test_{0}.py tests/checkpoints/test_door.py"
SURVEY = (
    "tests/test_stats_mutants.py tests/survey/test_accumulators.py tests/survey/test_meaning.py "
    "tests/survey/test_update.py"
)
ACCUMULATORS = ("exact", "histogram", "examples", "means", "similarity", "layer", "network")
#: the files that are broken, and the tests that should see it
TESTS = {
    **{f"stats/{name}.py": STATS for name in ("columns", "channels", "histogram", "tensors", "calls")},
    **{f"records/{name}.py": RECORD for name in ("record", "file", "profiles", "arrays", "schema")},
    **{f"checkpoints/{name}.py": TORCH for name in ("torch_zip", "torch_legacy", "storage/zip")},
    **{f"checkpoints/pickles/{name}.py": TORCH for name in ("machine", "builders")},
    **{f"checkpoints/{name}.py": OTHERS.format(name) for name in ("safetensors", "gguf", "onnx")},
    **{f"surveying/accumulators/{name}.py": SURVEY for name in ACCUMULATORS},
}

_COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
_OPERATED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
}  # fmt: skip
_REMOVED = (ast.AugAssign, ast.Raise, ast.Delete, ast.Assert)


class Mutant(NamedTuple):
    """A change of a file: bytes start to stop, which are in that line, become something else."""

    line: int
    start: int
    stop: int
    new: str

    def applied(self, text: bytes) -> bytes:
        return text[: self.start] + self.new.encode() + text[self.stop :]


def mutants(text: bytes) -> list[Mutant]:
    """All of a file's, in the order of the text."""
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    found = set()
    for node, new in _changes(ast.parse(text)):
        start = lines[node.lineno - 1] + node.col_offset
        stop = lines[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        found.add(Mutant(node.lineno, start, stop, new))
    return sorted(found)


def _changes(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Parts of a program and what they become."""
    for node in ast.iter_child_nodes(tree):
        if _silent(node):
            continue
        if isinstance(node, ast.expr):
            yield from ((node, f"({ast.unparse(one)})") for one in _expressions(node))
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            yield node.test, f"(not ({ast.unparse(node.test)}))"
        if isinstance(node, ast.comprehension):
            yield from ((test, f"(not ({ast.unparse(test)}))") for test in node.ifs)
        if isinstance(node, ast.Break | ast.Continue):
            yield node, "continue" if isinstance(node, ast.Break) else "break"
        if isinstance(node, _REMOVED) or (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Yield)):
            yield node, "pass"
        yield from _changes(node)


def _silent(node: ast.AST) -> bool:
    """What does nothing when the program runs, or is text for people: types, docstrings, messages, `__all__`."""
    if isinstance(node, ast.JoinedStr | ast.arg):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.AnnAssign):
        node.annotation = ast.Name("_")
    if isinstance(node, ast.FunctionDef):
        node.returns = None
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            for other in _COMPARED[type(operator)]:
                new = copy.deepcopy(node)
                new.ops[at] = other()
                yield new
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATED:
        yield ast.BinOp(node.left, _OPERATED[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield from (ast.Constant(node.value + step) for step in (1, -1))


def prepare(folder: Path) -> None:
    """A copy of the project, and this process as the one that all trials are forked from."""
    skip = shutil.ignore_patterns("*.pyc", "node_modules", ".hypothesis")
    for name in ("src", "tests", "verification"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", folder)
    os.chdir(folder)
    paths = [str(folder / "src"), str(folder)]
    sys.path[:0] = paths
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    # What every trial would import anew; nothing of this package.
    import hypothesis
    import safetensors.numpy
    import torch

    assert safetensors.numpy and torch
    # The first example that fails is enough, the smallest is not looked for.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile("mutants", phases=phases, database=None)
    hypothesis.settings.load_profile("mutants")


def trial(tests: list[str], limit_s: float, log: Path) -> str:
    """Run tests in a process of their own: "survived", "killed" or "timed out"."""
    child = os.fork()
    if not child:
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            import pytest

            wanted = [
                "-x",
                "-W",
                "ignore::pytest.PytestAssertRewriteWarning",
                "-p",
                "no:cacheprovider",
                "--hypothesis-seed=0",
                "-m",
                "not slow and not browser",
            ]
            code = int(pytest.main([*wanted, *tests]))
            sys.stdout.flush()
            os._exit(code)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(9)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if status == 0 else "killed"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timed out"


def sample(name: str, each: int, seed: int) -> list[Mutant]:
    every = mutants((ROOT / PACKAGE / name).read_bytes())
    return sorted(random.Random(f"{seed} {name}").sample(every, min(each, len(every))))


def measure(name: str, chosen: list[Mutant], folder: Path, limit_s: float) -> dict[str, list[str]]:
    """Outcome -> the mutants, as text. Raises RuntimeError where the tests fail without any."""
    tests = [one for one in TESTS[name].split() if (folder / one.partition("::")[0]).exists()]
    path, log = folder / PACKAGE / name, folder / "log"
    text = path.read_bytes()
    if trial(tests, 10 * limit_s, log) != "survived":
        raise RuntimeError(f"{name}: its tests fail as it is\n{log.read_text()[-2000:]}")
    found: dict[str, list[str]] = {"killed": [], "survived": [], "timed out": []}
    for one in chosen:
        path.write_bytes(one.applied(text))
        outcome = trial(tests, limit_s, log)
        old = " ".join(text[one.start : one.stop].decode().split())
        found[outcome].append(f"{one.line}: {old} -> {one.new}")
        if outcome != "killed":
            print(f"  {outcome} {name}:{found[outcome][-1]}", flush=True)
    path.write_bytes(text)
    return found


def rooms(report: Path) -> Iterator[str]:
    """Rows of a table from coverage.py's JSON, without kernels: room, statements, % run, branches, % taken."""
    sums: dict[str, Counter[str]] = {}
    for name, found in json.loads(report.read_text())["files"].items():
        inside = name.rpartition("layerscope/")[2].split("/")
        if inside[-1].endswith("kernels.py"):
            continue  # machine code when it runs
        room = f"{inside[0]}/" if len(inside) > 1 else "the files beside them"
        for key in (room, "all"):
            sums.setdefault(key, Counter()).update(found["summary"])
    for room, one in sorted(sums.items(), key=lambda pair: (pair[0] == "all", pair[0].startswith("the"), pair[0])):
        lines = 100 * one["covered_lines"] / max(one["num_statements"], 1)
        branches = f"{100 * one['covered_branches'] / one['num_branches']:.1f}" if one["num_branches"] else "none"
        yield f"| {room} | {one['num_statements']} | {lines:.1f} | {one['num_branches']} | {branches} |"


def main() -> int:
    """0 if every file's tests pass without a mutant, else 1; survivors are listed."""
    parser = argparse.ArgumentParser(prog="python -m verification.mutants", description=__doc__)
    parser.add_argument("files", nargs="*", help=f"of {', '.join(TESTS)}; all of them if none is named")
    parser.add_argument("--each", type=int, default=12, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=60, help="seconds for one mutant")
    parser.add_argument("--until", type=float, default=float("inf"), help="begin no file after so many seconds")
    parser.add_argument("--list", action="store_true", help="only say which mutants there are")
    parser.add_argument("--coverage", type=Path, metavar="JSON", help="only print coverage.py's report by rooms")
    options = parser.parse_args()
    if options.coverage:
        print("\n".join(rooms(options.coverage)))
        return 0
    names = options.files or list(TESTS)
    if options.list:
        for name in names:
            for one in sample(name, options.each, options.seed):
                print(f"{name}:{one.line}: {one.new}")
        return 0
    begun, whole, failed = time.monotonic(), Counter[str](), 0
    os.nice(10)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        chosen = {name: sample(name, options.each, options.seed) for name in names}
        prepare(folder)
        for name in names:
            if time.monotonic() - begun > options.until:
                break
            start = time.monotonic()
            try:
                found = measure(name, chosen[name], folder, options.limit)
            except RuntimeError as error:
                print(error, file=sys.stderr, flush=True)
                failed = 1
                continue
            counts = {outcome: len(all) for outcome, all in found.items()}
            whole.update(counts)
            print(f"| `{name}` | {sum(counts.values())} | {' | '.join(map(str, counts.values()))} |", flush=True)
            print(f"  {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        os.chdir(ROOT)
    print(json.dumps(whole))
    return failed


if __name__ == "__main__":
    sys.exit(main())
