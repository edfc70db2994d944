"""One unit of a network: where it looks, how it was computed, and which pixels speak for a class.

from layerscope import units

found = units.look("AlexNet.pth", "tulip.jpg", "features.3", channel=7)     # -> UnitReport
because = units.weigh("resNet34.pth", "tulip.jpg")                           # -> Evidence, through captum
units.receptive_field(model, "layer2", (3, 3), (1, 3, 224, 224)).box
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from layerscope.errors import LayerscopeError, UsageError
from layerscope.hooks import looking
from layerscope.inspect import batch_of
from layerscope.looks import Arithmetic, Evidence, Field, UnitReport
from layerscope.networks.foreign import fed
from layerscope.networks.open import Network, open_network
from layerscope.record import Picture
from layerscope.units.arithmetic import arithmetic, explain
from layerscope.units.evidence import class_of, deepest, grad_cam, occlusion
from layerscope.units.place import Seen, reach
from layerscope.units.receptive import Traced, effective_receptive_field, receptive_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Arithmetic",
    "Evidence",
    "Field",
    "Looker",
    "UnitReport",
    "arithmetic",
    "effective_receptive_field",
    "grad_cam",
    "look",
    "occlusion",
    "receptive_field",
    "weigh",
]


def look(
    network: Network | nn.Module | str,
    image: Any,
    layer: str,
    channel: int,
    position: Sequence[int] | None = None,
    gradient: bool = True,
) -> UnitReport:
    """All about one unit on one image: its map, its receptive fields, its arithmetic.

    `network`: a module, a Network or what the command line takes. `image`: a path, or a preprocessed tensor,
    batch first. `layer`: a path, with `:1` for its second call. `position`: one number a spatial axis, the channel's
    greatest value if None. `gradient`: whether the effective receptive field is wanted too, a pass back and forth.
    What cannot be had (a layer without arithmetic, a network without gradients) is a note.
    Raises NoMatch, UsageError for a channel or position that is not there, ImageError, NetworkError, ForwardError.
    """
    looker = Looker(network, image)
    found = looker.look(layer, channel, position, gradient)
    return replace(found, notes=(*looker.network.notes, *found.notes))


class Looker:
    """Units of a network on one image. Of the last layers it keeps what it took three passes to find out.

    `network`, `image`: as `look` takes them. `budget_bytes`: of the tensors that are kept; the last layer always is.
    """

    def __init__(self, network: Network | nn.Module | str, image: Any, budget_bytes: int = 64 << 20) -> None:
        self.network, self.x, self.picture = _opened(network, image)
        self._budget = budget_bytes
        self._passes: OrderedDict[str, _Pass] = OrderedDict()

    def look(
        self, layer: str, channel: int, position: Sequence[int] | None = None, gradient: bool = True
    ) -> UnitReport:
        """All about one unit, without the notes of the network; see `look`."""
        found = self._pass(layer)
        seen, model = found.seen, self.network.model
        seen.place.index(channel, position if position is not None else [0] * len(seen.place.grid))
        values = seen.place.map(seen.result)[0, channel].float().cpu().numpy()  # (*grid)
        if position is None and values.ndim:
            best = np.unravel_index(int(np.nan_to_num(values, nan=-np.inf).argmax()), values.shape)
            position = [int(one) for one in best]
        where = tuple(position or ())
        seen = Seen(seen.module, seen.place, seen.input, float(values[where]))
        notes: list[str] = []

        def tried(work: Callable[[], Any]) -> Any:
            try:
                return work()
            except LayerscopeError as error:
                notes.append(str(error))
                return None

        def effective() -> NDArray[np.float32]:
            return effective_receptive_field(model, layer, channel, where, self.x)

        return UnitReport(
            network=self.network.subject,
            layer=layer,
            type=type(seen.module).__name__,
            channel=channel,
            position=where,
            value=seen.result,
            map=values.copy(),
            picture=self.picture,
            field=found.traced.field(where, channel),
            effective=tried(effective) if gradient else None,
            arithmetic=tried(lambda: explain(seen, layer, channel, where)),
            notes=tuple(notes),
        )

    def _pass(self, layer: str) -> _Pass:
        if layer not in self._passes:
            with looking(self.network.model):
                given = (self.x.clone(),)
                seen = reach(self.network.model, layer, given, lambda output, _: output.detach().clone(), True)
            self._passes[layer] = _Pass(seen, Traced(self.network.model, layer, self.x, seen.result))
        self._passes.move_to_end(layer)
        while len(self._passes) > 1 and sum(one.nbytes for one in self._passes.values()) > self._budget:
            self._passes.popitem(last=False)
        return self._passes[layer]


@dataclass(frozen=True)
class _Pass:
    """One layer on one image: what came in and went out, and the operations before it."""

    seen: Seen
    traced: Traced

    @property
    def nbytes(self) -> int:
        """Of the layer's input and output, which are by far the most."""
        return sum(one.nbytes for one in (self.seen.input, self.seen.result) if one is not None)


def weigh(
    network: Network | nn.Module | str,
    image: Any,
    layer: str | None = None,
    target: int | str | None = None,
    window: int | None = None,
    stride: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evidence:
    """Which pixels speak for a class: Grad-CAM of a layer, and occlusion.

    `network`, `image`: as `look` takes them. `layer`: the last one with a map that the class depends on if None.
    `target`: an index or a label, the predicted class if None. `window`, `stride`: of the occlusion in pixels; a
    seventh of the image's shorter side, and half of that, if None.
    Raises LayerscopeError without captum, and what `grad_cam` and `occlusion` raise.
    """
    network, x, picture = _opened(network, image)
    if x.dim() != 4:
        raise UsageError(f"{network.name}: takes {tuple(x.shape)}; evidence is for networks of images (B, C, H, W)")
    chosen = class_of(network.model, x, target, network.labels)
    layer = layer or deepest(network.model, x, chosen.index)
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
    if isinstance(image, Tensor):
        return network, image[:1], _drawn(image[0])
    batch, pictures = batch_of(network, image)
    x = fed(batch[:1], network.takes)
    if not isinstance(x, Tensor):
        raise UsageError(
            f"{network.name}: takes a list of images, not a batch; units and evidence need one input tensor"
        )
    return network, x, pictures[0]


def _drawn(values: Tensor) -> Picture:
    """A tensor (C, H, W) as a picture: over its own range, three channels as colours, others by their mean."""
    array = values.detach().float().cpu().numpy()
    array = array if array.ndim == 3 else array.reshape(1, -1, array.shape[-1])
    array = array if len(array) == 3 else array.mean(0, keepdims=True).repeat(3, 0)
    low, high = float(array.min()), float(array.max())
    scaled = (array - low) / (high - low if high > low else 1.0) * 255
    return Picture("tensor", np.rint(scaled).astype(np.uint8).transpose(1, 2, 0))  # (H, W, 3)
