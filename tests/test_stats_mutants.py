"""Of statistics and surveys, what no other test saw when the code was broken on purpose: `verification/mutants.py`."""

from __future__ import annotations

import numpy as np
import pytest

from layerscope.stats import distribution, histogram
from layerscope.surveying.accumulators import exact
from layerscope.surveying.accumulators.histogram import narrow
from layerscope.surveying.accumulators.means import classes


@pytest.mark.parametrize("low", [1.0, -3.0, 1e300])
def test_a_range_without_room_for_the_bins_is_widened_by_no_more_than_it_says(low):
    high, bins = float(np.nextafter(low, np.inf)), 50
    edges = histogram.edges(low, high, np.dtype("f8"), bins)
    most = (bins + 8) * np.spacing(max(abs(low), abs(high)))  # the edges themselves are rounded
    assert low - most <= edges[0] < low and high < edges[-1] <= high + most


def test_the_greatest_number_is_in_the_last_bin_where_the_range_overflows():
    top = np.finfo(np.float64).max
    found = distribution(np.array([-top, 0.0, top, top]), "float64", 4)
    assert found.counts.tolist() == [1, 0, 1, 2]


def test_sums_of_images_are_carried_from_the_first_limb_on():
    sums = np.zeros((1, exact.LIMBS), np.int64)
    sums[0, 0] = sums[0, exact.LIMBS_MEAN] = 5 << 32
    assert np.flatnonzero(exact.carry(sums, exact.LIMBS_MEAN)[0]).tolist() == [1, exact.LIMBS_MEAN + 1]


@pytest.mark.parametrize("units", [1, 5, 2**52 - 1, -(2**53) + 1, 2**60])
def test_a_sum_counts_units(units):
    limbs = np.zeros((1, 8), np.int64)
    exact.add(limbs, np.array([units * 2.0**-64]), 64)
    assert exact.numbers(limbs)[0] == units


@pytest.mark.parametrize(
    ("most", "kind"), [(0xFFFF, np.uint16), (0x10000, np.uint32), (0xFFFFFFFF, np.uint32), (1 << 32, np.int64)]
)
def test_counts_are_kept_in_the_narrowest_type(most, kind):
    assert narrow(np.array([[0, most]])).dtype == kind


def test_a_share_is_no_more_than_everything():
    """Means that hardly differ: rounding makes the variance between the classes greater than the whole."""
    counts, means = np.array([34, 18, 48]), np.array([30001, 30001, 30000])
    found = classes((counts * means)[:, None], np.array([(counts * means**2).sum()]), counts)
    assert found.eta_squared.tolist() == [1]
