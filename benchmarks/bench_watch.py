"""What a watched training costs: CPU time, interleaved in one process, medians of ratios.

python benchmarks/bench_watch.py [--repeats 15] [--threads 1] [--peers]

First all tensors of ResNet-34 into TensorBoard, ours against `SummaryWriter.add_histogram`, with the sizes of the
files. Then training steps of ResNet-34 at batch 8 and 64 px with Adam, plain and watched in turn, each pair of steps
divided by the mean of the plain pairs before and after it; `nothing` is a plain pair as well, and says how far noise
goes. `--peers`: `wandb.watch` as well, offline, if it is installed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import layerscope
from layerscope.networks.build import build
from layerscope.views.tensorboard import EventFile, histogram
from layerscope.watching.tensors import described


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU time, of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def size(folder: str) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def weights(model: nn.Module, repeats: int) -> None:
    """All weights once into TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    def ours(folder: str) -> None:
        file = EventFile(folder)
        found = (histogram(f"weights/{entry.key}", entry) for entry in described(model.state_dict().items()))
        file.add(1, [one for one in found if one])
        file.close()

    def theirs(folder: str) -> None:
        writer = SummaryWriter(folder)
        for name, tensor in model.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                writer.add_histogram(f"weights/{name}", tensor, 1)
        writer.close()

    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats + 1):
            for name, work in (("theirs", theirs), ("ours", ours)):
                time.sleep(0.3)  # until threads that theirs has left spinning sleep
                place = f"{folder}/{name}{number}"
                seconds = cpu(lambda work=work, place=place: work(place))  # type: ignore[misc]
                if number:  # the first is not counted
                    times[name].append(seconds)
                sizes[name] = size(place)
    ratio = statistics.median(a / b for a, b in zip(times["theirs"], times["ours"], strict=True))
    print("| all weights of ResNet-34, once | CPU ms | KB |\n| --- | --- | --- |")
    for name, title in (("theirs", "SummaryWriter.add_histogram"), ("ours", "layerscope")):
        print(f"| {title} | {statistics.median(times[name]) * 1e3:.0f} | {sizes[name] / 1e3:.0f} |")
    print(f"| times cheaper | {ratio:.1f} | {sizes['theirs'] / sizes['ours']:.1f} |", flush=True)


@contextmanager
def wandb_watch(model: nn.Module) -> Iterator[Any]:
    """The peer: gradients and weights at every step."""
    os.environ["WANDB_MODE"], os.environ["WANDB_SILENT"] = "offline", "true"
    import wandb

    with tempfile.TemporaryDirectory() as folder, wandb.init(project="bench", dir=folder) as run:
        run.watch(model, log="all", log_freq=1)
        try:
            yield run
        finally:
            run.unwatch(model)


def variants(folder: str, peers: bool) -> dict[str, Callable[[nn.Module], AbstractContextManager]]:
    """heading -> what the steps are run in."""
    number = iter(range(10**6))
    probe = torch.randn(4, 3, 64, 64)

    def watched(**options: Any) -> Callable[[nn.Module], AbstractContextManager]:
        return lambda model: layerscope.watch(model, f"{folder}/{next(number)}", graph=False, **options)

    found = {
        "nothing": lambda model: nullcontext(),
        "not chosen, gradients tested": watched(every=lambda step: False),
        "not chosen, nan_every=0": watched(every=lambda step: False, nan_every=0),
        "chosen: weights and gradients": watched(every=1, activations=False, updates=False),
        "chosen: and the update": watched(every=1, activations=False),
        "chosen: and activations": watched(every=1),
        "chosen: and a probe of 4 images": watched(every=1, probe=probe),
    }
    return found | {"wandb.watch(log='all', log_freq=1)": wandb_watch} if peers else found


def training(model: nn.Module, repeats: int, peers: bool) -> None:
    """Two steps, plain and watched in turn; an unmeasured one before them."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-5)
    images, targets = torch.randn(8, 3, 64, 64), torch.randint(0, 1000, (8,))

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(images), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def pair(context: AbstractContextManager) -> float:
        with context as within:

            def work() -> None:
                step()
                if hasattr(within, "unwatch"):
                    within.log({"loss": 0.0})

            work()
            return cpu(lambda: (work(), work()))

    with tempfile.TemporaryDirectory() as folder:
        makes = variants(folder, peers)
        ratios: dict[str, list[float]] = {name: [] for name in makes}
        before = pair(nullcontext())
        for _ in range(repeats):
            for name, make in makes.items():
                watched, after = pair(make(model)), pair(nullcontext())
                ratios[name].append(2 * watched / (before + after))
                before = after
    found = {name: statistics.median(one) for name, one in ratios.items()}
    found["every=100, all of it: (99 not chosen + 1 chosen) / 100"] = (
        99 * found["not chosen, gradients tested"] + found["chosen: and a probe of 4 images"]
    ) / 100
    print("\n| training ResNet-34, batch 8 at 64 px, Adam | times the plain step |\n| --- | --- |")
    for name, ratio in found.items():
        print(f"| {name} | {ratio:.3f} |", flush=True)


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = build("torchvision:resnet34").train()
    weights(model, options.repeats)
    training(model, options.repeats, options.peers)


if __name__ == "__main__":
    main()
