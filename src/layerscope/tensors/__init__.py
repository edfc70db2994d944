"""The tensors of a checkpoint or state dict: what each one is, its picture, and what is wrong with it. No torch."""

from .entries import MAX_TILES, first_kernel, kernel_maps, layout_of, role_of
from .findings import CheckpointChecks

__all__ = ["MAX_TILES", "CheckpointChecks", "first_kernel", "kernel_maps", "layout_of", "role_of"]
