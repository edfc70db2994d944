"""Fused numeric kernels: every statistic of a tensor in one reading, exact histograms, 8-bit codes.

No torch. The kernels are compiled by numba when they are first needed on a machine; from then on their machine
code is loaded without numba.
"""

from .channels import activations, quantize
from .columns import Columns, merge, total
from .objects import adopt, kernel, machine_code
from .table import STATISTICS, Statistic, figures, shown
from .tensors import Distribution, distribution

__all__ = [
    "STATISTICS", "Columns", "Distribution", "Statistic", "activations", "adopt", "distribution", "figures",
    "machine_code", "merge", "quantize", "shown", "total", "warm",
]  # fmt: skip


def warm() -> None:
    """Compile and keep every kernel, or load what was kept. Called at set-up, so that no first run waits."""
    kernel("rows_f4")
