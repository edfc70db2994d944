"""This build against another one: the same work in processes that take turns, CPU time as the median of the ratios.

    python benchmarks/builds.py --against ../layerscope-0.1.0/src [--rounds 9] [--only features,weights]

Each process warms up, then does the work once with its clock running: process time, of all threads, without imports.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

START = """
import io, os, sys, tempfile, time, warnings
warnings.simplefilter("ignore")
import numpy as np
"""
NETWORK = """
import torch, layerscope
from torch import nn
from layerscope.networks.build import build
torch.set_num_threads(1)
torch.manual_seed(0)
model = build("torchvision:{name}").eval()
x = torch.randn({batch}, 3, 224, 224)
"""
CLOCK = """
work()
began = time.process_time()
for _ in range({times}):
    work()
print(time.process_time() - began)
"""
#: name -> what is set up, what is done, how often
WORK = {
    "features, ResNet-34, batch 1, maps": (NETWORK, "layerscope.features(model, x)", 6, ("resnet34", 1)),
    "features, ResNet-34, batch 16": (NETWORK, "layerscope.features(model, x, maps=False)", 1, ("resnet34", 16)),
    "features, MobileNetV2, batch 1": (NETWORK, "layerscope.features(model, x, maps=False)", 12, ("mobilenet_v2", 1)),
    "weights, ResNet-34's file": (
        NETWORK + "path = os.path.join(tempfile.mkdtemp(), 'a.pth'); torch.save(model.state_dict(), path)\n",
        "layerscope.weights(path)",
        3,
        ("resnet34", 1),
    ),
    "survey, ResNet-18, 48 images": (
        NETWORK
        + "from PIL import Image\nfolder = tempfile.mkdtemp()\n"
        + "for n in range(48):\n    Image.fromarray(np.random.default_rng(n).integers(0, 256, (224, 224, 3), np.uint8))"
        + ".save(os.path.join(folder, f'{{n}}.png'))\n",
        "layerscope.survey(model, folder)",
        1,
        ("resnet18", 1),
    ),
    "watch, ResNet-18, 6 steps, every=1": (
        NETWORK + "optimizer = torch.optim.SGD(model.parameters(), 1e-3)\nx = torch.randn(8, 3, 64, 64)\n",
        "step()",
        2,
        ("resnet18", 1),
    ),
    "viewer, index and blocks of ResNet-34": (
        NETWORK
        + "record = layerscope.features(model, x)\ntry:\n    from layerscope.views import format as viewer\n"
        + "except ImportError:\n    from layerscope.views import wire as viewer\n",
        "[viewer.block(entry, 0) for entry in record.entries.values()], viewer.index(record)",
        10,
        ("resnet34", 1),
    ),
}
STEP = """
def step():
    with layerscope.watch(model, tempfile.mkdtemp(), every=1, tensorboard=False, say=lambda line: None):
        for _ in range(6):
            optimizer.zero_grad()
            model.train()(x).square().mean().backward()
            optimizer.step()
"""


def seconds(source: Path, name: str) -> float:
    """CPU seconds of one process that does the work with the package in `source`."""
    setup, work, times, (network, batch) = WORK[name]
    code = START + setup.format(name=network, batch=batch) + (STEP if work == "step()" else "")
    code += f"def work():\n    {work}\n" + CLOCK.format(times=times)
    env = os.environ | {"PYTHONPATH": str(source)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print one row a piece of work: CPU seconds of both builds, and the median ratio with its range."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="src/ of the other build")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="only what begins with one of these, with commas between them")
    options = parser.parse_args()
    print("| work | that build, CPU s | this build, CPU s | ratio, median | range |\n| --- | --- | --- | --- | --- |")
    for name in WORK:
        if options.only and not name.startswith(tuple(options.only.split(","))):
            continue
        pairs = []
        for turn in range(options.rounds):
            order = [options.against, ROOT / "src"][:: 1 if turn % 2 else -1]
            found = {source: seconds(source, name) for source in order}
            pairs.append((found[options.against], found[ROOT / "src"]))
        theirs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = sorted(ours / theirs for theirs, ours in pairs)
        middle = statistics.median(ratios)
        print(
            f"| {name} | {theirs:.3f} | {ours:.3f} | {middle:.3f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
