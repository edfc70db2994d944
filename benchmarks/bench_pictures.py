"""Mosaics of every channel of ResNet-34's 36 convolutions against the tutorial's way, one subplot a channel.

python benchmarks/bench_pictures.py [--repeats 3]

The tutorial's way is measured on two layers, 192 channels, with all of them drawn and saved as PNG, and scaled to the
8,512 channels. Both run in this process, one after the other, each time; medians of CPU time.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable

import matplotlib
import numpy as np
import torch
from PIL import Image

import layerscope
from layerscope.networks.build import build
from layerscope.networks.open import network_of
from layerscope.records.maps import colormap, columns_for, mosaic
from layerscope.records.record import Entry, Record
from layerscope.views import png
from layerscope.views.sheet import encode

matplotlib.use("agg")
import matplotlib.pyplot as plt

SAMPLE = ("layer1.0.conv1", "layer2.0.conv1")


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def subplots(entry: Entry) -> None:
    """What the tutorial does, for all channels: a figure, a subplot and an image a channel."""
    values = entry.maps[0].values()  # (C, h, w)
    side = int(np.ceil(len(values) ** 0.5))
    plt.figure(figsize=(side, side))
    for channel, image in enumerate(values):
        plt.subplot(side, side, channel + 1)
        plt.imshow(image, cmap="gray")
    plt.savefig(io.BytesIO(), format="png")
    plt.close()


def mosaics(record: Record) -> None:
    """Ours: one PNG a layer, all channels, with title, range and scale bar."""
    for entry in record.values():
        png.feature_mosaic(record, entry, channels=None)


def native(record: Record) -> None:
    """Tiles at native size and nothing else: codes as palette indices, laid out and encoded."""
    for entry in record.values():
        codes = entry.maps[0].codes
        image = Image.fromarray(mosaic(codes, columns_for(*codes.shape), 1, 255))
        image.putpalette(colormap("viridis", 256).tobytes())
        encode(image)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.manual_seed(0)
    network = network_of(build("torchvision:resnet34"), "resnet34")
    record = layerscope.features(network, torch.randn(1, 3, 224, 224), layers="Conv2d")
    channels = sum(len(entry.maps[0].lo) for entry in record.values())
    sampled = sum(len(record[name].maps[0].lo) for name in SAMPLE)
    mosaics(record)
    ours, theirs, bare = [], [], []
    for _ in range(repeats):
        ours.append(cpu(lambda: mosaics(record)))
        bare.append(cpu(lambda: native(record)))
        theirs.append(cpu(lambda: [subplots(record[name]) for name in SAMPLE]) * channels / sampled)
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"| {channels:,} channels of {len(record)} convolutions | CPU s | ratio |\n| --- | --- | --- |")
    print(f"| one subplot a channel (matplotlib; {sampled} channels measured, scaled) | {b:.1f} | 1 |")
    print(f"| layerscope, complete sheets | {a:.3f} | 1/{b / a:.0f} |")
    c = statistics.median(bare)
    print(f"| layerscope, the tiles alone at native size | {c:.3f} | 1/{b / c:.0f} |")


if __name__ == "__main__":
    main()
