"""Any network that a user brings: awkward ones, foreign ones, several inputs, every layout, early stop, functions."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layerscope
from layerscope.activations.collector import Collector
from layerscope.activations.hooks import calls_in_full_pass, observing
from layerscope.activations.modules import Table
from layerscope.errors import NetworkError, NoMatch
from layerscope.inspection import structure
from layerscope.networks.feeding import run as forward
from layerscope.networks.open import open_network
from tests.units.zoo import ZOO, Net, conv

PAIR = namedtuple("PAIR", "first second")


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: list[torch.Tensor]


class Plain:
    """No dataclass, no tuple: what somebody wrote in 2018."""

    def __init__(self, tensors):
        self.tensors, self.sizes = tensors, [(3, 4)]


def same(record, wanted) -> None:
    """The figures of a record are those of whole tensors."""
    assert set(record.entries) == set(wanted)
    for key, tensor in wanted.items():
        entry = record[key]
        values = tensor.abs() if tensor.is_complex() else tensor
        axis = entry.site.channel_axis
        values = values.float().movedim(axis, 0).flatten(1) if axis is not None else values.float().reshape(1, -1)
        np.testing.assert_array_equal(entry.columns.min, values.amin(1))
        np.testing.assert_array_equal(entry.columns.max, values.amax(1))
        np.testing.assert_allclose(entry.columns.mean, values.double().mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ZOO)
def test_every_animal_of_the_zoo(name):
    animal = ZOO[name]()
    x = animal.x
    assert len(layerscope.features(animal.model, x, ops=True, attention=True))
    record = layerscope.features(animal.model, x)
    network = open_network(animal.model)
    table, wanted = Table(network.model), {}
    paths = [path for path in table.observable if path in table.leaves]

    def keep(site, _module, tensor):
        wanted[site.key] = tensor.clone()

    around = [path for path in table.observable if path not in table.leaves]  # for those of which nothing inside runs
    with torch.no_grad(), observing(table, paths, keep, fallback=around):
        forward(network, x)
    same(record, wanted)
    ran = {key.partition(":")[0].partition("[")[0] for key in wanted}
    assert set(record.never) == table.leaves - ran


@pytest.mark.parametrize("name", ["residual", "vit", "windowed_attention", "upsampled", "half", "reads_numpy"])
def test_reducing_on_the_device_gives_the_same(name):
    """The route for accelerators, forced on the CPU."""
    animal = ZOO[name]()
    records = []
    for on_device in (False, True):
        collector = Collector(on_device=on_device)
        table = Table(animal.model)
        with torch.no_grad(), observing(table, table.leaves, collector.keep):
            animal.model(animal.x)
        records.append({entry.key: entry for entry in collector.entries()})
    for key, ours in records[0].items():
        theirs = records[1][key]
        for name in ("count", "zeros", "nan", "inf", "min", "max"):
            np.testing.assert_array_equal(getattr(ours.columns, name), getattr(theirs.columns, name))
        np.testing.assert_allclose(ours.columns.mean, theirs.columns.mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(ours.columns.m2, theirs.columns.m2, rtol=1e-5, atol=1e-9)
        # numba may multiply and add at once: a value in the middle between two codes can go either way
        steps = np.abs(ours.maps[0].codes.astype(int) - theirs.maps[0].codes)
        assert steps.max() <= 1 and steps.mean() < 1e-3


def test_the_device_route_with_nan_infinities_and_large_maps():
    x = torch.randn(2, 3, 300, 520)
    x[0, 0, 0, 0], x[0, 1] = torch.inf, torch.nan
    found = []
    for on_device in (False, True):
        collector = Collector(on_device=on_device)
        with observing(model := nn.Identity(), ["Identity"], collector.keep):
            model(x)
        found.append(next(iter(collector.entries())))
    for field, (ours, theirs) in zip(
        found[0].columns._fields, zip(*(f.columns for f in found), strict=True), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=field)
    for ours, theirs in zip(found[0].maps, found[1].maps, strict=True):
        assert ours.shape == theirs.shape
        assert np.mean(ours.codes != theirs.codes) < 1e-3
        np.testing.assert_array_equal(ours.lo, theirs.lo)


def test_outputs_of_every_kind():
    def run(n, x):
        y = n.a(x)
        return n.last(n.pair(y).first + n.mapping(y)["b"][0] + n.data(y).logits + n.plain(y).tensors + n.empty(y).sum())

    model = Net(
        run, a=conv(3, 4), last=conv(4, 2),
        pair=Net(lambda n, y: PAIR(y + 1, y + 2)), mapping=Net(lambda n, y: OrderedDict(a=y, b=(y * 2, None, "text"))),
        data=Net(lambda n, y: Output(y, [y * 3, y * 4])), plain=Net(lambda n, y: Plain(y * 5)),
        empty=Net(lambda n, y: y[:0]),
    )  # fmt: skip
    record = layerscope.features(model, torch.randn(2, 3, 8, 8))
    assert list(record.entries) == [
        "a", "pair", "pair[1]", "mapping[a]", "mapping[b]", "data[logits]", "data[hidden]", "data[hidden][1]",
        "plain[tensors]", "last",
    ]  # fmt: skip
    assert record.never == []  # `empty` ran and gave nothing
    np.testing.assert_allclose(record["data[hidden][1]"].columns.max, 4 * record["a"].columns.max, rtol=1e-6)


def test_inputs_of_every_kind():
    a, b = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    two = Net(lambda n, x, y: n.last(x + y), last=conv(3, 2))
    assert layerscope.features(two, (a, b))["last"].shape == (2, 2, 8, 8)
    named = nn.Module()
    named.last, named.forward = conv(3, 2), lambda *, image, factor: named.last(image * factor)
    assert layerscope.features(named, {"image": a, "factor": 3})["last"].shape == (2, 2, 8, 8)
    listed = Net(lambda n, images: [n.last(image[None]) for image in images], last=conv(3, 2))
    record = layerscope.features(listed, [torch.randn(3, 8, 8), torch.randn(3, 12, 6)])
    assert [entry.shape for entry in record.values()] == [(1, 2, 8, 8), (1, 2, 12, 6)]
    with pytest.raises(NetworkError, match=r"forward raised TypeError on an input \(tuple\)"):
        layerscope.features(two, (a,))


def test_photos_become_clips_for_a_video_network(tmp_path, photo):
    model = nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(True))
    record = layerscope.features(model, photo)
    assert record["0"].shape == (1, 4, 14, 110, 110)
    assert record["0"].site.layout == "NCDHW"
    assert record.notes == ["each photo is repeated over 16 frames: nothing moves"]


def test_detection_networks_take_a_list(photo):
    from torchvision.models import detection

    model = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=3)
    model.transform.min_size, model.transform.max_size = (64,), 64
    record = layerscope.features(model, photo, maps=False)
    assert record.provenance["preprocessing"] == "mean 0, 0, 0; std 1, 1, 1"
    assert "transform[tensors]" in record.entries
    assert "roi_heads.box_predictor.cls_score" in record.entries


def ran(model, paths, x, known=True):
    """(what was emitted, whether the pass ran to its end)"""
    seen, ended = [], False
    limit = calls_in_full_pass(model, paths, x) if known else None
    with torch.no_grad(), observing(model, paths, lambda site, *_: seen.append(site.key), limit):
        model(x)
        ended = True
    return seen, ended


def test_the_pass_stops_once_the_last_wanted_call_is_over(small):
    x = torch.randn(1, 3, 8, 8)
    small.eval()
    assert ran(small, ["stem"], x) == (["stem"], True)  # the first pass learns
    assert ran(small, ["stem"], x) == (["stem"], False)
    assert ran(small, ["block.relu"], x) == (["block.relu", "block.relu:1"], True)
    assert ran(small, ["block.relu"], x) == (["block.relu", "block.relu:1"], False)  # it runs twice: both are there
    assert ran(small, ["block.conv", "stem"], x) == (["stem", "block.conv"], True)
    assert ran(small, ["block.conv", "stem"], x) == (["stem", "block.conv"], False)  # not before the last of both
    assert ran(small, ["stem"], torch.randn(2, 3, 8, 8)) == (["stem"], True)  # other inputs may take other ways
    assert ran(small, ["stem"], x, known=False) == (["stem"], True)
    assert ran(small, ["spare"], x)[1] and ran(small, ["spare"], x)[1]  # never runs: nothing to wait for
    assert not any(module._forward_hooks for module in small.modules())


def test_a_module_that_runs_again_at_the_very_end_is_not_lost():
    act = nn.ReLU()
    model = nn.Sequential(act, conv(3, 3), conv(3, 3), act)
    x = torch.randn(1, 3, 8, 8)
    for _ in range(3):
        assert ran(model, ["0"], x) == (["0", "0:1"], True) or ran(model, ["0"], x)[0] == ["0", "0:1"]


def test_features_without_predictions_stop_early(small):
    calls = []
    small.head.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(48, 3, 8, 8)
    record = layerscope.features(small, x, layers="stem", predict=False)
    assert len(calls) == 1  # three passes, and the first one learned
    want = layerscope.features(small, x, layers="stem")
    assert len(calls) == 4
    np.testing.assert_array_equal(record["stem"].columns.mean, want["stem"].columns.mean)
    assert record.predictions == [] and len(want.predictions) == 48


def test_a_network_that_swallows_exceptions_is_stopped_all_the_same():
    def run(n, x):
        try:
            return n.b(n.a(x))
        except Exception:
            return None

    model = Net(run, a=conv(3, 4), b=conv(4, 4))
    x = torch.randn(1, 3, 8, 8)
    ran(model, ["a"], x)
    assert ran(model, ["a"], x) == (["a"], False)


class Tokens(nn.Module):
    """A ViT with `extra` tokens in front, on a grid that need not be square."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.tokens = nn.Parameter(torch.zeros(1, extra, 8))
        self.norm = nn.LayerNorm(8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.act = nn.GELU()

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)  # (B, L, C)
        x = self.norm(torch.cat([self.tokens.expand(len(x), -1, -1), x], 1))
        return self.act(x + self.attend(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("extra", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [(16, 16), (12, 24)])
def test_tokens_go_back_on_their_grid(extra, size):
    model, x = Tokens(extra), torch.randn(2, 3, *size)
    record = layerscope.features(model, x, attention=True)
    grid = (size[0] // 4, size[1] // 4)
    for key in ("norm", "attend", "act"):
        entry = record[key]
        assert (entry.site.layout, entry.maps[1].shape) == ("NLC", (8, *grid))
        assert entry.note.startswith(f"{extra} token") == (extra > 0)
    with torch.no_grad(), layerscope.capture(model.eval(), "norm") as seen:
        model(x)
    patches = seen["norm"][1, extra:].T.reshape(8, *grid)
    np.testing.assert_allclose(record["norm"].maps[1].values(), patches, atol=0.02)
    heads = record["attend/attention"]
    assert (heads.shape, heads.site.layout, heads.maps[0].shape) == (
        (2, 2, *2 * (grid[0] * grid[1] + extra,)),
        "NCLL",
        (2, *grid),
    )
    np.testing.assert_allclose(heads.columns.mean, 1 / heads.shape[-1], rtol=1e-5)
    weights = model.attend(*[seen["norm"]] * 3, average_attn_weights=False)[1][1]  # (heads, L, L)
    view = (weights[:, 0] if extra else weights.mean(1))[:, extra:].reshape(2, *grid).detach()
    np.testing.assert_allclose(heads.maps[1].values(), view, atol=float(view.max()) / 200)


def test_torchvisions_layer_norm_over_channels_and_swins_windows():
    from torchvision.models.convnext import LayerNorm2d

    model = nn.Sequential(conv(3, 6), LayerNorm2d(6), nn.GELU())
    record = layerscope.features(model, torch.randn(1, 3, 5, 6))
    assert {entry.site.layout for entry in record.values()} == {"NCHW"}
    model = Net(
        lambda n, x: n.attend(n.norm(n.patch(x).permute(0, 2, 3, 1)).view(-1, 2, 2, 2, 2, 8).transpose(2, 3).reshape(-1, 4, 8)),  # noqa: E501
        patch=nn.Conv2d(3, 8, 4, stride=4), norm=nn.LayerNorm(8), attend=nn.Linear(8, 8),
    )  # fmt: skip
    x = torch.randn(3, 3, 16, 16)
    nn.init.eye_(model.attend.weight), nn.init.zeros_(model.attend.bias)
    record = layerscope.features(model, x)
    assert record["norm"].site.layout == "NHWC"
    windows = record["attend"]
    assert windows.shape == (12, 4, 8)
    assert windows.note == "2 x 2 windows of 2 x 2, put side by side"
    assert len(windows.maps) == 3
    for ours, whole in zip(windows.maps, record["norm"].maps, strict=True):
        np.testing.assert_array_equal(ours.codes, whole.codes)


def test_sequence_first_transformers():
    model = nn.Sequential(
        nn.Conv1d(2, 8, 3, padding=1), Net(lambda n, x: n.norm(x.permute(2, 0, 1)), norm=nn.LayerNorm(8))
    )
    record = layerscope.features(model, torch.randn(3, 2, 10))
    assert record["0"].site.layout == "NCL"
    assert (record["1.norm"].site.layout, record["1.norm"].shape, len(record["1.norm"].maps)) == ("NLC", (3, 10, 8), 3)


def test_functions_have_stable_readable_names():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = conv(4, 4), nn.BatchNorm2d(4)

        def forward(self, x):
            y = F.relu(self.norm(self.conv(x)), inplace=True)
            y = torch.add(y, x) + 1
            y *= torch.sigmoid(y.mean((2, 3), keepdim=True))
            return torch.cat([y, F.interpolate(y, scale_factor=1.0)], 1)[:, :4]

    model = Net(
        lambda n, x: F.softmax(n.head(torch.flatten(n.blocks(x), 1)), 1),
        blocks=nn.Sequential(Block(), Block()),
        head=nn.Linear(144, 3),
    )
    x = torch.randn(2, 4, 6, 6)
    record = layerscope.features(model, x, ops=True)
    block = ["conv", "norm", "/relu", "/add", "/add:1", "/mean", "/sigmoid", "/mul", "/interpolate", "/cat", "/getitem"]
    paths = [f"blocks.{n}" + (part if part[0] == "/" else f".{part}") for n in (0, 1) for part in block]
    assert list(record.entries) == [*paths, "/flatten", "head", "/softmax"]
    assert record["blocks.0/add:1"].type == "add"
    assert record["blocks.0/add"].columns.min.min() < record["blocks.0/relu"].columns.min.min() + 1e9
    np.testing.assert_allclose(
        record["blocks.0/add:1"].columns.mean, record["blocks.0/add"].columns.mean + 1, rtol=1e-5
    )
    assert list(layerscope.features(model, x, layers="*/add", ops=True).entries) == [p for p in paths if "/add" in p]
    assert list(layerscope.features(model, x, layers=["relu", "head"], ops=True).entries)[-1] == "head"
    with pytest.raises(NoMatch):
        layerscope.features(model, x, layers="nothing", ops=True)


def test_what_the_statistics_call_is_no_function_of_the_network():
    model = nn.Sequential(Net(lambda n, x: torch.fft.fft2(n.a(x)), a=conv(3, 4)))
    with pytest.raises(NoMatch, match="no layer and no function matches 'abs'"):
        layerscope.features(model, torch.randn(1, 3, 8, 8), layers=["0", "abs"], ops=True)


def test_attention_of_timm_and_of_plain_softmax():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=3).eval()
    x = torch.randn(1, 3, 64, 64)
    fused = layerscope.features(model, x, layers="*/attention", attention=True)
    assert list(fused.entries) == ["blocks.0.attn/attention", "blocks.1.attn/attention"]
    for block in model.blocks:
        block.attn.fused_attn = False
    plain = layerscope.features(model, x, layers="*/attention", attention=True)
    for key, entry in fused.entries.items():
        assert (entry.shape, entry.maps[0].shape) == ((1, 3, 17, 17), (3, 4, 4))
        np.testing.assert_allclose(entry.columns.max, plain[key].columns.max, rtol=1e-5)


def wrapped(function):
    return functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))


@pytest.mark.parametrize("fused", [True, False])
def test_attention_where_another_tool_has_wrapped_the_functions_of_torch(monkeypatch, fused):
    def attend(net, x):  # one head of four values, (B, 1, 9, 4)
        q = net.a(x).flatten(2).transpose(1, 2)[:, None]
        return F.scaled_dot_product_attention(q, q, q) if fused else (q @ q.transpose(2, 3)).softmax(-1) @ q

    model = nn.Sequential(Net(attend, a=conv(3, 4)), Net(lambda net, x: net.a(x[:, 0], x[:, 0], x[:, 0])[0]))
    model[1].a = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.randn(1, 3, 3, 3)
    want = ["0/attention", "1.a/attention"]
    assert [
        entry.key for entry in layerscope.features(model, x, attention=True).values() if entry.type == "attention"
    ] == want
    for name in ("scaled_dot_product_attention", "multi_head_attention_forward"):
        monkeypatch.setattr(F, name, wrapped(getattr(F, name)))
    monkeypatch.setattr(torch.Tensor, "softmax", wrapped(torch.Tensor.softmax))
    assert [
        entry.key for entry in layerscope.features(model, x, attention=True).values() if entry.type == "attention"
    ] == want


@pytest.fixture
def awkward():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = conv(4, 4), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.relu(self.conv(x)) + x)

    torch.manual_seed(0)
    return nn.Sequential(
        conv(3, 4), nn.BatchNorm2d(4), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("live", [False, True])
def test_torchscript_shows_its_layers(awkward, tmp_path, how, live):
    x = torch.randn(2, 3, 8, 8)
    script = torch.jit.script(awkward) if how == "script" else torch.jit.trace(awkward, x)
    script.save(tmp_path / "net.pt")
    script.train()
    record = layerscope.features(script if live else str(tmp_path / "net.pt"), x)
    assert script.training and getattr(script, "1").training
    want = layerscope.features(awkward, x)
    assert [(entry.key, entry.type) for entry in record.values()] == [
        (entry.key, entry.type) for entry in want.values()
    ]
    for entry in want.values():
        np.testing.assert_array_equal(record[entry.key].columns.mean, entry.columns.mean)
    assert record.notes[-1].startswith("TorchScript: its graph is run node by node")
    assert record.predictions == want.predictions


@pytest.mark.filterwarnings("ignore")
def test_torchscript_with_control_flow_and_what_cannot_be_seen():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = conv(4, 4)

        def forward(self, x, times: int = 3):
            outputs = []
            for _ in range(times):
                x = self.mix(x)
                if float(x.mean()) > 1e9:
                    raise ValueError("too large")
                outputs.append(x)
            return torch.cat(outputs, 1)

    loop = Loop().eval()
    record = layerscope.features(torch.jit.script(loop), torch.randn(1, 4, 8, 8))
    assert list(record.entries) == ["mix", "mix:1", "mix:2"]
    frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(conv(3, 4), nn.ReLU())).eval())
    record = layerscope.features(frozen, torch.randn(1, 3, 8, 8))
    assert len(record) == 1
    assert "its output alone can be seen" in record.notes[-1]


@pytest.mark.skipif(torch.__version__.startswith("2.4."), reason="torch 2.4 cannot unflatten what it has loaded")
@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_has_its_modules_back(awkward, tmp_path):
    x = torch.randn(2, 3, 8, 8)
    torch.export.save(torch.export.export(awkward, (x,)), tmp_path / "net.pt2")
    record, want = layerscope.features(str(tmp_path / "net.pt2"), x), layerscope.features(awkward, x)
    assert [(entry.key, entry.type) for entry in record.values()] == [
        (entry.key, entry.type) for entry in want.values()
    ]
    for entry in want.values():
        np.testing.assert_allclose(record[entry.key].columns.mean, entry.columns.mean, rtol=1e-6)
    assert open_network(str(tmp_path / "net.pt2")).preprocessing.size == (8, 8)  # it was exported for no other


def test_outputs_that_are_no_usual_tensors():
    def run(n, x):
        for part in (n.total, n.mask, n.best, n.sparse, n.ragged, n.six, n.expanded, n.negated):
            part(x)
        return x

    def part(work):
        return Net(lambda n, x: work(x))

    model = Net(
        run,
        total=part(lambda x: x.sum()), mask=part(lambda x: x > 0), best=part(lambda x: x.argmax(1)),
        sparse=part(lambda x: torch.eye(2).to_sparse()),
        ragged=part(lambda x: torch.nested.nested_tensor([x[0], x[0]])),
        six=part(lambda x: x.new_zeros(1, 1, 1, 1, 1, 2)), expanded=part(lambda x: x[:1].expand(2, -1, -1, -1)),
        negated=part(lambda x: torch.view_as_complex(torch.ones(2, 3, 4, 2)).conj().imag),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = layerscope.features(model, torch.randn(2, 3, 4, 4))
    assert list(record.entries) == ["mask", "best", "sparse", "six", "expanded", "negated"]
    assert record.never == []
    assert record["mask"].dtype == "bool" and record["six"].site.layout == ""
    np.testing.assert_array_equal(record["negated"].columns.max, -1)


def test_the_structure_counts_calls_whatever_the_output_is():
    model = Net(lambda n, x: n.a(n.a(x)["y"]), a=Net(lambda n, x: {"y": x + 1}))
    found = structure(open_network(model), torch.ones(1, 3, 4, 4))
    assert [(layer.path, layer.calls, layer.shape) for layer in found] == [("a", 2, (1, 3, 4, 4))]


def test_a_broken_program_is_said(tmp_path, awkward):
    import zipfile

    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/code/__torch__.py", b"")
    with pytest.raises(NetworkError, match="cannot load it"):
        open_network(str(tmp_path / "net.pt"))


@pytest.mark.filterwarnings("ignore")
def test_statically_quantised_networks():
    from torch.ao import quantization as q

    model = nn.Sequential(q.QuantStub(), conv(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3), q.DeQuantStub()).eval()
    model.qconfig = q.get_default_qconfig(torch.backends.quantized.engine)
    prepared, x = q.prepare(model), torch.randn(2, 3, 4, 4)
    prepared(x)
    record, want = layerscope.features(q.convert(prepared), x), layerscope.features(model, x)
    assert [entry.key for entry in record.values()] == [entry.key for entry in want.values()]
    assert record["1"].dtype == "quint8"
    np.testing.assert_allclose(record["4"].columns.mean, want["4"].columns.mean, atol=0.05)


def test_double_precision_and_a_network_without_parameters():
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    record = layerscope.features(nn.Sequential(conv(3, 2).double()), x)
    assert record["0"].dtype == "float64"
    with warnings.catch_warnings():
        assert len(layerscope.features(nn.MaxPool2d(2), x)) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(small):
    x = torch.randn(2, 3, 16, 16)
    want, record = layerscope.features(small, x), layerscope.features(small.cuda(), x)
    for entry in want.values():
        np.testing.assert_allclose(record[entry.key].columns.mean, entry.columns.mean, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("layers", [(), "drop"])
def test_axes_do_not_depend_on_which_layers_are_asked_for(layers):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8), nn.Dropout()

        def forward(self, x):
            return self.drop(self.norm(self.conv(x).permute(0, 2, 3, 1)))

    entry = layerscope.features(Net().eval(), torch.randn(2, 3, 16, 16), layers)["drop"]
    assert entry.site.layout == "NHWC" and len(entry.columns.count) == 8


def test_a_field_of_an_output_is_no_layer_of_that_name():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Linear(4, 3)

        def forward(self, x):
            return Output(self.logits(x) * 100, [])

    model = nn.Sequential(OrderedDict(head=Head()))
    record = layerscope.features(model, torch.randn(2, 4), layers=["head", "head.logits"], predict=False)
    assert [(entry.key, entry.type) for entry in record.values()] == [
        ("head.logits", "Linear"),
        ("head[logits]", "Head"),
    ]
