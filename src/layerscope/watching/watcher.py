"""`watch`: looks at chosen steps of any training loop, and at nothing in between."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from layerscope._version import __version__
from layerscope.activations.modules import Layers, select, unwrapped
from layerscope.errors import LayerscopeError, UsageError
from layerscope.records.record import Entry, Record
from layerscope.watching.board import Board
from layerscope.watching.clock import Clock, Skips
from layerscope.watching.events import Event
from layerscope.watching.health import Health
from layerscope.watching.outputs import Batch, Probe, merged, rank
from layerscope.watching.sentinel import Sentinel, finite, sample
from layerscope.watching.sinks import Sink
from layerscope.watching.store import Store
from layerscope.watching.tensors import GRAD, Updates, described

__all__ = ["Watch", "watch"]

#: in how many steps all gradients are tested, not the small ones alone
_WHOLE = 10
#: lines an event kind may say at one step
_LINES = 4


def _stderr(line: str) -> None:
    print(f"layerscope: {line}", file=sys.stderr, flush=True)


@dataclass(eq=False, repr=False)
class watch:
    """Watch a network learn: `with layerscope.watch(model, logdir="runs/a", every=100, probe=images): ...`

    A step ends with `optimizer.step()` of the first optimizer over parameters of the model, or of `optimizer` (of the
    last of several), or else when `step` is called. Steps count from `start` + 1. Looked at are the first one and
    every `every`th one, or those for which `every(step)` is true: weights, gradients, the update, activations of the
    training batch, and the network's answer to `probe`: a tensor (B, C, H, W), image files, or whatever else the
    network is called with. `layers`: as `layerscope.features` takes them; all leaves if empty.

    `nan_every`: in how many steps gradients are tested for non-finite values; 0 for never. `scaler`: the
    GradScaler, for steps that it skips. `all_ranks`: the activations of all processes, not of the first alone.
    `to`: sinks for figures, of `layerscope.watching.sinks`. `keep`, `budget_bytes`: records that are kept, see `Store`;
    `maps_bytes`: of the probe's maps of one step. `say` gets a line for a person; by default on stderr.

    Nothing raises once the training runs. Before that: NoMatch, UsageError, ImageError, OutputError.

        >>> with layerscope.watch(model, "runs/a", every=1, tensorboard=False):
        ...     train(model)
        >>> len(list(Path("runs/a").rglob("*.layerscope")))  # a record of each step
        2

    A context manager: it looks while the block runs, and leaves nothing behind on the network. `count`: steps that are
    over. `paths`: of the layers that are looked at. `looking`: whether the step that runs now is looked at.
    """

    model: nn.Module
    logdir: str | os.PathLike[str]
    every: int | Callable[[int], bool] = 100
    probe: Any = None
    _: KW_ONLY
    layers: Layers = ()
    optimizer: Any = None
    scaler: Any = None
    activations: bool = True
    gradients: bool = True
    updates: bool = True
    nan_every: int = 1
    all_ranks: bool = False
    tensorboard: bool = True
    graph: bool = True
    to: Sequence[Sink] = ()
    start: int = 0
    keep: int = 200
    budget_bytes: int = 200_000_000
    maps_bytes: int = 1_000_000
    say: Callable[[str], None] = _stderr

    def __post_init__(self) -> None:
        if isinstance(self.every, int) and self.every < 1:
            raise UsageError(f"every: {self.every} is not a number of steps; give 1 or more")
        if self.nan_every < 0 or self.start < 0:
            raise UsageError("nan_every and start count steps; give 0 or more")
        self.network = unwrapped(self.model)
        self.paths = select(self.model, self.layers).paths
        self.count = self.start
        self.health = Health()
        self._broken: set[str] = set()
        self._running = self._ended = self._alarmed = self._wanted = self.looking = False
        self._by_hook = self._unchecked = False
        self._gradients: list[Entry] | None = None

    # a step

    @property
    def just_looked(self) -> bool:
        """Whether the step that ended last was looked at."""
        return self._seen == self.count

    def look(self) -> None:
        """Look at the next step, whichever it is."""
        self._wanted = True
        if not self.looking:
            self._arm()

    def step(self, **scalars: float | Tensor) -> None:
        """End a step by hand, and keep scalars if it is one that is looked at.

        Call it after `optimizer.step()`. A step that ended with an optimizer's is not counted twice.
        """
        if not self._runs():
            return
        if not self._by_hook:
            self._before(None, closed=True)  # the update is over: gradients are as it left them
            self._after(None)
        self._by_hook = False
        if scalars and self.just_looked:
            self.log(scalars)

    def log(self, scalars: Mapping[str, float | Tensor] | None = None, **more: float | Tensor) -> None:
        """Keep scalars of the step that ended last, whether it was looked at or not."""
        if not self._runs():
            return
        with self._guard("the figures that were logged"):
            figures = {**(scalars or {}), **more}.items()
            self._tell(self.count, {name: float(v.detach() if isinstance(v, Tensor) else v) for name, v in figures})

    def _runs(self) -> bool:
        """Whether the block runs; said once where it is over. Raises UsageError where it never began."""
        if not self._running:
            with self._guard("what comes after its block") if self._ended else nullcontext():
                raise UsageError("use it as `with layerscope.watch(...) as watch:`, and call it within")
        return self._running

    def batch(self) -> None:
        """A batch begins: to be called where the model itself is never called, but parts of it are."""
        if self.looking and self._batch:
            self._batch.begin()

    def note(self, text: str, kind: str = "note", layer: str = "") -> None:
        """Keep an event of one's own."""
        if self._runs():
            self._event(self.count, kind, layer, text)

    def diverged(self) -> None:
        """The loss of the batch that has just run is not finite: say where that began, for a loop that stops itself."""
        with self._guard("the search for non-finite values"):
            if self._sentinel:
                self._event(self.count + 1, "non-finite", *self._sentinel.name(self.paths))

    # hooks on and off

    def __enter__(self) -> watch:
        self.rank = rank()
        if self.probe is not None and not isinstance(self.probe, Probe):
            self.probe = Probe.of(self.network, self.probe)
        self._store: Store | None = None
        self._board: Board | None = None
        if self.rank == 0:
            about = {"network": type(self.network).__name__, "layerscope": __version__, "torch": torch.__version__}
            self._store = Store(Path(self.logdir), self.start, self.keep, self.budget_bytes, about, self._say)
            self._board = Board(self.logdir, self._say) if self.tensorboard else None
            if self._board and self.probe and self.graph:
                with self._guard("the graph"):
                    self._board.graph(self.network, self.probe.example)
        self._running, self._ended, self._seen = True, False, -1
        takes_part = self.activations and (self.rank == 0 or self.all_ranks)
        self._batch = Batch(self.model, self.paths, self._guard) if takes_part else None
        self._updates = Updates(self.network) if self.updates and self.rank == 0 else None
        self._skips = Skips(self.scaler)
        self._sentinel = Sentinel(self.model) if self.nan_every else None
        several = self.optimizer if isinstance(self.optimizer, list | tuple) else [self.optimizer]
        optimizers = [optimizer for optimizer in several if optimizer is not None]
        self._clock = Clock(self.network, optimizers, self._before, self._after, self._say)
        self._arm()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take everything away; what was kept is readable."""
        if not self._running:
            return
        self._running, self._ended = False, True
        self._clock.close()
        for part in (self._batch, self._sentinel, self._store, self._board):
            if part:
                part.close()

    # what happens

    def _arm(self) -> None:
        self.looking = self._wanted or self._next_is_chosen()
        self._wanted = False
        self._gradients = None
        if self.looking and self._batch:
            with self._guard("the training batch"):
                self._batch.open()

    def _next_is_chosen(self) -> bool:
        with self._guard("what `every` chooses"):
            step = self.count + 1
            return self.every(step) if callable(self.every) else step == self.start + 1 or step % self.every == 0
        return False

    def _before(self, optimizer: Optimizer | None, closed: bool) -> None:
        if not (self.looking or self._due):
            return
        with self._guard("the step"):
            skipped = self._skips.now(optimizer)
            if self.looking and self.rank == 0:
                if self._updates and optimizer is not None:
                    self._updates.before()
                if not closed:
                    self._gradients = self._graded(optimizer)
            self._unchecked = closed
            if not (closed or skipped):
                self.check()

    def check(self, updated: bool = False) -> None:
        """Test the gradients as they are now: to be called before the update of a step, if a closure makes it.

        `updated`: the update is over, and has spoilt the weights if they were not finite.
        """
        self._unchecked = False
        if not self._due or self._sentinel is None:
            return
        if self._gradients is not None:  # counted already
            fine = not any(e.total is not None and (e.total.nan[0] or e.total.inf[0]) for e in self._gradients)
        else:
            fine = finite(sample((one.grad for one in self.network.parameters()), (self.count + 1) % _WHOLE == 0))
        if not fine and not self._alarmed:
            # Of the step that ends now.
            self._event(self.count + 1, "non-finite", *self._sentinel.name(self.paths, updated))
            self._wanted = True  # the next forward pass is looked at, whichever step it is
        self._alarmed = not fine

    @property
    def _due(self) -> bool:
        return bool(self.nan_every) and (self.count + 1) % self.nan_every == 0

    def _graded(self, optimizer: Optimizer | None) -> list[Entry]:
        if not self.gradients:
            return []
        scale = self._skips.scale(optimizer)
        named = ((name, one.grad) for name, one in self.network.named_parameters() if one.grad is not None)
        return described(((name, one / scale if scale else one) for name, one in named), GRAD)

    def _after(self, optimizer: Optimizer | None) -> None:
        if self._unchecked:
            with self._guard("the step"):
                self.check(updated=True)
        self.count += 1
        self._by_hook = optimizer is not None
        if skipped := self._skips.since():
            self._event(self.count, "skipped", "", skipped)
        if self.looking:
            self.looking = False
            with self._guard("the step"):
                self._look(optimizer)
            self._seen = self.count
        self._gradients = None
        if self._sentinel:
            self._sentinel.forget()
        if self._wanted or self._next_is_chosen():
            self._arm()
        elif self._updates:
            self._updates.forget()

    def _look(self, optimizer: Optimizer | None) -> None:
        batch: list[Entry] = []
        if self._batch:
            with self._guard("the training batch"):
                batch = self._batch.entries()
            self._batch.close()
            if self.all_ranks:
                batch = merged(batch)
        if self.rank:
            return
        gradients = self._gradients if self._gradients is not None else self._graded(optimizer)
        changed = self._updates.after() if self._updates else []
        weights = described(self.network.state_dict().items())
        probe: list[Entry] = []
        if self.probe:
            with self._guard("the probe"):
                probe = self.probe.look(self.network, self.paths, self.maps_bytes)
        judged = [] if self._skips.skips else gradients  # infinite on purpose, and nothing came of it
        events = self.health.see(self.count, _paired(probe, batch), weights, judged, changed)
        if self._alarmed:  # said before the update, with its source
            events = [event for event in events if event.kind != "non-finite"]
        record = Record("features", type(self.network).__name__)
        record.pictures = list(self.probe.pictures) if self.probe and probe else []
        record.notes = [str(event) for event in events]
        record.provenance = {"layerscope": __version__, "torch": torch.__version__, "step": self.count}
        for entry in (*probe, *batch, *weights, *gradients, *changed):
            record.add(entry)
        self._tell(self.count, self.health.scalars, events, record)

    def _tell(
        self, step: int, scalars: Mapping[str, float], events: Sequence[Event] = (), record: Record | None = None
    ) -> None:
        sinks = [self._store, self._board, *self.to] if self.rank == 0 else []
        for sink in sinks:
            if sink is not None:
                with self._guard("what was handed over"):
                    sink(step, scalars, events, record)
        self._lines(events)

    def _event(self, step: int, kind: str, layer: str, text: str) -> None:
        self._tell(step, {}, [Event(step, kind, layer, text)])

    def _lines(self, events: Sequence[Event]) -> None:
        for kind in dict.fromkeys(event.kind for event in events):
            ours = [event for event in events if event.kind == kind]
            for event in ours[:_LINES]:
                self._say(str(event))
            if len(ours) > _LINES:
                self._say(f"step {ours[0].step}: {len(ours) - _LINES} more of this kind ({kind}), in {self.logdir}")

    def _say(self, line: str) -> None:
        self.say(f"rank {number}: {line}" if (number := rank()) else line)

    @contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        """A fault in here must not end the training: it is said once, and the rest goes on."""
        try:
            yield
        except Exception as error:  # a network, a disk or a sink may raise anything
            if what not in self._broken:
                self._broken.add(what)
                said = " ".join(str(error).split())[:300]
                kind = "" if isinstance(error, LayerscopeError) else f"{type(error).__name__}: "
                self._say(f"step {self.count}: {what} cannot be looked at ({kind}{said}); the training goes on")


Watch = watch  # as a type


def _paired(probe: list[Entry], batch: list[Entry]) -> list[list[Entry]]:
    """For each output of a layer what is known of it, in the order of the forward pass: the batch's in front."""
    found = {entry.key: [entry] for entry in probe}
    pairs: dict[str, list[Entry]] = {}
    for entry in batch:
        key = entry.key.replace("/batch", "", 1)
        pairs[key] = [entry, *found.pop(key, [])]
    return [*pairs.values(), *found.values()]
