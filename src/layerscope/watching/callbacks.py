"""The same watch as a callback of Lightning, of transformers' Trainer, and of loops with callbacks as Keras has them.

    trainer = lightning.Trainer(callbacks=[lightning_callback("runs/a", every=100, probe=images)])
    trainer = transformers.Trainer(model, args, callbacks=[transformers_callback("runs/a", every=100)])
    callback = LoopCallback(model, "runs/a")  # on_train_begin(), on_train_batch_end(3, {"loss": 0.5}), ...

All options are those of `layerscope.watch`. The libraries are imported when a callback is made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from layerscope.watching.watcher import Watch, watch

__all__ = ["LoopCallback", "lightning_callback", "transformers_callback"]

Path = str | os.PathLike[str]


def _figures(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """What in a dict of logs is a figure."""
    found = {}
    for name, value in (logs or {}).items():
        if isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1):
            found[str(name)] = float(value)
    return found


class LoopCallback:
    """For loops that call `on_train_begin`, `on_train_batch_end`, `on_epoch_end` and `on_train_end` as Keras does."""

    def __init__(self, model: nn.Module, logdir: Path, **options: Any) -> None:
        self.make: Callable[[], Watch] = lambda: watch(model, logdir, **options)
        self.watch: Watch | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """The training begins."""
        self.watch = self.make().__enter__()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """After `optimizer.step()`; figures are kept in chosen steps."""
        assert self.watch, "on_train_begin comes first"
        self.watch.step(**_figures(logs))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Figures of an epoch are kept, whatever the step."""
        assert self.watch, "on_train_begin comes first"
        self.watch.log({"epoch": epoch + 1, **_figures(logs)})

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """The training is over."""
        if self.watch:
            self.watch.close()


def lightning_callback(logdir: Path, **options: Any) -> Any:
    """A callback for `lightning.Trainer`. Its `watch` is there while the training runs."""
    try:
        from lightning.pytorch.callbacks import Callback
    except ImportError:
        from pytorch_lightning.callbacks import Callback

    class Watching(Callback):  # type: ignore[misc]
        watch: Watch | None = None
        logged = -1

        def on_train_start(self, trainer: Any, module: nn.Module) -> None:
            self.watch = watch(module, logdir, **{"start": trainer.global_step, **options}).__enter__()

        def on_train_batch_start(self, trainer: Any, module: nn.Module, *_: Any) -> None:
            if self.watch:
                self.watch.batch()  # Lightning calls training_step, which need not call the module itself

        def on_train_batch_end(self, trainer: Any, module: nn.Module, *_: Any) -> None:
            if self.watch and self.watch.just_looked and self.logged != self.watch.count:
                self.logged = self.watch.count
                self.watch.log(_figures(trainer.callback_metrics))

        def on_validation_epoch_end(self, trainer: Any, module: nn.Module) -> None:
            if self.watch and not trainer.sanity_checking:
                self.watch.log(_figures(trainer.callback_metrics))

        def on_before_optimizer_step(self, trainer: Any, module: nn.Module, optimizer: Any) -> None:
            if self.watch:
                self.watch.check()  # the weights are whole yet; later the closure of the step is over

        def teardown(self, *_: Any, **__: Any) -> None:
            if self.watch:
                self.watch.close()

        on_exception = teardown

    return Watching()


def transformers_callback(logdir: Path, **options: Any) -> Any:
    """A callback for `transformers.Trainer`; what the Trainer logs is kept, too."""
    from transformers import TrainerCallback

    class Watching(TrainerCallback):  # type: ignore[misc]
        watch: Watch | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
            if model is not None:
                self.watch = watch(model, logdir, **{"start": state.global_step, **options}).__enter__()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if self.watch:
                self.watch.log(_figures(logs))

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.watch:
                self.watch.close()

    return Watching()
