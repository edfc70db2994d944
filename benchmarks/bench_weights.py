"""`layerscope weights` as a whole command against a script that does the tutorial's loop.

python benchmarks/bench_weights.py [--repeats 5]

The checkpoint is torchvision's AlexNet, 233 MiB, random weights. Both are started as commands, one after the other;
CPU time of the process and its threads, median. The first run of each, which fills the file cache, is not counted.
The second table: the same command where no folder keeps the compiled kernels, on that file and on a small one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torchvision

TUTORIAL = """
import sys
import numpy as np
import torch

state = torch.load(sys.argv[1])
for key in state:
    if "num_batches_tracked" in key:
        continue
    weight = state[key].numpy()
    print(key, weight.mean(), weight.std(ddof=1), weight.min(), weight.max())
    np.histogram(np.reshape(weight, [-1]), bins=50)
"""


def cpu(command: list[str]) -> float:
    """Seconds of CPU time of a command, its own and the system's."""
    # As installed: where this is set, an editable install is compiled at every start, 0.05 s.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = os.times()
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


#: `layerscope` where every folder for the compiled kernels is one that cannot be made
CLOSED = """
import os
from pathlib import Path
from layerscope.stats import cache
cache._folders = lambda: iter([Path(os.devnull, "folder")])
from layerscope.cli import main
main()
"""
COMMAND = "from layerscope.cli import main; main()"


def medians(commands: dict[str, list[str]], repeats: int) -> dict[str, float]:
    """CPU seconds of each command, started in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for repeat in range(repeats + 1):
        for name, command in commands.items():
            spent = cpu(command)
            if repeat:
                seconds[name].append(spent)
    return {name: statistics.median(spent) for name, spent in seconds.items()}


def table(title: str, found: dict[str, float]) -> None:
    """Print a Markdown table; the first row is the base of the ratios."""
    base = next(iter(found.values()))
    print(f"| {title} | CPU s | ratio |\n| --- | --- | --- |")
    for name, median in found.items():
        print(f"| {name} | {median:.2f} | {median / base:.2f} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "AlexNet.pth", Path(folder) / "small.pth"
        torch.save(torchvision.models.alexnet().state_dict(), large)
        torch.save({"conv.weight": torch.randn(64, 3, 7, 7), "conv.bias": torch.zeros(64)}, small)
        commands = {
            "the tutorial's loop (torch.load, numpy)": [sys.executable, "-c", TUTORIAL, str(large)],
            "layerscope weights": [sys.executable, "-m", "layerscope", "weights", str(large)],
            "layerscope weights --out (24 pictures)": [
                sys.executable, "-m", "layerscope", "weights", str(large), "--out", folder
            ],
        }  # fmt: skip
        table("AlexNet, 233 MiB", medians(commands, repeats))
        for title, file in (("two tensors, 38 KB", small), ("AlexNet, 233 MiB", large)):
            commands = {
                "layerscope weights": [sys.executable, "-c", COMMAND, "weights", str(file)],
                "the same, no folder keeps the kernels": [sys.executable, "-c", CLOSED, "weights", str(file)],
            }
            print()
            table(title, medians(commands, repeats))


if __name__ == "__main__":
    main()
