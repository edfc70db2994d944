"""Non-finite values, found at the step in which they appear, and the first layer with one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.activations.hooks import looking, observing
from layerscope.activations.modules import copied, tensors_in, unwrapped
from layerscope.records.sites import Site

__all__ = ["Sentinel", "finite", "sample"]

#: values of a tensor that is read in every step
_SMALL = 4096


def finite(tensors: Iterable[Tensor | None]) -> bool:
    """Whether all values are finite. One reading: a sum of squares is finite, unless a value is not or it overflows.

    Waits for the device, where the tensors are on one.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        if tensor is not None and tensor.is_floating_point() and tensor.layout is torch.strided:
            groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    for group in groups.values():
        norms = torch._foreach_norm([one.detach() for one in group])
        if not bool(torch.stack(norms).isfinite().all()) and not all(map(_finite, group)):
            return False
    return True


def sample(gradients: Iterable[Tensor | None], whole: bool) -> list[Tensor]:
    """All gradients, or the small ones: biases and scales, which sum up what reaches their layer.

    What is not finite in the gradient of a layer's output is in those, too, and reading all of ResNet-34's takes 2 % of
    a step. Where there is no small one, or it is asked for, they are all tested.
    """
    every = [one for one in gradients if one is not None]
    return (not whole and [one for one in every if one.numel() <= _SMALL]) or every


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.detach().isfinite().all())


class Sentinel:
    """Keeps the inputs of the last training batch until the step is over, to run it again if a gradient is not finite.

    Only the references: nothing is copied, and what it costs is one call a batch.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrapped(model)
        # On what the user calls: inside of a compiled network the hook would be compiled as well.
        self._handle = nn.Module.register_forward_pre_hook(model, self._keep, with_kwargs=True)
        self._kept: tuple[tuple[Any, ...], dict[str, Any], tuple[bool, torch.dtype]] | None = None
        self._versions: list[int] = []
        parameter = next(iter(model.parameters()), None)
        self._device = parameter.device.type if parameter is not None else "cpu"

    def close(self) -> None:
        """Take the hook away and forget the batch."""
        self._handle.remove()
        self._kept = None

    def _keep(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and torch._C._current_graph_task_id() == -1:
            cast = torch.is_autocast_enabled(self._device), torch.get_autocast_dtype(self._device)
            self._kept = args, kwargs, cast
            self._versions = [one._version for _, one in tensors_in([args, kwargs])]

    def forget(self) -> None:
        """The batch is over."""
        self._kept = None

    def name(self, paths: Sequence[str], updated: bool = False) -> tuple[str, str]:
        """The layer or tensor where it began, and that in a sentence: weights, batch, forward pass, backward pass.

        `updated`: the weights have changed since, and the batch can't be run again as it ran.
        """
        named = list(self.model.named_parameters())
        # Not the buffers: batch norm has taken what this very batch gave it.
        bad = [name for name, one in named if not _finite(one)]
        if bad and not updated:
            return bad[0], f"{bad[0]} holds non-finite values, {len(bad)} tensors do, before the update"
        gradients = [name for name, one in named if one.grad is not None and not _finite(one.grad)]
        tail = f"{len(gradients)} of {len(named)} gradients hold non-finite values"
        tail = tail if gradients else "the loss is not finite (NaN or inf)"
        if self._kept is None or updated:
            last = gradients[-1] if gradients else ""
            return last, f"{tail}, that of {last} among them"
        inputs = [one for _, one in tensors_in(list(self._kept[:2]))]
        if not all(map(_finite, inputs)):
            return "", f"the batch itself holds non-finite values; {tail}"
        layer, ran = self._again(paths)
        if layer:
            stale = [one._version for one in inputs] != self._versions
            doubt = " (the batch was changed in place since)" if stale else ""
            return layer, f"{layer} is the first layer with non-finite outputs{doubt}; {tail}"
        # The backward pass comes to the last layer first.
        last = max(gradients, key=lambda name: ran.get(name.rpartition(".")[0], -1), default="")
        return last, f"{tail}, and every output is finite: it began in the loss or the backward pass, at {last}"

    def _again(self, paths: Sequence[str]) -> tuple[str, dict[str, int]]:
        """The batch once more, as it ran, up to the first layer with such a value; "" if there is none.

        And the layers in the order in which they ran.
        """
        assert self._kept
        args, kwargs, (casting, dtype) = self._kept
        first, ran = "", dict[str, int]()

        def on_output(site: Site, _module: nn.Module, tensor: Tensor) -> None:
            nonlocal first
            ran[site.path] = len(ran)
            if not _finite(tensor):
                first = site.key
                observation.stop()

        autocast = torch.autocast(self._device, dtype=dtype) if casting else nullcontext()
        # In the modes that the modules are in: batch norms use the batch, dropout drops.
        with looking(self.model, evaluating=False), autocast, observing(self.model, paths, on_output) as observation:
            self.model(*copied(args), **copied(kwargs))
        return first, ran
