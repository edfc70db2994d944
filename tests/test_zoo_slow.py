"""Every classification network of torchvision, one of each family of the others, twenty families of timm: slow.

Random weights, batches of one, the smallest input that each takes: what is tested is that hooks, layouts and
statistics cope, not what the network says. Two are only built without memory, since their weights need gigabytes.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

import layerscope
from layerscope.activations.modules import Table
from layerscope.images.preprocessing import PIXELS
from layerscope.networks.build import build, unbuilt
from layerscope.networks.open import Network

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

#: 2.6 and 2.5 GB of weights; their smaller siblings have the same layers
TOO_LARGE = ("regnet_y_128gf", "vit_h_14")
#: the smallest side that the network's own arithmetic allows; 64 for the others
SIDES = {"inception_v3": 75, "vit_b_16": 224, "vit_b_32": 224, "vit_l_16": 224, "vit_l_32": 224, "maxvit_t": 224}
CLASSIFY = torchvision.models.list_models(module=torchvision.models)
DETECT = [
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fcos_resnet50_fpn", "keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large",
]  # fmt: skip
SEGMENT = ["deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large"]
VIDEO = ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "swin3d_t"]
TIMM = [
    "beit_base_patch16_224", "cait_xxs24_224", "coat_lite_tiny", "convmixer_768_32", "convnext_atto", "davit_tiny",
    "deit_tiny_distilled_patch16_224", "eca_nfnet_l0", "edgenext_xx_small", "efficientformer_l1", "ghostnet_050",
    "hrnet_w18_small", "levit_128s", "mixer_s32_224", "mobilenetv3_small_050", "mobilevit_xxs", "poolformer_s12",
    "pvt_v2_b0", "repvgg_a0", "resnest14d", "swin_tiny_patch4_window7_224", "vit_small_patch14_reg4_dinov2",
    "xcit_nano_12_p16_224",
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def look(model: torch.nn.Module, x: Any, **options: Any) -> layerscope.Record:
    """A record in which every leaf that ran has finite figures, and every other one is listed."""
    record = layerscope.features(model, x, **options)
    assert len(record) > 5
    table = Table(getattr(model, "model", model))
    leaves = [path for path in table.observable if path in table.leaves]
    shown = {entry.site.path for entry in record.values()} | set(record.never)
    assert not [
        path for path in leaves if not any(one == path or one.startswith((f"{path}[", f"{path}.")) for one in shown)
    ]
    for entry in record.values():
        assert entry.columns is not None
        assert np.all(entry.columns.count + entry.columns.nan + entry.columns.inf > 0)
        assert entry.site.layout or len(entry.shape) > 5
    return record


@pytest.mark.parametrize("name", CLASSIFY)
def test_torchvision(name):
    if name in TOO_LARGE:
        assert len(Table(unbuilt(f"torchvision:{name}")).observable) > 100
        return
    side = SIDES.get(name, 64)
    record = look(build(f"torchvision:{name}", 10), torch.randn(1, 3, side, side))
    assert len(record.predictions) == 1


@pytest.mark.parametrize("name", DETECT)
def test_detection(name, tmp_path):
    model = build(f"torchvision:{name}", 3).eval()
    if hasattr(model.transform, "min_size") and not name.startswith("ssd"):
        model.transform.min_size, model.transform.max_size = (96,), 128
    record = look(Network(model, name, PIXELS), torch.rand(1, 3, 96, 128), maps=False)
    assert any(path.startswith("backbone") for path in record.entries)


@pytest.mark.parametrize("name", SEGMENT)
def test_segmentation(name):
    record = look(build(f"torchvision:{name}", 4), torch.randn(1, 3, 64, 96))
    assert {entry.site.layout for entry in record.values()} <= {"NCHW", "NC"}


@pytest.mark.parametrize("name", VIDEO)
def test_video(name):
    side = 224 if name in ("mvit_v1_b", "s3d") else 64
    # MViT's attention is 25,089 x 25,089 in its first block: that is the minute, not the maps.
    record = look(build(f"torchvision:{name}", 4), torch.randn(1, 3, 16, side, side), maps=False)
    assert any(entry.site.layout == "NCDHW" for entry in record.values())


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm")
    model = build(f"timm:{name}", 7)
    size = importlib.import_module("timm.data").resolve_model_data_config(model)["input_size"]
    fixed = any(word in name for word in ("patch", "levit", "mixer", "coat", "cait", "davit", "efficientformer"))
    side = size[-1] if fixed else min(size[-1], 128)
    assert timm.is_model(name)
    record = look(model, torch.randn(1, 3, side, side))
    assert len(record.predictions) == 1
