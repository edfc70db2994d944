#!/usr/bin/env bash
# torch's FlopCounterMode, on the CPU, counts 0 for scaled_dot_product_attention, for a whole TransformerEncoderLayer in
# evaluation mode under no_grad, and for an LSTM, without a warning. The same attention on the meta device, the same
# encoder layer in training mode and a GRU of the same size are counted. So the figure of a network depends on its mode
# and device, and a sum over a transformer looks plausible and is too low.
# Seen with torch 2.13.0, the CPU build for x86-64, Python 3.11, on 2026-11-29. Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode


def count(function, *inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*inputs)
    return counter.get_total_flops()


query = torch.randn(1, 2, 64, 16)  # batch, heads, tokens, width of a head
tokens = torch.randn(1, 64, 16)
layer = nn.TransformerEncoderLayer(16, 2, batch_first=True)
seen = {
    "attention, cpu": count(scaled_dot_product_attention, query, query, query),
    "attention, meta": count(scaled_dot_product_attention, *[query.to("meta")] * 3),
    "encoder layer, training": count(layer.train(), tokens),
    "encoder layer, evaluation": count(layer.eval(), tokens),
    "LSTM": count(nn.LSTM(16, 16), tokens),
    "GRU": count(nn.GRU(16, 16), tokens),
}
print(seen)
none = ("attention, cpu", "encoder layer, evaluation", "LSTM")
# Two products of tokens x tokens x width, multiplication and addition, for each head.
right = seen["attention, meta"] == 2 * 2 * 2 * 64 * 64 * 16
sys.exit(not right or any((seen[name] == 0) != (name in none) for name in seen))
PYTHON
