"""What looking costs on top of the plain forward pass: CPU time, interleaved in one process, medians of ratios.

python benchmarks/bench_features.py [--repeats 15] [--threads 1] [--networks resnet34 mobilenet_v2] [--peers]

Each repeat runs the plain pass and then every variant; each variant is divided by the plain pass of its own repeat.
`first stage`: what early stop leaves of the pass, all layers of `layer1` (ResNet) or `features.0` to `features.3`
(MobileNetV2) with their statistics. `--peers`: other tools as well, those that are installed.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from layerscope.activations.collector import Collector
from layerscope.activations.hooks import calls_in_full_pass, looking, observing
from layerscope.activations.modules import Table
from layerscope.networks.build import build

FIRST = {"resnet34": ("layer1.",), "mobilenet_v2": tuple(f"features.{n}." for n in range(4))}


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def collect(
    model: nn.Module, x: torch.Tensor, maps: int | None, prefix: tuple[str, ...] = ("",), stop: bool = False
) -> None:
    """One pass with the statistics, and the maps, of all layers whose path begins with one of `prefix`."""
    table = Table(model)
    paths = [path for path in table.observable if path in table.leaves and path.startswith(prefix)]
    collector = Collector(maps)
    with observing(table, paths, collector.keep, calls_in_full_pass(model, paths, x) if stop else None):
        model(x)
    list(collector.entries())


def leaves(model: nn.Module) -> list[nn.Module]:
    """Modules without children."""
    return [module for module in model.modules() if next(module.children(), None) is None]


def five_reductions(model: nn.Module, x: torch.Tensor) -> None:
    """What people write: mean, std, min, max and zeros of every output by torch."""

    def hook(_module: nn.Module, _inputs: object, y: torch.Tensor) -> None:
        axes = [axis for axis in range(y.dim()) if axis != 1]
        for figure in (y.mean, y.std, y.amin, y.amax):
            figure(axes) if axes else figure()
        (y == 0).sum(axes)

    handles = [module.register_forward_hook(hook) for module in leaves(model)]
    model(x)
    for handle in handles:
        handle.remove()


def extractor(model: nn.Module) -> Callable[[torch.Tensor], object]:
    """torchvision's, by torch.fx: keeps references, and is overwritten in place."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    return create_feature_extractor(model, get_graph_node_names(model)[1])


def captum(model: nn.Module) -> Callable[[torch.Tensor], object]:
    """LayerActivation of all layers; it keeps copies."""
    attribution = importlib.import_module("captum.attr").LayerActivation(model, leaves(model))
    return lambda x: attribution.attribute(x)


def torchlens(model: nn.Module) -> Callable[[torch.Tensor], object]:
    """Every operation, kept."""
    trace = importlib.import_module("torchlens").trace
    return lambda x: trace(model, x)


def nnsight(model: nn.Module) -> Callable[[torch.Tensor], object]:
    """References to every leaf's output: overwritten in place, and of a module that runs twice the first."""
    tool = importlib.import_module("nnsight")
    wrapped = tool.NNsight(model)
    table = Table(model)
    paths = [path for path in table.observable if path in table.leaves]

    def run(x: torch.Tensor) -> object:
        with wrapped.trace(x):
            kept = tool.save([wrapped.get(path).output for path in paths])
        return kept  # noqa: RET504 (the tool reads the source of the block)

    return run


PEERS = {"torchvision's extractor": extractor, "captum": captum, "torchlens": torchlens, "nnsight": nnsight}


def peers(model: nn.Module, x: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Those of the other tools that are installed and run on this model."""
    found: dict[str, Callable[[], Any]] = {}
    for name, make in PEERS.items():
        try:
            run = make(model)
            run(x)
        except Exception as error:  # a tool that is missing, or fails, is a line and no end
            print(f"{name}: {type(error).__name__}: {str(error)[:100]}")
            continue
        found[name] = lambda run=run: run(x)  # type: ignore[misc]
    return found


def variants(model: nn.Module, name: str, x: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """What is measured, by the heading of its column."""
    return {
        "five torch reductions": lambda: five_reductions(model, x),
        "statistics": lambda: collect(model, x, 0),
        "statistics, maps of one image": lambda: collect(model, x, 1),
        "all maps": lambda: collect(model, x, None),
        "first stage": lambda: collect(model, x, 0, FIRST[name], stop=True),
    }


def measure(
    model: nn.Module, x: torch.Tensor, measured: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, list[float]]:
    """Ratios to the plain pass, column by column."""
    for work in measured.values():
        work()
    ratios: dict[str, list[float]] = {column: [] for column in measured}
    for _ in range(repeats):
        plain = cpu(lambda: model(x))
        for column, work in measured.items():
            ratios[column].append(cpu(work) / plain)
    return ratios


def main() -> None:
    """Print a Markdown table for each network and batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", nargs="+", default=list(FIRST), choices=list(FIRST))
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.networks:
        model = build(f"torchvision:{name}").eval()
        for batch in (1, 16):
            x = torch.randn(batch, 3, 224, 224)
            with looking(model):
                measured = variants(model, name, x) | (peers(model, x) if options.peers else {})
                repeats = options.repeats if batch == 1 else max(3, options.repeats // 3)
                ratios = measure(model, x, measured, repeats)
            print(f"\n| {name}, batch {batch} | ratio |\n| --- | --- |")
            for column, found in ratios.items():
                print(f"| {column} | {statistics.median(found):.3f} |", flush=True)


if __name__ == "__main__":
    main()
