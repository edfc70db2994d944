"""Similarity of layers against ckatorch and against the estimator written out; classes that channels follow."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerscope.surveying.accumulators import means as meaning
from layerscope.surveying.accumulators.similarity import MINIBATCH, hsic, similarity
from verification.measuring import Comparison, version
from verification.references import pure

__all__ = ["compare", "estimator"]

Floats = NDArray[np.float64]
#: roundings of float32, of a similarity of 1: 3.1e-5, since kernels are rounded to 20 bits and means to 16
LIMIT = 512.0
#: least images of which the unbiased estimator is dominated by what the layers share
IMAGES = 160


def estimator(x: Floats, y: Floats) -> float:
    """Unbiased HSIC of (n, C) and (n, D) with linear kernels, sum by sum.

    L. Song, A. Smola, A. Gretton, J. Bedo and K. Borgwardt, "Feature Selection via Dependence Maximization", JMLR 2012.
    """
    n = len(x)

    def kernel(a: Floats, i: int, j: int) -> float:
        return 0.0 if i == j else float(sum(p * q for p, q in zip(a[i].tolist(), a[j].tolist(), strict=True)))

    k = [[kernel(x, i, j) for j in range(n)] for i in range(n)]
    m = [[kernel(y, i, j) for j in range(n)] for i in range(n)]
    trace = sum(k[i][j] * m[j][i] for i in range(n) for j in range(n))
    whole = sum(map(sum, k)) * sum(map(sum, m))
    cross = sum(k[i][j] * m[j][q] for i in range(n) for j in range(n) for q in range(n))
    return (trace + whole / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)) / (n * (n - 3))


def compare(quick: bool) -> tuple[list[Comparison], list[str]]:
    """Random features, and the layers of a network over random images."""
    written = Comparison("similarity of one minibatch", "Song et al. 2012, sum by sum", LIMIT, "float32")
    peer = Comparison("similarity of several minibatches", f"{version('ckatorch')} hsic1", LIMIT, "float32")
    rng = np.random.default_rng(0)
    for case in range(2 if quick else 8):
        features = _features(rng, int(rng.integers(5, 17)))
        ours = similarity(hsic(features))
        theirs = np.array([[estimator(a, b) for b in features] for a in features])
        written.see(f"case {case}", ours, _normed(theirs), 1.0)
    for case in range(4 if quick else 40):
        batches = [_features(rng, MINIBATCH) for _ in range(1 + case % 4)]
        peer.see(f"case {case}", similarity(_summed(batches)), _peer(batches), 1.0)
    meant = _Meaning()
    for case in range(4 if quick else 40):
        meant.see(f"case {case}", rng)
    layers = Comparison(
        "survey: similarity of the layers of a network", f"{version('ckatorch')} hsic1", LIMIT, "float32"
    )
    _survey(layers)
    notes = [
        "Copies, ranks and classes: random whole numbers of ten channels over 40 to 300 images of three classes.",
        "Features of 2 to 60 channels that share none, some or all of their directions. ckatorch is given its own Gram "
        "matrices in float64; the unit is that of a similarity of 1.",
        f"Survey: {IMAGES} random images, means of every layer's channels over each image taken by plain hooks from a "
        f"copy without in-place operations; minibatches of {MINIBATCH} images as the survey has them.",
    ]
    return [written, peer, layers, *meant.lines], notes


def _features(rng: np.random.Generator, n: int) -> list[Floats]:
    """Whole numbers of 16 bits, (n, C) for five layers that share more or less."""
    shared = rng.normal(size=(n, 6))
    found = []
    for layer in range(5):
        channels = int(rng.integers(2, 61))
        own = rng.normal(size=(n, channels))
        values = shared @ rng.normal(size=(6, channels)) * layer / 2 + own
        found.append(np.rint(values * 3000 / np.abs(values).max()) + int(rng.integers(-500, 500)))
    return found


def _summed(batches: list[list[Floats]]) -> Floats:
    return np.sum([hsic(features) for features in batches], axis=0)


def _normed(sums: Floats) -> Floats:
    own = np.sqrt(np.diag(sums))
    return sums / np.outer(own, own)


def _peer(batches: list[list[Floats]]) -> Floats:
    """(L, L) by ckatorch, summed over the minibatches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hsic1: Any = importlib.import_module("ckatorch").hsic1
    sums = np.zeros((len(batches[0]), len(batches[0])))
    for features in batches:
        grams = [torch.from_numpy(one @ one.T)[None] for one in features]
        sums += [[float(hsic1(a, b)) for b in grams] for a in grams]
    return _normed(sums)


class _Meaning:
    """What a survey tells of channels, from images' values (n, C) that are whole numbers, and their classes."""

    def __init__(self) -> None:
        numpys = f"{version('numpy')}, float64"
        self.copies = Comparison("copies: pairs of channels", f"{numpys}, corrcoef above {meaning.ALIKE}")
        self.strength = Comparison("copies: their correlation", f"{numpys}, corrcoef", LIMIT, "float32")
        self.rank = Comparison("effective rank", f"{numpys}, singular values of the centred values", LIMIT, "float32")
        self.favourite = Comparison("favourite class", "class means by hand")
        self.selective = Comparison("selectivity", "Morcos et al. 2018 by hand", LIMIT, "float32")
        self.explained = Comparison("explained variance", "sums of squares by hand", LIMIT, "float32")

    @property
    def lines(self) -> list[Comparison]:
        """Lines of the table."""
        return [self.copies, self.strength, self.rank, self.favourite, self.selective, self.explained]

    def see(self, case: str, rng: np.random.Generator) -> None:
        """Forty to three hundred images, eight channels and two copies, three classes."""
        n = int(rng.integers(40, 300))
        labels = rng.integers(0, 3, n)
        values = np.abs(rng.normal(size=(n, 8)) * 300 + labels[:, None] * rng.integers(0, 900, 8))
        noise = rng.normal(size=(n, 2)) * rng.choice([1, 20, 60])
        values = np.rint(np.concatenate([values, values[:, :2] * 2 + noise + 300], 1)).astype(np.int64)
        gram, sums, counts = values.T @ values, values.sum(0), np.bincount(labels, minlength=3)
        right = np.corrcoef(values.T.astype(float))
        pairs = [(a, b) for a in range(10) for b in range(a + 1, 10) if right[a, b] > meaning.ALIKE]
        found = sorted(meaning.redundant_channels(gram, sums, n))
        self.copies.see(case, [pair[:2] for pair in found], pairs)
        self.strength.see(case, [pair[2] for pair in found], [right[pair] for pair in pairs])
        steps = 2.0 ** rng.integers(-2, 3, 10)
        power = np.linalg.svd((values - values.mean(0)) * steps, compute_uv=False) ** 2
        shares = power / power.sum()
        self.rank.see(case, meaning.effective_rank(gram, sums, n, steps), np.exp(-np.sum(shares * np.log(shares))))
        self._classes(case, values, labels, meaning.classes(
            np.stack([values[labels == one].sum(0) for one in range(3)]), (values**2).sum(0), counts))  # fmt: skip

    def _classes(self, case: str, values: NDArray[np.int64], labels: NDArray, found: meaning.Followed) -> None:
        for channel, column in enumerate(values.T):
            groups = [column[labels == one].astype(float) for one in range(3)]
            means = [group.mean() for group in groups]
            best = int(np.argmax(means))
            rest = np.mean(means[:best] + means[best + 1 :])
            between = sum(len(group) * (group.mean() - column.mean()) ** 2 for group in groups)
            self.favourite.see(case, found.preferred_class[channel], best)
            self.selective.see(case, found.selectivity[channel], (means[best] - rest) / (means[best] + rest))
            self.explained.see(case, found.eta_squared[channel], between / ((column - column.mean()) ** 2).sum())


def _survey(line: Comparison) -> None:
    """A network surveyed in batches of 20."""
    update = importlib.import_module("layerscope.surveying.accumulators.update")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(12, 20, 3),
        nn.ReLU(inplace=True), nn.Conv2d(20, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip
    x = torch.randn(IMAGES, 3, 20, 20) + torch.randn(IMAGES, 3, 1, 1)
    scale = update.calibration(model, x[:32])
    updater = update.Updater(model, (), update.Measures(top=3, histograms=(), classes=0, scale=scale))
    for at in range(0, IMAGES, 20):
        updater.update(x[at : at + 20], range(at, at + 20), None)
    found = updater.take().similarity.compute()
    means = _means(model, x, found.keys)
    batches = [[one[at : at + MINIBATCH] for one in means] for at in range(0, IMAGES, MINIBATCH)]
    line.see("ten layers", found.value, _peer(batches), 1.0)


def _means(model: nn.Module, x: Tensor, keys: list[str]) -> list[Floats]:
    """The mean of every channel over each image, float64 (n, C), by layer."""
    outputs = pure(model, (x,)).found
    return [outputs[key, 0].double().flatten(2).mean(2).numpy() if outputs[key, 0].dim() > 2
            else outputs[key, 0].double().numpy() for key in keys]  # fmt: skip
