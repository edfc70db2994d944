"""The callbacks and sinks with the real libraries, where they are installed; offline."""

from __future__ import annotations

import json
import os
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from layerscope.watching import open_run
from layerscope.watching.callbacks import LoopCallback
from layerscope.watching.sinks import table

from .conftest import Net, learn

#: these libraries warn of each other
OTHERS = pytest.mark.filterwarnings("ignore")


def test_a_loop_with_callbacks(net, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    callback = LoopCallback(net, tmp_path, every=2)
    callback.on_train_begin()
    for epoch in range(2):
        for number in range(3):
            loss = learn(net, optimizer)
            callback.on_train_batch_end(number, {"loss": loss.item(), "name": "no figure"})
        callback.on_epoch_end(epoch, {"val_loss": 0.5})
    callback.on_train_end()
    run = open_run(tmp_path)
    assert run.steps == [1, 2, 4, 6]
    assert [step for step, _ in run.scalars["loss"]] == [1, 2, 4, 6]
    assert run.scalars["val_loss"] == [(3, 0.5), (6, 0.5)]
    assert run.scalars["epoch"] == [(3, 1), (6, 2)]
    assert "name" not in run.scalars


def test_the_table_of_a_record(net, quiet, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net):
        learn(net, optimizer)
    record = open_run(tmp_path / "run").record(1)
    columns = table(record)
    assert columns["tensor"] == [entry.key for entry in record.values() if entry.total is not None]
    assert {len(column) for column in columns.values()} == {len(columns["tensor"])}
    at = columns["tensor"].index("conv.weight")
    assert columns["max"][at] == pytest.approx(net.conv.weight.max().item())
    assert json.loads(json.dumps(columns)) == columns


def data(many: int = 40) -> torch.utils.data.DataLoader:
    images, targets = torch.randn(many, 3, 10, 10), torch.randint(0, 4, (many,))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, targets), 4)


@pytest.mark.slow
@OTHERS
def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")
    from layerscope.watching.callbacks import lightning_callback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, _number):
            loss = cross_entropy(self.net(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def validation_step(self, batch, _number):
            self.log("val", cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-3)

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=[lightning_callback(tmp_path / "run", every=3)], accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, accumulate_grad_batches=2, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, data(), data())
    run = open_run(tmp_path / "run")
    assert run.steps == [1, 3, 6, 9]
    record = run.record(6)
    assert record["net.conv/batch"].shape[0] == 8  # two batches of four, accumulated
    assert record["net.conv.weight/grad"].total.std[0] > 0
    assert record["net.conv.weight/update"].total.std[0] > 0
    assert [step for step, _ in run.scalars["loss"]][:2] == [1, 3]
    assert 5 in [step for step, _ in run.scalars["val"]]
    assert not module._forward_hooks


@pytest.mark.slow
@OTHERS
def test_lightning_names_what_is_no_number(tmp_path):
    lightning = pytest.importorskip("lightning")
    from layerscope.watching.callbacks import lightning_callback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, number):
            return cross_entropy(self.net(batch[0]), batch[1]) * (float("nan") if number == 4 else 1)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-3)

    trainer = lightning.Trainer(
        max_epochs=1, callbacks=[lightning_callback(tmp_path / "run", every=100)], accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), data())
    first = next(event for event in open_run(tmp_path / "run").events if event.kind == "non-finite")
    assert first.step == 5
    assert "gradients hold non-finite values" in first.text


@pytest.mark.slow
@OTHERS
def test_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from layerscope.watching.callbacks import transformers_callback

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4,
        num_labels=3,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    images = [{"pixel_values": torch.randn(3, 16, 16), "labels": torch.tensor(number % 3)} for number in range(24)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "hf"), per_device_train_batch_size=4, num_train_epochs=2, logging_steps=5,
        report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    callback = transformers_callback(tmp_path / "run", every=4, probe=torch.randn(2, 3, 16, 16), graph=False)
    transformers.Trainer(model, arguments, train_dataset=images, callbacks=[callback]).train()
    run = open_run(tmp_path / "run")
    assert run.steps == [1, 4, 8, 12]
    assert [step for step, _ in run.scalars["loss"]] == [5, 10]
    record = run.record(8)
    assert record["vit.layers.0.mlp.fc1"].shape[0] == 2
    assert record["vit.layers.0.mlp.fc1/batch"].shape[0] == 4


def watched(net: nn.Module, quiet, sink) -> None:
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with quiet(net, every=2, to=[sink]) as watch:
        for _ in range(4):
            learn(net, optimizer)
            watch.step(loss=0.5)


@pytest.mark.slow
@OTHERS
def test_wandb_offline(net, quiet, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb = pytest.importorskip("wandb")
    from layerscope.watching.sinks import wandb_sink

    with wandb.init(project="test", dir=str(tmp_path)) as run:
        watched(net, quiet, wandb_sink(run))
        summary = dict(run.summary)
    assert summary["watched step"] == 4
    assert summary["loss"] == 0.5
    assert summary["gradient norm"] > 0
    counts, _ = torch.histogram(net.conv.weight.detach(), 50)
    assert list(summary["histograms/conv.weight"]["values"]) == pytest.approx(counts.tolist())
    assert "tensors" in summary


@pytest.mark.slow
@OTHERS
def test_mlflow_files(net, quiet, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    from layerscope.watching.sinks import mlflow_sink

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
        with mlflow.start_run() as run:
            watched(net, quiet, mlflow_sink())
        client = mlflow.MlflowClient()
        history = client.get_metric_history(run.info.run_id, "loss")
        files = [os.path.basename(one.path) for one in client.list_artifacts(run.info.run_id, "layerscope")]  # noqa: PTH119
    assert [(one.step, one.value) for one in history] == [(1, 0.5), (2, 0.5), (4, 0.5)]
    assert {"000000001.json", "000000002.json", "000000004.json"} <= set(files)
