"""What is wrong with the tensors of a checkpoint, told from the tensors alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscope.record import Entry, Finding

__all__ = ["COLLAPSED", "Doctor"]

#: Batch norm divides by sqrt(variance + 1e-5): below this the variance no longer counts.
COLLAPSED = 1e-8


class Doctor:
    """Sees the tensors of a checkpoint one by one and says at the end what is wrong with them."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._norms: dict[str, dict[str, NDArray]] = {}

    def see(self, entry: Entry, values: NDArray) -> None:
        """Look at a tensor and its statistics; small vectors are kept until `finish`, nothing else is."""
        name, last = entry.site.path, entry.site.path.rpartition(".")[2]
        if last in ("running_mean", "running_var", "num_batches_tracked"):
            self._norms.setdefault(name[: -len(last) - 1], {})[last] = np.array(values)
        if entry.total is None:
            return
        bad = int(entry.total.nan.sum() + entry.total.inf.sum())
        if bad:
            where = np.argwhere(~np.isfinite(values))[:3].tolist()
            at = ", ".join(str(tuple(index)) for index in where)
            channels = sorted({index[0] for index in np.argwhere(~np.isfinite(values)).tolist()}) if values.ndim else []
            detail = f"{bad} of {values.size} values are NaN or infinite, first at {at}: they spread to every output"
            self._say(name, "non-finite", channels[:64], detail)
        if entry.type == "kernel" and entry.dead:
            self._say(name, "zero-kernel", entry.dead, "all zero: these channels carry nothing but their bias")
        flat = float(entry.total.min.item()) == float(entry.total.max.item()) and values.size > 1
        if flat and entry.type in ("kernel", "weight"):
            self._say(name, "constant", [], f"every value is {entry.total.min.item():g}: never initialised or trained")

    def _say(self, name: str, kind: str, channels: list[int], detail: str) -> None:
        self.findings.append(Finding(name, kind, channels, detail))

    def finish(self) -> list[Finding]:
        """The findings, batch norms last."""
        for name, parts in self._norms.items():
            mean, var, seen = (parts.get(key) for key in ("running_mean", "running_var", "num_batches_tracked"))
            if var is None:
                continue
            low = np.flatnonzero(var < COLLAPSED).tolist()
            if low:
                detail = f"variance below {COLLAPSED:g}: the channel was constant, or its scale explodes"
                self._say(f"{name}.running_var", "collapsed-variance", low, detail)
            untouched = mean is not None and not mean.any() and bool((var == 1).all())
            if untouched and (seen is None or not seen.any()):
                detail = "means 0, variances 1, no batch tracked: this layer was never run in training"
                self._say(name, "untouched-batchnorm", [], detail)
        return self.findings
