"""Statistics of checkpoints and of activations, against the tutorial's numpy loop and torch's own calls.

    python benchmarks/bench_statistics.py --gib 2

Every method sees the same tensors in the same process, one after the other within each round; the tables show
the median over the rounds of its ratio to the first method of that round. CPU time of one thread, unless it
says otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from layerscope import dtypes
from layerscope.stats import activations, distribution, warm

BINS = 50
#: shapes as in networks: convolutions, linear layers, vectors
SHAPES = [
    (512, 512, 3, 3),
    (1000, 2048),
    (4096, 4096),
    (256, 128, 3, 3),
    (64, 3, 7, 7),
    (2048,),
    (4096, 9216),
]
#: outputs of ResNet-34's stages for 16 images of 224 px: channels, positions
STAGES = [(64, 112 * 112), (64, 56 * 56), (128, 28 * 28), (256, 14 * 14), (512, 7 * 7)]

Method = Callable[[np.ndarray, str], Any]


def tutorial(values: np.ndarray, dtype: str) -> Any:
    t = dtypes.decode(values, dtype)
    t.mean(), t.std(ddof=1), t.min(), t.max()
    return np.histogram(t, BINS)[0]


def ours(threads: int, rows: bool) -> Method:
    def method(values: np.ndarray, dtype: str) -> Any:
        return distribution(values, dtype, BINS, len(values) if rows else None, threads).counts

    return method


def torch_calls() -> Method:
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "The given buffer is not writable")  # nothing here writes

    def method(values: np.ndarray, dtype: str) -> Any:
        storage = np.int16 if dtype == "bfloat16" else values.dtype
        t = torch.frombuffer(values, dtype=getattr(torch, np.dtype(storage).name))
        t = (t.view(torch.bfloat16) if dtype == "bfloat16" else t).float()
        torch.var_mean(t)
        low, high = torch.aminmax(t)
        return torch.histc(t, BINS, low.item(), high.item()).long().numpy()

    return method


def boost() -> Method:
    import boost_histogram

    def method(values: np.ndarray, dtype: str) -> Any:
        t = dtypes.decode(values, dtype).ravel()
        axis = boost_histogram.axis.Regular(BINS, t.min(), t.max())
        return boost_histogram.Histogram(axis).fill(t).view(flow=False)

    return method


def fast_histogram() -> Method:
    module = importlib.import_module("fast_histogram")

    def method(values: np.ndarray, dtype: str) -> Any:
        t = dtypes.decode(values, dtype).ravel()
        return module.histogram1d(t, BINS, (t.min(), t.max()))

    return method


def tensorboard() -> Method:
    from torch.utils.tensorboard.summary import histogram

    def method(values: np.ndarray, dtype: str) -> Any:
        histogram("weights", dtypes.decode(values, dtype), BINS)
        return np.array([])  # of bins that it has chosen itself

    return method


def lovely() -> Method:
    import torch
    from lovely_tensors import lovely as said

    def method(values: np.ndarray, dtype: str) -> Any:
        str(said(torch.from_numpy(np.asarray(dtypes.decode(values, dtype)))))
        return np.array([])  # mean, std, min and max alone

    return method


def methods() -> dict[str, Method]:
    found = {
        "tutorial (numpy)": tutorial,
        "layerscope": ours(1, rows=False),
        "layerscope, and every kernel": ours(1, rows=True),
    }
    others = {
        "torch var_mean + aminmax + histc": torch_calls,
        "TensorBoard's histogram summary": tensorboard,
        "lovely-tensors, no histogram": lovely,
        "boost-histogram, histogram alone": boost,
        "fast-histogram, histogram alone": fast_histogram,
    }
    for name, make in others.items():
        try:
            found[name] = make()
        except ImportError:
            print(f"{name}: not installed")
    return found


def write(path: Path, gib: float) -> list[tuple[int, tuple[int, ...]]]:
    """A file of float32 tensors; their offsets and shapes."""
    rng = np.random.default_rng(0)
    table: list[tuple[int, tuple[int, ...]]] = []
    with path.open("wb") as file:
        while file.tell() < gib * 2**30:
            shape = SHAPES[len(table) % len(SHAPES)]
            table.append((file.tell(), shape))
            deviation = np.float32(np.prod(shape[1:]) ** -0.5)
            file.write(rng.standard_normal(shape, np.float32) * deviation)
    return table


def tensors(path: Path, gib: float, dtype: str) -> Iterator[np.ndarray]:
    """The tensors of a mapped file of that type."""
    table = write(path, gib)
    if dtype == "float32":
        yield from (np.memmap(path, np.float32, "r", at, shape) for at, shape in table)
        return
    small = path.with_suffix(f".{dtype}")
    with small.open("wb") as file:
        for at, shape in table:
            values = np.memmap(path, np.float32, "r", at, shape)
            bits = values.view(np.uint32) >> 16 if dtype == "bfloat16" else values
            file.write(bits.astype(dtypes.STORAGE[dtype]).tobytes())
    yield from (np.memmap(small, dtypes.STORAGE[dtype], "r", at // 2, shape) for at, shape in table)


def compare(
    arrays: list[np.ndarray], dtype: str, rounds: int, clock: Callable[[], float], names: dict[str, Method]
) -> None:
    """One table of times and of equal histograms."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    equal = dict.fromkeys(names, 0)
    for turn in range(rounds):
        for spent in seconds.values():
            spent.append(0.0)
        for array in arrays:
            results = {}
            for name, method in names.items():
                start = clock()
                results[name] = method(array, dtype)
                seconds[name][-1] += clock() - start
            if turn == 0:
                expected, *_ = results.values()
                for name, counts in results.items():
                    equal[name] += np.array_equal(counts, expected)
    total_bytes = sum(array.nbytes for array in arrays)
    first = next(iter(seconds.values()))
    for name, spent in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(first, spent, strict=True))
        speed = total_bytes / statistics.median(spent) / 1e9
        print(f"| {dtype} | {name} | {speed:.2f} | {ratio:.1f} | {equal[name]} of {len(arrays)} |")


def bench_checkpoint(gib: float, rounds: int) -> None:
    names = methods()
    print(f"\n### mean, std, min, max and {BINS} bins of {gib:g} GiB of float32, and of its 16-bit copies\n")
    print("| type | method | GB/s | times the tutorial's | counts equal numpy's |\n| --- | --- | --- | --- | --- |")
    cores = os.cpu_count() or 1
    together = {
        "tutorial (numpy), wall time": tutorial,
        f"layerscope, {cores} threads, wall time": ours(cores, rows=False),
    }
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "bfloat16", "float16"):
            arrays = list(tensors(Path(folder, "tensors"), gib, dtype))
            compare(arrays, dtype, rounds, time.process_time, names)
            compare(arrays, dtype, rounds, time.perf_counter, together)


def five_reductions(x: Any) -> None:
    import torch

    torch.mean(x, -1), torch.std(x, -1), torch.amin(x, -1), torch.amax(x, -1), torch.count_nonzero(x, -1)


def bench_activations(rounds: int) -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
    print("\n### activations of 16 images, every image and channel: CPU ms\n")
    print("| shape | five torch reductions | layerscope | times | channels last |\n| --- | --- | --- | --- | --- |")
    for channels, size in STAGES:
        x = torch.randn(16, channels, size)
        last = x.transpose(1, 2).contiguous()
        calls: list[Callable[[], Any]] = [
            lambda x=x: five_reductions(x),
            lambda x=x: activations(x.numpy()),
            lambda last=last: activations(last.numpy(), channels_last=True),
        ]
        spent: list[list[float]] = [[] for _ in calls]
        for _ in range(5 * rounds):
            for call, times in zip(calls, spent, strict=True):
                start = time.process_time()
                call()
                times.append(1e3 * (time.process_time() - start))
        torch_ms, ours_ms, last_ms = map(statistics.median, spent)
        ratio = statistics.median(a / b for a, b in zip(spent[0], spent[1], strict=True))
        print(f"| {tuple(x.shape)} | {torch_ms:.2f} | {ours_ms:.2f} | {ratio:.0f} | {last_ms:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2, help="size of the float32 file")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    start = time.perf_counter()
    warm()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__};",
        end=" ",
    )
    print(f"kernels ready after {time.perf_counter() - start:.2f} s")
    bench_checkpoint(options.gib, options.rounds)
    bench_activations(options.rounds)


if __name__ == "__main__":
    main()
