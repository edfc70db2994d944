"""Tiny awkward networks with random weights, for every test that should hold for any network.

    ZOO["residual"]() -> Animal(model, x, layers)

`model` is in evaluation mode, `x` what to call it with (a tuple where it takes several inputs), `layers` the layers
worth asking about, each with a position in the middle.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ZOO", "Animal"]


@dataclass
class Animal:
    model: nn.Module
    x: Any
    layers: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def args(self) -> tuple[Any, ...]:
        return self.x if isinstance(self.x, tuple) else (self.x,)


class Net(nn.Module):
    """A network out of parts and a function: Net(lambda n, x: n.b(n.a(x)), a=..., b=...)."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self._run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *args: Any) -> Any:
        return self._run(self, *args)


ZOO: dict[str, Callable[[], Animal]] = {}


def animal(make: Callable[[], tuple[nn.Module, Any, dict[str, tuple[int, ...]]]]) -> Callable[[], Animal]:
    def build() -> Animal:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, x, layers = make()
            _settle(model)
        return Animal(model.eval(), x, layers)

    ZOO[make.__name__] = build
    return build


def _settle(model: nn.Module) -> None:
    """Running statistics and affine parameters as a trained network has them, not zeros and ones."""
    for module in model.modules():
        for name, low, high in (("running_mean", -0.5, 0.5), ("running_var", 0.5, 2.0)):
            buffer = getattr(module, name, None)
            if isinstance(buffer, Tensor):
                buffer.uniform_(low, high)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)


def photo(channels: int = 3, *size: int) -> Tensor:
    return torch.randn(1, channels, *(size or (20, 24)))


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **{"padding": kernel // 2, **options})


@animal
def chain():
    net = nn.Sequential(conv(3, 4), nn.ReLU(True), conv(4, 5, 5), nn.ReLU(True), nn.MaxPool2d(2), conv(5, 4))
    return net, photo(), {"0": (10, 12), "3": (10, 12), "5": (5, 6)}


@animal
def strides():
    net = nn.Sequential(conv(3, 4, 5, stride=2), conv(4, 4, stride=(1, 2)), nn.Conv2d(4, 3, (1, 3), stride=2))
    return net, photo(3, 30, 40), {"1": (7, 5), "2": (3, 2)}


@animal
def dilation():
    net = nn.Sequential(conv(3, 4, dilation=2, padding=2), nn.ReLU(), conv(4, 4, dilation=(3, 1), padding=(3, 1)))
    return net, photo(), {"0": (10, 12), "2": (10, 12)}


@animal
def groups():
    net = nn.Sequential(conv(4, 8, groups=2), nn.ReLU(True), conv(8, 6, groups=2, bias=False))
    return net, photo(4), {"0": (3, 3), "2": (10, 12)}


@animal
def depthwise():
    net = nn.Sequential(
        conv(3, 6, groups=3), nn.ReLU6(True), nn.Conv2d(6, 4, 1), nn.Hardswish(True), conv(4, 4, groups=4)
    )
    return net, photo(), {"0": (1, 1), "4": (10, 12)}


def padded(mode: str) -> tuple[nn.Module, Any, dict[str, tuple[int, ...]]]:
    net = nn.Sequential(conv(3, 4, 5, padding_mode=mode), nn.ReLU(), conv(4, 3, stride=2, padding_mode=mode))
    return net, photo(3, 14, 16), {"0": (0, 15), "2": (0, 4)}


@animal
def reflect():
    return padded("reflect")


@animal
def replicate():
    return padded("replicate")


@animal
def circular():
    return padded("circular")


@animal
def same_and_valid():
    net = nn.Sequential(
        nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(2, 1)),
        nn.Conv2d(4, 3, 2, padding="valid"),
        nn.Conv2d(3, 3, 4, padding="same", padding_mode="circular"),  # the odd one goes to the far side
    )
    return net, photo(), {"0": (10, 0), "1": (10, 12), "2": (0, 12)}


@animal
def transposed():
    net = nn.Sequential(
        conv(3, 4, stride=2),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.ReLU(True),
        nn.ConvTranspose2d(6, 3, 4, stride=3, dilation=2),
        nn.ConvTranspose2d(3, 2, 2, dilation=3, output_padding=2),
    )
    return net, photo(), {"1": (9, 10), "3": (31, 30), "4": (30, 30)}


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, channels, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv(channels, channels, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x
        return self.relu(y)


@animal
def residual():
    net = nn.Sequential(conv(3, 4, stride=2), nn.ReLU(True), Block(4), Block(4))
    return net, photo(3, 30, 32), {"2.conv1": (7, 7), "2.relu": (7, 7), "2.relu:1": (7, 7), "3.conv2": (7, 7)}


@animal
def branches():
    net = Net(
        lambda n, x: n.last(torch.cat([n.a(x), F.relu_(n.b(x)), F.avg_pool2d(x, 3, 1, 1)[:, :1]], 1)),
        a=nn.Conv2d(3, 2, 1), b=conv(3, 3, 5), last=conv(6, 4),
    )  # fmt: skip
    return net, photo(), {"a": (4, 4), "last": (10, 12)}


@animal
def squeeze_excite():
    net = Net(
        lambda n, x: n.last(n.stem(x).mul_(torch.sigmoid(n.gate(n.pool(n.stem(x)))))),
        stem=conv(3, 4), pool=nn.AdaptiveAvgPool2d(1), gate=nn.Conv2d(4, 4, 1), last=conv(4, 3),
    )  # fmt: skip
    return net, photo(3, 10, 12), {"stem:1": (5, 6), "last": (5, 6)}


@animal
def pools():
    net = nn.Sequential(
        nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        conv(3, 4),
        nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False),
        nn.AdaptiveMaxPool2d((3, 4)),
        nn.AdaptiveAvgPool2d((2, 3)),
    )
    return net, photo(3, 30, 37), {"0": (15, 18), "1": (7, 9), "2": (7, 8), "3": (1, 2), "4": (1, 1)}


@animal
def dilated_pool():
    return nn.Sequential(nn.MaxPool2d(3, 2, 1, dilation=2), conv(3, 4)), photo(), {"0": (0, 5), "1": (4, 5)}


@animal
def upsampled():
    net = nn.Sequential(
        conv(3, 4, stride=2),
        nn.Upsample(scale_factor=2),
        conv(4, 4),
        nn.Upsample(scale_factor=1.7, mode="bilinear"),
        nn.PixelShuffle(2),
        nn.Upsample(size=(20, 24), mode="bicubic", align_corners=True),
    )
    return net, photo(3, 14, 16), {"1": (5, 6), "3": (8, 9), "4": (20, 20), "5": (10, 12)}


@animal
def norms():
    net = nn.Sequential(
        conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(True), nn.GroupNorm(2, 4), conv(4, 4), nn.InstanceNorm2d(4), conv(4, 4)
    )
    return net, photo(3, 8, 9), {"1": (4, 4), "3": (4, 4), "4": (4, 4), "6": (4, 4)}


class ConvNext(nn.Module):
    """Layer norm over the channels, between permutations, and linear layers on (N, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.norm = conv(4, 4, 5, groups=4), nn.LayerNorm(4)
        self.up, self.act, self.down = nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))  # (N, H, W, C)
        return x + self.down(self.act(self.up(y))).permute(0, 3, 1, 2)


@animal
def channels_last_layers():
    net = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), ConvNext(), ConvNext())
    return net, photo(), {"1.up": (5, 6), "2.down": (5, 6), "2": (5, 6)}


@animal
def channels_last_memory():
    net = nn.Sequential(conv(3, 4), nn.ReLU(True), nn.MaxPool2d(2), conv(4, 4)).to(memory_format=torch.channels_last)
    return net, photo().to(memory_format=torch.channels_last), {"0": (0, 0), "3": (5, 6)}


class Vit(nn.Module):
    def __init__(self, side: int = 4, width: int = 8) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, side * side + 1, width))
        self.norm1, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm2, self.mlp = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)  # (N, L, C)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


@animal
def vit():
    return Vit(), photo(3, 16, 16), {"patch": (1, 2), "norm1": (1, 2), "attention": (1, 2), "mlp.0": (3, 0), "head": ()}


class Windows(nn.Module):
    """Attention within windows of 2 x 2 tokens, shifted by one the second time, with a bias from a table."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.qkv, self.out = nn.Conv2d(3, 8, 2, stride=2), nn.Linear(8, 24), nn.Linear(8, 8)
        self.table = nn.Parameter(torch.randn(5, 1))
        self.register_buffer("index", torch.randint(5, (16,)))

    def attend(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        y = x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)  # (windows, 4, C)
        q, k, v = (
            part.view(-1, 4, 2, 4).transpose(1, 2) for part in self.qkv(y).chunk(3, -1)
        )  # (windows, heads, 4, E)
        bias = self.table[self.index].view(1, 1, 4, 4)
        y = F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).reshape(-1, 4, c)
        y = y.view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return x + self.out(y)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attend(self.patch(x).permute(0, 2, 3, 1))  # (N, H, W, C)
        return self.attend(torch.roll(x, (-1, -1), (1, 2)))


@animal
def windowed_attention():
    net = Net(lambda n, x: n.last(n.windows(x)), windows=Windows(), last=nn.Linear(8, 3))
    return net, photo(3, 16, 16), {"windows": (3, 4), "last": (6, 1)}


@animal
def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.0)
    net = Net(
        lambda n, x: n.head(n.encoder(n.patch(x).flatten(2).transpose(1, 2))),
        patch=nn.Conv2d(3, 8, 4, stride=4), encoder=layer, head=nn.Linear(8, 4),
    )  # fmt: skip
    return net, photo(3, 16, 16), {"patch": (1, 1), "head": (1, 1)}


@animal
def one_dimension():
    net = nn.Sequential(nn.Conv1d(2, 4, 5, stride=2), nn.ReLU(True), nn.MaxPool1d(2), nn.Conv1d(4, 3, 3, dilation=2))
    return net, torch.randn(1, 2, 60), {"0": (10,), "2": (6,), "3": (4,)}


@animal
def three_dimensions():
    net = nn.Sequential(
        nn.Conv3d(2, 3, (3, 3, 3), padding=1, stride=(1, 2, 2)), nn.ReLU(True), nn.MaxPool3d(2), nn.Conv3d(3, 2, 2)
    )
    return net, torch.randn(1, 2, 6, 12, 12), {"0": (2, 2, 3), "2": (1, 1, 1), "3": (0, 1, 1)}


@animal
def called_often():
    net = Net(
        lambda n, x: n.act(n.mix(n.act(n.mix(n.act(n.stem(x)))))), stem=conv(3, 4), mix=conv(4, 4), act=nn.ReLU(True)
    )
    return net, photo(), {"act": (9, 9), "mix": (9, 9), "act:1": (9, 9), "mix:1": (9, 9), "act:2": (9, 9)}


@animal
def data_dependent_if():
    def run(n, x):
        y = n.a(x)
        if y[:, :, :4, :4].mean() > -10:
            return n.b(y)
        return n.b(-y)

    return Net(run, a=conv(3, 4), b=conv(4, 3)), photo(), {"a": (10, 12), "b": (15, 20)}


@animal
def reads_numpy():
    def run(n, x):
        y = n.a(x)
        scale = float(y[0, 0, 5].cpu().numpy().mean()) + sum(y[0, 1, 7, :2].tolist())
        return n.b(y * scale)

    return Net(run, a=conv(3, 4), b=conv(4, 3)), photo(), {"a": (10, 12), "b": (15, 20)}


@animal
def tuple_and_dict():
    net = Net(
        lambda n, x: {"out": n.tail(n.fork(x)[1]), "aux": [n.fork(x)[0]]},
        fork=Net(lambda n, x: (n.a(x), n.b(x)), a=conv(3, 4), b=conv(3, 4, 5)), tail=conv(4, 3),
    )  # fmt: skip
    return net, photo(), {"fork": (5, 5), "fork[1]": (5, 5), "tail": (10, 12)}


@animal
def functional_operations():
    def run(n, x):
        y = F.hardtanh_(F.conv2d(x, n.a.weight, padding=1))
        y[:, 0] = 0
        y[:, 1, :, 3:] = y[:, 2, :, :-3].clone()
        y = torch.where(y > 0, y, y.abs().clamp_max_(2)) + F.pad(y, (1, 0, 2, 0))[:, :, :-2, :-1].flip(1)
        top, where = y.topk(2, 1)
        return n.b(F.normalize(torch.cat([top, where.float(), y.cumsum(1)[:, :1]], 1)))

    return Net(run, a=conv(3, 4), b=conv(5, 3)), photo(), {"b": (10, 12)}


@animal
def computed_kernel():
    def run(n, x):
        kernel = n.a(x)[0, :, 2:5, 2:5].reshape(2, 2, 3, 3)
        return n.last(F.conv2d(n.b(x), kernel, padding=1))

    return Net(run, a=conv(3, 4), b=conv(3, 2), last=conv(2, 3)), photo(), {"b": (10, 12), "last": (15, 20)}


@animal
def values_and_places():
    def run(n, x):
        y = n.a(x).unsqueeze_(0).squeeze_(0)
        value, where = y.max(1, keepdim=True)
        picked = y.gather(1, where.roll(7, 3))
        return n.last(torch.cat([value, where.roll(5, 2).float(), picked], 1))

    return Net(run, a=conv(3, 4), last=nn.Conv2d(3, 2, 1)), photo(), {"a": (10, 12), "last": (10, 12)}


@animal
def indexed():
    def run(n, x):
        y = n.a(x)[:, [2, 0, 1]][:, :, torch.arange(19, -1, -1)]
        return n.last(y[:, torch.tensor([True, False, True])])

    return Net(run, a=conv(3, 4), last=conv(2, 3)), photo(), {"a": (10, 12), "last": (4, 12)}


@animal
def several_inputs():
    net = Net(lambda n, x, y: n.last(n.a(x) + n.b(y)), a=conv(3, 4), b=conv(1, 4, 5), last=conv(4, 3))
    return net, (photo(), photo(1)), {"a": (5, 5), "last": (10, 12)}


@animal
def writes_into_its_input():
    net = Net(lambda n, x: n.last(n.act(x)), act=nn.ReLU(True), last=conv(3, 4))
    return net, photo(), {"act": (5, 5), "last": (10, 12)}


@animal
def lstm():
    net = Net(
        lambda n, x: n.head(n.lstm(n.stem(x).transpose(1, 2))[0]),
        stem=nn.Conv1d(2, 4, 3, padding=1), lstm=nn.LSTM(4, 5, batch_first=True), head=nn.Linear(5, 3),
    )  # fmt: skip
    return net, torch.randn(1, 2, 12), {"stem": (4,), "lstm": (4,), "head": (7,)}


@animal
def inference_mode():
    def run(n, x):
        with torch.inference_mode():
            return n.b(n.act(n.a(x)))

    return Net(run, a=conv(3, 4, 5), act=nn.ReLU(True), b=conv(4, 3)), photo(), {"a": (3, 3), "b": (10, 12)}


@animal
def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but people have such files
        inner = torch.jit.script(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 4)).eval())
    return Net(lambda n, x: n.last(n.inner(x)), inner=inner, last=nn.Conv2d(4, 2, 1)), photo(), {"last": (10, 12)}


@animal
def half():
    net = nn.Sequential(conv(3, 4), nn.ReLU(True), conv(4, 4)).bfloat16()
    return net, photo().bfloat16(), {"0": (10, 12), "2": (10, 12)}


@animal
def complex_numbers():
    net = Net(lambda n, x: n.last(torch.fft.fft2(n.a(x)).real), a=conv(3, 4), last=conv(4, 2))
    return net, photo(3, 8, 8), {"a": (3, 3), "last": (3, 3)}
