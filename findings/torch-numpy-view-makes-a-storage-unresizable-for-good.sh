#!/usr/bin/env bash
# Reading a tensor through `.numpy()` makes its storage unresizable for good, even after the array is gone. Code that
# later frees or regrows that storage raises "Trying to resize storage that is not resizable": whoever only looks at a
# module's output from a forward hook breaks a network that gives its activations' memory back, and FSDP2, which does
# the same with parameters. Reading a copy, `.clone().numpy()`, leaves
# the tensor as it was.
# Seen with torch 2.13.0, the CPU build for x86-64, Python 3.11, on 2026-11-29. Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import gc
import sys

import torch
from torch import nn

layer = nn.Conv2d(3, 4, 3)
seen = {}
for name, read in {"nothing": lambda x: None, "copy": lambda x: x.clone().numpy(), "view": lambda x: x.numpy().sum()}.items():
    with torch.no_grad():
        output = layer(torch.zeros(1, 3, 8, 8))
    read(output)
    gc.collect()
    try:
        output.untyped_storage().resize_(0)
        seen[name] = "freed"
    except RuntimeError as error:
        seen[name] = str(error).splitlines()[0]
print(seen)
sys.exit(not (seen["nothing"] == seen["copy"] == "freed" and "not resizable" in seen["view"]))
PYTHON
