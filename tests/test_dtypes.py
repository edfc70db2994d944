"""Element types: the bits of torch's tensors, and what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from layerscope.dtypes import STORAGE, bits_of, decode, itemsize

TORCH = [name for name in STORAGE if hasattr(torch, name) and not name.startswith(("q", "bool"))]


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("name", TORCH)
def test_bits_of_every_type(name):
    raw = np.random.default_rng(0).integers(0, 256, 24 * itemsize(name), np.uint8)
    tensor = torch.from_numpy(raw.copy()).view(getattr(torch, name)).reshape(4, 6)
    bits = bits_of(tensor.T)
    assert bits.dtype == np.dtype(STORAGE[name]) and bits.shape == (6, 4)
    assert np.ascontiguousarray(bits.T).tobytes() == raw.tobytes()


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation")
def test_bits_of_what_is_not_plain():
    values = torch.tensor([[1.5, 0.0], [0.0, -2.5]], requires_grad=True)
    assert bits_of(values.to_sparse()).tolist() == values.tolist()
    assert bits_of(torch.tensor([1 + 2j]).conj()).tolist() == [1 - 2j]
    assert bits_of(torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), 0.5, 3, torch.quint8)).tolist() == [5, 7]
    assert decode(bits_of(values.detach().bfloat16()), "bfloat16").tolist() == values.tolist()
