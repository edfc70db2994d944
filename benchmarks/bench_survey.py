"""What surveying costs on top of the plain forward pass: a share of its images per CPU second, interleaved.

python benchmarks/bench_survey.py [--photos FILE ...] [--chunks 9] [--batch 16] [--networks resnet34] [--threads 1]

Both sides decode the same JPEG files (cuts of real photos, 500 x 375, quality 90) and preprocess them. A chunk is 64
images; a variant's state is taken and merged into the whole within the time of its chunk. Each batch is run plainly and
measured, in turn first, and the time of the plain passes of a chunk is divided by that of the others. `first chunk`:
nearly every image is among the best. `memory`: the peak of a process of its own with one variant, beyond that of one
that runs the same two chunks plainly; medians of five.
"""

from __future__ import annotations

import os

# Before numpy is imported: its threads wait by spinning, which would be counted against whoever comes next.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from layerscope.activations.hooks import looking
from layerscope.networks.build import build
from layerscope.networks.open import Network
from layerscope.surveying.accumulators.network import NetworkAccumulator
from layerscope.surveying.accumulators.update import Measures, Updater, calibration

CHUNK = 64


def photos(paths: list[Path]) -> list[Image.Image]:
    """The photos given, or those that come with the packages scikit-image and scikit-learn."""
    if not paths:
        for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
            spec = find_spec(package)
            for root in (spec.submodule_search_locations or []) if spec else []:
                names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "china.jpg", "flower.jpg")
                paths += [Path(root, folder, name) for name in names if Path(root, folder, name).is_file()]
    if not paths:
        raise SystemExit("no photos; name some with --photos")
    return [Image.open(path).convert("RGB") for path in paths]


def files(whole: list[Image.Image], many: int) -> list[bytes]:
    """So many JPEG files: cuts of the photos at other places and scales each."""
    rng, made = np.random.default_rng(0), []
    for number in range(many):
        photo = whole[number % len(whole)]
        scale = rng.uniform(0.4, 1.0)
        width, height = int(photo.width * scale), int(photo.height * scale)
        left, upper = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
        cut = photo.crop((left, upper, left + width, upper + height)).resize((500, 375))
        file = io.BytesIO()
        cut.save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def decoded(network: Network, jpegs: list[bytes], at: int, size: int) -> tuple[Tensor, range]:
    """The batch that begins at image `at`, and the images' numbers."""
    numbers = range(at, at + size)
    images = [Image.open(io.BytesIO(jpegs[number % len(jpegs)])).convert("RGB") for number in numbers]
    return torch.stack([network.preprocessing(image) for image in images]), numbers


def batches(network: Network, jpegs: list[bytes], first: int, size: int) -> Iterator[tuple[Tensor, range]]:
    """The batches of the chunk that begins at image `first`."""
    return (decoded(network, jpegs, at, size) for at in range(first, first + CHUNK, size))


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak() -> float:
    """MB that this process has held at most (Linux)."""
    # Not getrusage: its maximum is handed on from a process to the one it starts.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def variants(network: Network, jpegs: list[bytes], size: int) -> dict[str, Measures]:
    """What is measured, by the heading of its row."""
    scale = calibration(network, torch.cat([tensor for tensor, _ in batches(network, jpegs, 0, size)]))
    return {
        "statistics": Measures(top=0, histograms=()),
        "statistics, silent, top 9": Measures(histograms=()),
        "and histograms of the convolutions": Measures(),
        "and histograms of all layers": Measures(histograms=("*",)),
        "everything: classes, copies, similarity": Measures(scale=scale, classes=1000),
    }


def plain(network: Network, tensor: Tensor) -> None:
    """The pass that all is compared with."""
    with looking(network.model):
        network.model(tensor)


def see(updater: Updater, tensor: Tensor, numbers: range) -> None:
    """The same, measured; labels are made up."""
    classes = updater.measures.classes
    updater.update(tensor, numbers, [number * 7 % classes for number in numbers] if classes else None)


def measure(network: Network, jpegs: list[bytes], what: Measures, chunks: int, size: int) -> list[float]:
    """Shares of the plain pass by chunk."""
    updater, whole, shares = Updater(network, (), what), NetworkAccumulator(), []
    for first in range(0, chunks * CHUNK, CHUNK):
        base = spent = 0.0
        for number, at in enumerate(range(first, first + CHUNK, size)):
            for measured in (number % 2 == 0, number % 2 == 1):  # whoever comes second finds the files in the cache
                if measured:
                    spent += cpu(lambda at=at: see(updater, *decoded(network, jpegs, at, size)))  # type: ignore[misc]
                else:
                    base += cpu(lambda at=at: plain(network, decoded(network, jpegs, at, size)[0]))  # type: ignore[misc]
        spent += cpu(lambda: whole.merge(updater.take()))
        shares.append(base / spent)
    return shares


def held(name: str, variant: str, jpegs: list[bytes], size: int) -> tuple[float, float]:
    """MB that two chunks take at most, and MB of the state; with no variant, of the plain pass. In its own process."""
    torch.set_num_threads(1)
    network = Network(build(f"torchvision:{name}"), name)
    updater = Updater(network, (), variants(network, jpegs, size)[variant]) if variant else None
    whole = NetworkAccumulator()
    for first in (0, CHUNK):
        for tensor, numbers in batches(network, jpegs, first, size):
            if updater:
                see(updater, tensor, numbers)
            else:
                plain(network, tensor)
        if updater:
            whole.merge(updater.take())
    return peak(), whole.nbytes / 1e6


def memory(name: str, variant: str, jpegs: list[bytes], size: int, times: int = 5) -> tuple[float, float]:
    """The median of some processes: one takes 50 MB more than another, as its allocator happens to find places."""
    found = []
    for _ in range(times):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(held, (name, variant, jpegs, size)))
    return statistics.median(most for most, _ in found), found[0][1]


def main() -> None:
    """Print a Markdown table for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", nargs="+", type=Path, default=[])
    parser.add_argument("--chunks", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16, choices=[8, 16, 32, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", nargs="+", default=["resnet34"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    jpegs = files(photos(options.photos), CHUNK * max(options.chunks, 2))
    for name in options.networks:
        network = Network(build(f"torchvision:{name}"), name)
        print(f"\n| {name}, batch {options.batch} | share | first chunk | MB more | MB state |")
        print("| --- | --- | --- | --- | --- |")
        alone, _ = memory(name, "", jpegs, options.batch)
        for column, what in variants(network, jpegs, options.batch).items():
            found = measure(network, jpegs, what, options.chunks, options.batch)
            most, state = memory(name, column, jpegs, options.batch)
            later = statistics.median(found[1:] or found)
            print(f"| {column} | {later:.3f} | {found[0]:.3f} | {most - alone:.0f} | {state:.1f} |", flush=True)


if __name__ == "__main__":
    main()
