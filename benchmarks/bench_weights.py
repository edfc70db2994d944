"""`layerscope weights` as a whole command against a script that does the tutorial's loop.

python benchmarks/bench_weights.py [--repeats 5]

The checkpoint is torchvision's AlexNet, 233 MiB, random weights. Both are started as commands, one after the other;
CPU time of the process and its threads, median. The first run of each, which fills the file cache, is not counted.
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


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "AlexNet.pth"
        torch.save(torchvision.models.alexnet().state_dict(), checkpoint)
        commands = {
            "the tutorial's loop (torch.load, numpy)": [sys.executable, "-c", TUTORIAL, str(checkpoint)],
            "layerscope weights": [sys.executable, "-m", "layerscope", "weights", str(checkpoint)],
            "layerscope weights --out (24 pictures)": [
                sys.executable, "-m", "layerscope", "weights", str(checkpoint), "--out", folder
            ],
        }  # fmt: skip
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for repeat in range(repeats + 1):
            for name, command in commands.items():
                spent = cpu(command)
                if repeat:
                    seconds[name].append(spent)
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    base = next(iter(medians.values()))
    print("| AlexNet, 233 MiB | CPU s | ratio |\n| --- | --- | --- |")
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} | {median / base:.2f} |")


if __name__ == "__main__":
    main()
