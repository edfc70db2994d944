"""The best checkpoint on disk, and beside it what else is needed to use it: classes and preprocessing."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import torch

from layerscope.errors import OutputError, writing
from layerscope.files import save
from layerscope.networks.open import Network, table_in
from layerscope.training.loop import Epoch

__all__ = ["Best"]


class Best:
    """Keeps the state of the epoch with the best validation accuracy in a file; of equals the least loss.

    The file is replaced as a whole the moment an epoch is better, so that there is a whole one whenever the
    training ends. Raises OutputError at once if nothing can be written there: not after an hour of training.
    """

    def __init__(self, path: Path, network: Network) -> None:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file for the checkpoint, such as {path / 'network.pth'}")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()
        self.path, self.network = path, network
        self.epoch: Epoch | None = None

    def offer(self, epoch: Epoch) -> bool:
        """Write the network to the file if this epoch is better than those before; whether it is."""
        if self.epoch and _merit(epoch) <= _merit(self.epoch):
            return False
        buffer = io.BytesIO()
        state = self.network.model.state_dict()
        for name, tensor in state.items():
            state[name] = tensor.cpu()  # for machines without this device
        torch.save(state, buffer)
        save(buffer.getvalue(), self.path)
        if not self.epoch:
            self._note_classes()
        self.epoch = epoch
        return True

    def _note_classes(self) -> None:
        """Add this checkpoint to `classes.json`, which may know others in the same folder."""
        about = {
            "classes": self.network.labels,
            "network": self.network.name,
            "preprocessing": self.network.preprocessing.to_json(),
        }
        file = self.path.with_name("classes.json")
        text = json.dumps({**table_in(file), self.path.name: about}, indent=2, ensure_ascii=False)
        save(text.encode(), file)

    def __str__(self) -> str:
        if not self.epoch:
            return "no epoch was finished, nothing was saved"
        accuracy, number = self.epoch.val.accuracy, self.epoch.number
        return f"the best so far, accuracy {accuracy:.4f} after epoch {number}, is in {self.path}"


def _merit(epoch: Epoch) -> tuple[float, float]:
    return epoch.val.accuracy, -epoch.val.loss
