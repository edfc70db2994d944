"""Classes, copies, effective rank and similarity against their definitions, written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from layerscope.surveying.accumulators.means import calibrate, classes, effective_rank, redundant_channels, rounded
from layerscope.surveying.accumulators.similarity import similarity


def pooled(images=60, channels=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 30000, (images, channels))


def by_class(values, labels, many):
    sums = np.stack([values[labels == k].sum(0) for k in range(many)])
    return sums, (values**2).sum(0), np.bincount(labels, minlength=many)


def test_selectivity_is_that_of_morcos():
    values, labels = pooled(), np.arange(60) % 4
    values[labels == 2, 3] += 50000
    found = classes(*by_class(values, labels, 4))
    means = np.stack([values[labels == k].mean(0) for k in range(4)])
    for channel in range(7):
        best = means[:, channel].argmax()
        rest = np.delete(means[:, channel], best).mean()
        assert found.preferred_class[channel] == best
        assert found.selectivity[channel] == pytest.approx(
            (means[best, channel] - rest) / (means[best, channel] + rest)
        )
    assert found.preferred_class[3] == 2
    assert found.eta_squared[3] == max(found.eta_squared)


def test_explained_is_the_share_of_the_variance_between_classes():
    values, labels = pooled(), np.arange(60) % 3
    found = classes(*by_class(values, labels, 3))
    for channel in range(7):
        column = values[:, channel].astype(float)
        within = sum(((column[labels == k] - column[labels == k].mean()) ** 2).sum() for k in range(3))
        whole = ((column - column.mean()) ** 2).sum()
        assert found.eta_squared[channel] == pytest.approx(1 - within / whole, rel=1e-5)


def test_selectivity_is_not_defined_where_a_class_mean_is_negative():
    values, labels = pooled(), np.arange(60) % 2
    values[:, 0] -= 40000
    found = classes(*by_class(values, labels, 2))
    assert np.isnan(found.selectivity[0])
    assert not np.isnan(found.selectivity[1:]).any()


def test_a_class_without_images_has_no_say():
    values, labels = pooled(), np.where(np.arange(60) % 2, 0, 4)
    found = classes(*by_class(values, labels, 5))
    assert set(found.preferred_class.tolist()) <= {0, 4}
    whole = classes(*by_class(values, labels // 4, 2))
    np.testing.assert_array_equal(found.selectivity, whole.selectivity)


def test_one_class_tells_nothing():
    values = pooled()
    found = classes(*by_class(values, np.zeros(60, int), 3))
    assert (found.preferred_class == -1).all()
    assert np.isnan(found.selectivity).all()


def test_copies_are_channels_of_one_signal():
    values = pooled()
    values[:, 5] = values[:, 1] * 2 + 17
    values[:, 6] = 1000  # never varies
    values[:, 4] = 60000 - values[:, 0]  # the opposite is no copy
    found = redundant_channels(values.T @ values, values.sum(0), 60)
    assert [(a, b) for a, b, _ in found] == [(1, 5)]
    assert found[0][2] == pytest.approx(1)


def test_effective_rank_counts_directions():
    rng = np.random.default_rng(0)
    values = np.rint(rng.standard_normal((4000, 3)) @ np.eye(3, 8) * 1000).astype(int)
    assert effective_rank(values.T @ values, values.sum(0), 4000, np.ones(8)) == pytest.approx(3, rel=0.01)
    values = np.tile(values[:, :1], 8)
    assert effective_rank(values.T @ values, values.sum(0), 4000, np.ones(8)) == pytest.approx(1, rel=0.01)
    shares = np.linalg.eigvalsh(np.cov(pooled().T))
    shares = shares / shares.sum()
    values = pooled()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(values.T @ values, values.sum(0), 60, np.ones(7)) == pytest.approx(expected)
    coarse = np.rint(values / np.arange(1, 8)).astype(int)  # each channel in steps of its own
    rank = effective_rank(coarse.T @ coarse, coarse.sum(0), 60, np.arange(1.0, 8))
    assert rank == pytest.approx(expected, rel=1e-3)
    assert effective_rank(np.zeros((4, 4), int), np.zeros(4, int), 9, np.ones(4)) is None


def test_similarity_is_one_with_itself_and_nothing_with_what_does_not_vary():
    hsic = np.array([[4.0, 2.0, 0.0], [2.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    found = similarity(hsic)
    assert found[0, 0] == found[1, 1] == 1
    assert found[0, 1] == pytest.approx(2 / 6)
    assert np.isnan(found[2]).all()


def test_a_channel_that_is_silent_on_the_few_images_first_is_not_cut_off_on_others():
    few = np.zeros((8, 2))
    few[:, 0] = np.linspace(0, 2, 8)  # the other channel says nothing yet
    scale = calibrate(few)
    others = np.array([[7.0, 0.0], [0.0, 0.9]])
    steps, cut = rounded(others, scale)
    assert cut.tolist() == [0, 0]
    np.testing.assert_allclose((steps + scale[1]) * scale[0], others, atol=5e-4)
    assert rounded(np.array([[0.0, 1e3]]), scale)[1].tolist() == [0, 1]
