"""The comparisons with independent implementations: a sample of each part; that they can fail; and their page."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.stats import distribution
from verification.__main__ import PARTS
from verification.check_similarity import estimator
from verification.check_statistics import exact
from verification.measuring import PAGE, Comparison, table, write
from verification.references import plain, pure

ROOT = Path(__file__).parents[1]
#: what each part compares with, beside torch and numpy
PEERS = {"activations": ["captum", "timm"], "fields": ["torchlens"], "evidence": ["captum"], "similarity": ["ckatorch"]}


def sample(part: str) -> tuple[list[Comparison], list[str]]:
    for peer in PEERS.get(part, []):
        pytest.importorskip(peer, reason="an extra")
    return importlib.import_module(f"verification.check_{part}").compare(True)


@pytest.mark.filterwarnings("ignore")  # other packages' own
@pytest.mark.parametrize("part", [pytest.param(one, marks=[pytest.mark.slow]) for one in PARTS])
def test_a_sample_of_each_part_agrees(part):
    comparisons, notes = sample(part)
    found = [one for one in comparisons if one.cases]
    assert found and notes
    for one in found:
        assert one.values, one.what
        assert not one.exceptions, one.exceptions


@pytest.mark.parametrize("size", [2, 5, 4001])
def test_the_top_of_float64(size):
    """Warnings are errors here: nothing may overflow aloud."""
    top = np.finfo(np.float64).max
    for values in (np.resize([top, -top, 1.0], size), np.full(size, top), np.resize([top / 2, -top * 0.6, 0], size)):
        found = distribution(values, "float64", 4)
        assert np.isfinite(found.edges).all()
        assert found.counts.sum() == size
        assert np.isfinite(found.whole.mean[0])
        assert found.whole.m2[0] == (0 if values.min() == values.max() else np.inf)
    small = distribution(np.arange(size) * 5e-324, "float64", 4)
    assert small.counts.sum() == size


def test_a_signalling_nan_is_quiet():
    bits = np.array([0x7FA00000, 0x7F7FFFFF, 0xFF7FFFFF], np.uint32).view(np.float32)
    assert distribution(bits, "float32", 4).whole.nan[0] == 1


def test_statistics_of_float32_agree():
    check = importlib.import_module("verification.check_statistics")
    made = importlib.import_module("verification.numbers_made").made
    figures = check.Figures("float32")
    for one in made("float32", 101):
        if one.values.size < 1000:
            figures.see(one.kind, check.distribution(one.bits, "float32", 50).whole.take(0), one.values)
    assert figures.plain.cases > 30
    assert not [text for line in figures.lines for text in line.exceptions]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([1.0, 2.0], [1.0, 2.5]), ([np.nan], [1.0]), ([1.0], [np.nan]), ([np.inf], [-np.inf]), ([1.0], [1.0, 1.0])],
)
def test_a_deviation_is_an_exception(ours, theirs):
    line = Comparison("a", "b", 100)
    line.see("case", ours, theirs)
    assert len(line.exceptions) == 1
    assert "case" in table([line], [])


def test_deviations_are_told_in_units_of_the_type():
    line = Comparison("a", "b", 3)
    line.see("two steps", 1 + 2 * np.finfo(float).eps, 1.0)
    assert (line.ulp, line.unequal, line.exceptions) == (2, 1, [])
    single = Comparison("a", "b", 3, "float32")
    single.see("four steps", 1 + 4 * np.finfo(np.float32).eps, 1.0)
    assert single.ulp == 4
    assert single.exceptions


def test_equal_is_equal_with_nan_and_infinities():
    line = Comparison("a", "b")
    line.see("case", [np.nan, np.inf, -np.inf, 0.0, 1.0], [np.nan, np.inf, -np.inf, -0.0, 1.0])
    assert (line.values, line.unequal, line.exceptions) == (5, 0, [])


def test_the_exact_reference_is_exact():
    mean, _std, size = exact(np.array([1e16, 1.0, -1e16, 1.0]))
    assert mean == 0.5
    assert size == (2e16 + 2) / 4
    assert exact(np.array([1e308, 1e308, 1e308])) == (1e308, 0.0, 1e308)
    values = np.random.default_rng(0).normal(100, 0.01, 1000)
    assert abs(exact(values)[1] - values.std(ddof=1)) < 1e-12


def test_a_copy_without_in_place_operations_keeps_what_layers_gave():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)).eval()
    x = torch.randn(1, 3, 8, 8)
    written, kept = plain(net, (x,)), pure(net, (x,))
    assert not written.kept(("0", 0))
    assert kept.kept(("0", 0))
    assert kept.found["0", 0].min() < 0 == written.found["0", 0].min()
    assert torch.equal(written.last, kept.last)


def test_functions_in_place_are_replaced_too():
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 2, 1), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            y += x
            return self.b(nn.functional.relu_(y))

    net, x = Adds().eval(), torch.randn(1, 2, 4, 4)
    truth = pure(net, (x,))
    assert all(map(truth.kept, truth.found))
    assert torch.equal(truth.found["a", 0], net.a(x))
    assert torch.equal(truth.last, net(x))


def test_the_estimator_of_nothing_in_common_is_about_nothing():
    """By hand: four images, one channel each."""
    x = np.array([[1.0], [0.0], [0.0], [0.0]])
    assert estimator(x, x) == 0  # off the diagonal nothing is left
    y = np.array([[1.0], [1.0], [0.0], [0.0]])
    # k = l = 1 at (0, 1) and (1, 0): trace 2, whole 2 * 2 / 6, cross 2 * 2 / 2; over 4 * 1
    assert estimator(y, y) == pytest.approx((2 + 4 / 6 - 2) / 4)


def test_the_page_has_a_place_for_every_part(tmp_path):
    text = PAGE.read_text()
    for part in (*PARTS, "versions"):
        assert text.count(f"<!-- {part}: measured -->") == text.count(f"<!-- {part}: end -->") == 1
    copy = tmp_path / "page.md"
    copy.write_text(text)
    write("fields", "| a table |", copy)
    assert "<!-- fields: measured -->\n| a table |\n<!-- fields: end -->" in copy.read_text()
    with pytest.raises(ValueError, match="expected one"):
        write("nothing", "", copy)


def test_the_page_was_measured():
    text = PAGE.read_text()
    for part in PARTS:
        (body,) = re.findall(f"<!-- {part}: measured -->(.*?)<!-- {part}: end -->", text, re.S)
        rows = [line for line in body.splitlines() if line.startswith("| ")]
        assert len(rows) > 2, part
