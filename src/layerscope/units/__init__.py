"""One unit of a network: where it looks, how it was computed, and which pixels speak for a class.

from layerscope import units

report = units.unit("AlexNet.pth", "tulip.jpg", "features.3", channel=7)
because = units.evidence("resNet34.pth", "tulip.jpg")                           # through captum
units.receptive_field(model, "layer2", (3, 3), (1, 3, 224, 224)).box
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from layerscope.activations.modules import Table
from layerscope.activations.planes import pixels_of
from layerscope.errors import LayerscopeError, UsageError
from layerscope.networks.devices import Device
from layerscope.networks.feeding import batch_of
from layerscope.networks.foreign import fed, home_of
from layerscope.networks.open import Network, open_network, opened
from layerscope.progress import Progress, quiet
from layerscope.records.record import Picture
from layerscope.records.units import Arithmetic, Evidence, Field, UnitReport
from layerscope.units.arithmetic import arithmetic, explain
from layerscope.units.attribution import class_of, deepest, grad_cam, occlusion
from layerscope.units.place import LayerCall, run_to_layer
from layerscope.units.receptive import Traced, effective_receptive_field, receptive_field

__all__ = [
    "Arithmetic", "Evidence", "Field", "UnitInspector", "UnitReport", "arithmetic",
    "effective_receptive_field", "evidence", "grad_cam", "occlusion", "receptive_field", "unit",
]  # fmt: skip


def unit(
    model: Network | nn.Module | str,
    image: Any,
    layer: str,
    channel: int,
    position: Sequence[int] | None = None,
    *,
    gradient: bool = True,
    device: Device = None,
) -> UnitReport:
    """All about one unit on one image: its map, its receptive fields, its arithmetic.

    `model`: a module, a Network or what the command line takes. `image`: a path, or a preprocessed tensor, batch
    first. `layer`: a path, with `:1` for its second call. `channel`: counts from 0. `position`: one number a spatial
    axis, the channel's greatest value if None. `gradient`: whether the effective receptive field is wanted too, a pass
    back and forth. `device`: as `features` takes it. What is unavailable (a layer without arithmetic, a network without
    gradients) is a note.
    Raises NoMatch, UsageError for a channel or position that is not there, ImageError, NetworkError, DeviceError,
    ForwardError.

        >>> report = layerscope.unit(model, "tulip.jpg", "layer1.0.conv1", 5, (3, 4), gradient=False)
        >>> report.field.size, abs(report.arithmetic.sum - report.value) < 1e-4
        ((19, 19), True)
    """
    with opened(model, device) as network:
        report = UnitInspector(network, image).inspect(layer, channel, position, gradient=gradient)
        return replace(report, notes=(*network.notes, *report.notes))


class UnitInspector:
    """Units of a network on one image. Of the last layers it keeps what it took three passes to find out.

    `model`, `image`: as `unit` takes them. `budget_bytes`: of the tensors that are kept; the last layer always is.
    """

    def __init__(self, model: Network | nn.Module | str, image: Any, budget_bytes: int = 64 << 20) -> None:
        self.network, self.x, self.picture = _opened(model, image)
        self._budget = budget_bytes
        self._passes: OrderedDict[str, tuple[Traced, LayerCall]] = OrderedDict()

    def inspect(
        self, layer: str, channel: int, position: Sequence[int] | None = None, *, gradient: bool = True
    ) -> UnitReport:
        """All about one unit, without the notes of the network; see `unit`."""
        model = self.network.model
        layer = Table(model).resolve(layer)[1].key
        traced, call = self._traced(layer)
        call.place.index(channel, position if position is not None else [0] * len(call.place.grid))
        values = call.place.map(call.result)[0, channel].float().cpu().numpy()  # (*grid)
        if position is None and values.ndim:
            best = np.unravel_index(int(np.nan_to_num(values, nan=-np.inf).argmax()), values.shape)
            position = [int(index) for index in best]
        where = tuple(position or ())
        unit = (layer, channel, where)
        notes: list[str] = []

        def tried(work: Callable[[], Any]) -> Any:
            try:
                return work()
            except LayerscopeError as error:
                notes.append(str(error))
                return None

        value = replace(call, result=float(values[where]))
        return UnitReport(
            network=self.network.subject,
            layer=layer,
            type=type(call.module).__name__,
            channel=channel,
            position=where,
            value=value.result,
            map=values.copy(),
            picture=self.picture,
            field=traced.field(where, channel),
            effective=tried(lambda: effective_receptive_field(model, *unit, self.x)) if gradient else None,
            arithmetic=tried(lambda: explain(value, *unit)),
            notes=tuple(notes),
        )

    def _traced(self, layer: str) -> tuple[Traced, LayerCall]:
        if layer not in self._passes:
            model, args = self.network.model, (self.x.clone(),)
            call = run_to_layer(model, layer, args, lambda output, _: output.detach().clone(), keep_input=True)
            self._passes[layer] = Traced(model, layer, self.x, call), call
        self._passes.move_to_end(layer)
        while len(self._passes) > 1 and sum(_nbytes(call) for _, call in self._passes.values()) > self._budget:
            self._passes.popitem(last=False)
        return self._passes[layer]


def _nbytes(call: LayerCall) -> int:
    """Of the layer's input and output, which are by far the most of what is kept."""
    return sum(tensor.nbytes for tensor in (call.input, call.result) if tensor is not None)


def evidence(
    model: Network | nn.Module | str,
    image: Any,
    *,
    layer: str | None = None,
    target: int | str | None = None,
    window: int | None = None,
    stride: int | None = None,
    device: Device = None,
    progress: Progress = quiet,
) -> Evidence:
    """Which pixels speak for a class: Grad-CAM of a layer, and occlusion.

    `model`, `image`: as `unit` takes them. `layer`: the last one with a map that the class depends on if None.
    `target`: an index or a label, the predicted class if None. `window`, `stride`: of the occlusion in pixels; a
    seventh of the image's shorter side, and half of that, if None. `device`: as `features` takes it.
    Raises LayerscopeError without captum, DeviceError, and what `grad_cam` and `occlusion` raise.

        >>> found = layerscope.evidence(model, "tulip.jpg", target=985, window=112, stride=112)
        >>> found.cam.shape, found.occlusion.shape
        ((7, 7), (224, 224))
    """
    with opened(model, device) as network:
        _, x, picture = _opened(network, image)
        if x.dim() != 4:
            raise UsageError(f"{network.name}: takes {tuple(x.shape)}; evidence is for networks of images (B, C, H, W)")
        chosen = class_of(network.model, x, target, network.labels)
        layer = Table(network.model).resolve(layer)[1].key if layer else deepest(network.model, x, chosen.index)
        cam, full = grad_cam(network.model, layer, x, chosen.index)
        window = max(1, min(x.shape[-2:]) // 7) if window is None else window
        stride = max(1, window // 2) if stride is None else stride
        labels = network.labels or []
        return Evidence(
            network=network.subject,
            picture=picture,
            layer=layer,
            target=chosen.index,
            label=labels[chosen.index] if chosen.index < len(labels) else f"class {chosen.index}",
            probability=chosen.probability,
            predicted=chosen.predicted,
            cam=cam,
            cam_full=full,
            occlusion=occlusion(network.model, x, chosen.index, window, stride, progress=progress),
            window=window,
            stride=stride,
        )


def _opened(network: Network | nn.Module | str, image: Any) -> tuple[Network, Tensor, Picture]:
    network = network if isinstance(network, Network) else open_network(network)
    home = home_of(network.model)[0]
    if isinstance(image, Tensor):
        return network, image[:1].to(home), Picture("tensor", pixels_of(image[0]))
    batch, pictures = batch_of(network, image)
    x = fed(batch[:1], network.takes)
    if not isinstance(x, Tensor):
        raise UsageError(
            f"{network.name}: takes a list of images, not a batch; units and evidence need one input tensor"
        )
    return network, x.to(home), pictures[0]
