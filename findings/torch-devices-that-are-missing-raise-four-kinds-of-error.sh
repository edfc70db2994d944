#!/usr/bin/env bash
# Asking torch for a device whose backend is missing raises four unrelated types of exception, by the name of the
# device: AssertionError (cuda, xpu, mtia), NotImplementedError (mps, xla), ModuleNotFoundError (hpu), RuntimeError
# (a name that is none). `torch.device(name)` itself accepts the first three. Who offers a user a choice of devices and
# catches RuntimeError alone lets two of them through.
# Seen with torch 2.13.0, the CPU build for x86-64, Python 3.11, on 2026-11-29. Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch

if torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available():
    sys.exit("this machine has an accelerator; the fact is about those that are missing")
seen = {}
for name in ("cuda", "xpu", "mtia", "mps", "xla", "hpu", "gpu"):
    try:
        torch.ones(1, device=name)
    except Exception as error:
        seen[name] = type(error).__name__
print(seen)
expected = {
    "cuda": "AssertionError",
    "xpu": "AssertionError",
    "mtia": "AssertionError",
    "mps": "NotImplementedError",
    "xla": "NotImplementedError",
    "hpu": "ModuleNotFoundError",
    "gpu": "RuntimeError",
}
sys.exit(seen != expected)
PYTHON
