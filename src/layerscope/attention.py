"""The weights of an attention, also where a fused call never writes them down."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["attention_weights", "class_view"]


def attention_weights(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
) -> Tensor | None:
    """(B, heads, queries, keys) if this call of a function of torch was an attention; else None.

    A fused attention is computed again from what it was given, a softmax over the last of four axes is one itself.
    """
    # By name: other tools put wrappers into torch, and what is seen is then not the function found there.
    name = getattr(func, "__name__", "")
    if name == "scaled_dot_product_attention":
        return _fused(*args, **kwargs)
    if name == "multi_head_attention_forward":
        given = inspect.signature(func).bind(*args, **kwargs).arguments
        weights = func(**{**given, "need_weights": True, "average_attn_weights": False})[1]
        return weights if weights.dim() == 4 else weights[None]  # without a batch axis: (heads, L, S)
    if name == "softmax" and isinstance(output, Tensor) and output.dim() == 4:
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
        return output if axis in (-1, 3) else None
    return None


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """softmax(Q K^T * scale + mask) of query (B, heads, L, d) and key (B, heads, S, d)."""
    if query.dim() != 4:
        return None
    if enable_gqa:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1)


def class_view(weights: Tensor, prefix_tokens: int) -> Tensor:
    """What is drawn of (B, heads, L, S): the first token's attention, or the mean over the queries; (B, heads, S)."""
    return weights[:, :, 0] if prefix_tokens else weights.mean(2)
