"""What looking costs on top of the plain forward pass: CPU time, interleaved in one process, medians of ratios.

python benchmarks/bench_features.py [--repeats 15] [--threads 1]

Each repeat runs the plain pass and then every variant; each variant is divided by the plain pass of its own repeat.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from layerscope.hooks import looking, tap, tappable
from layerscope.networks.build import build
from layerscope.reduce import Collector


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def collect(model: nn.Module, x: torch.Tensor, maps: int | None, prefix: str = "") -> None:
    """One pass with the statistics, and the maps, of all layers whose path begins with `prefix`."""
    paths = [path for path, _, leaf in tappable(model) if leaf and path.startswith(prefix)]
    collector = Collector(maps)
    with tap(model, collector.keep, paths):
        model(x)
    list(collector.entries())


def five_reductions(model: nn.Module, x: torch.Tensor) -> None:
    """What people write: mean, std, min, max and zeros of every output by torch."""

    def hook(_module: nn.Module, _inputs: object, y: torch.Tensor) -> None:
        axes = [axis for axis in range(y.dim()) if axis != 1]
        for figure in (y.mean, y.std, y.amin, y.amax):
            figure(axes) if axes else figure()
        (y == 0).sum(axes)

    handles = [m.register_forward_hook(hook) for m in model.modules() if next(m.children(), None) is None]
    model(x)
    for handle in handles:
        handle.remove()


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| network | batch | five torch reductions | statistics | statistics, maps of one image | all maps |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in ("torchvision:resnet34", "torchvision:mobilenet_v2"):
        model = build(name).eval()
        for batch in (1, 16):
            x = torch.randn(batch, 3, 224, 224)
            variants: list[Callable[[], object]] = [
                lambda: five_reductions(model, x),
                lambda: collect(model, x, 0),
                lambda: collect(model, x, 1),
                lambda: collect(model, x, None),
            ]
            with looking(model):
                for work in variants:
                    work()
                ratios: list[list[float]] = [[] for _ in variants]
                for _ in range(options.repeats if batch == 1 else max(3, options.repeats // 3)):
                    plain = cpu(lambda: model(x))
                    for found, work in zip(ratios, variants, strict=True):
                        found.append(cpu(work) / plain)
            cells = " | ".join(f"{statistics.median(found):.3f}" for found in ratios)
            print(f"| {name} | {batch} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
