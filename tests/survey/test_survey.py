"""`layerscope.survey` and the command, from a folder of images to a record."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import layerscope
from layerscope.cli import cli
from layerscope.errors import ImageError, NoMatch
from layerscope.images.preprocessing import Preprocessing
from layerscope.networks.open import Network
from layerscope.views import tensorboard
from tests.test_record import plain


class Net(nn.Module):
    """Channel 0 sees red, 1 is dead, 2 and 3 are one signal, 4 sees blue."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, 2)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.zero_()
            for channel, (colour, scale) in {0: (0, 1.0), 2: (1, 1.0), 3: (1, 0.5), 4: (2, 1.0)}.items():
                self.conv.weight[channel, colour] = scale
            self.conv.bias[1] = -5.0

    def forward(self, x):
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def photos(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, colour in (("red", 0), ("blue", 2)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(20, 120, (16, 20, 3), np.uint8)
            pixels[4:9, 5:12, colour] = 200 + number
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "photos" / "red" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def net():
    torch.manual_seed(0)
    return Network(Net(), "net", Preprocessing((16, 20), None, (0.0,) * 3, (1.0,) * 3))


def test_it_finds_what_the_channels_are_for(photos):
    record = layerscope.survey(net(), photos)
    assert record.kind == "survey" and record.classes == ["blue", "red"]
    assert record.provenance["images"] == 80 and record.provenance["of"] == 81
    assert [one["name"] for one in record.provenance["broken"]] == ["red/broken.png"]
    assert "broken.png" in record.notes[0]
    relu = record["relu"]
    assert relu.dead == [1] and relu.profile.inactive.tolist() == [0, 80, 0, 0, 0]
    conv = record["conv"].profile
    assert [(a, b) for a, b, _ in conv.redundant_channels] == [(2, 3)]
    assert conv.preferred_class[[0, 4]].tolist() == [1, 0]
    assert conv.eta_squared[0] > 0.5 > conv.eta_squared[2]
    assert conv.lines[0].ends(2) == (4, 7)
    best = {one.number: one for one in record.shown}
    assert {best[number].label for number in conv.examples.image[0]} == {"red"}
    assert all(one.data.size for one in record.shown)
    assert record.similarity.keys and record.similarity.value[0, 0] == pytest.approx(1)


def test_statistics_are_those_of_all_images(photos):
    network = net()
    record = layerscope.survey(network, photos)
    seen = []
    for path in [*sorted((photos / "blue").glob("*.png")), *sorted((photos / "red").glob("[0-9]*.png"))]:
        from layerscope.images.files import open_image

        with layerscope.capture(network.model, "conv") as found, torch.no_grad():
            network.model(network.preprocessing(open_image(path))[None])
        seen.append(found["conv"][0].flatten(1))
    values = torch.cat(seen, 1).double().numpy()
    columns = record["conv"].columns
    np.testing.assert_allclose(columns.mean, values.mean(1), rtol=1e-6)
    np.testing.assert_allclose(columns.std, values.std(1, ddof=1), rtol=1e-5)
    assert columns.count.tolist() == [values.shape[1]] * 5
    np.testing.assert_array_equal(columns.max, values.max(1))


def test_a_record_of_a_survey_survives_and_goes_into_a_page(photos, tmp_path):
    record = layerscope.survey(net(), photos, record=tmp_path / "a.layerscope")
    assert plain(layerscope.load(tmp_path / "a.layerscope")) == plain(record)
    assert not (tmp_path / "a.layerscope.partial").exists()
    page = record.to_html(tmp_path / "a.html").read_text()
    assert 'id="profile-0"' in page and 'id="shown-' in page


def test_two_networks_are_compared(photos):
    record = layerscope.survey(net(), photos, against=net())
    keys = record.similarity.keys
    a, b = keys.index("conv"), keys.index("b:conv")
    assert record.similarity.value[a, b] == pytest.approx(1)
    assert record["b:conv"].side == "b" and record.subject_b == "net"


def test_nothing_to_read_and_nothing_to_look_at(tmp_path, photos):
    (tmp_path / "x.png").write_bytes(b"no")
    with pytest.raises(ImageError, match="none of the 1 images can be read"):
        layerscope.survey(net(), [tmp_path / "x.png"])
    with pytest.raises(NoMatch):
        layerscope.survey(net(), photos, layers="nothing")


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "code.py"
    path.write_text("from tests.survey.test_survey import Net\ndef make(): return Net()\n")
    return f"{path}:make"


def run(*arguments):
    return CliRunner().invoke(cli, [str(one) for one in arguments], catch_exceptions=False, standalone_mode=False)


def test_the_command_prints_json_and_draws(photos, code, tmp_path):
    done = run("survey", code, photos, "--size", "16x20", "--json", "--out", tmp_path / "best", "--top", "3")
    data = json.loads(done.stdout)
    assert data["images"] == 80
    conv = next(layer for layer in data["layers"] if layer["path"] == "conv")
    assert len(conv["channels"][0]["top"]) == 3
    assert set(conv["channels"][0]["top"][0]) >= {"image", "value", "position"}
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [
        "conv.examples.png",
        "head.examples.png",
        "relu.examples.png",
    ]


def test_the_command_says_what_it_found(photos, code, tmp_path):
    done = run("survey", code, photos, "--size", "16x20", "--record", tmp_path / "a.layerscope")
    assert "81 images" in done.stdout and "follows" in done.stdout
    assert (tmp_path / "a.layerscope").exists()
    shown = run("export", tmp_path / "a.layerscope", "--csv", tmp_path / "tables")
    assert "examples.csv" in shown.stdout


class Fading:
    """A data set whose images can be read for a while only."""

    classes = ("even", "odd")

    def __init__(self, reads):
        self.left = reads

    def __len__(self):
        return 4

    def __getitem__(self, number):
        self.left -= 1
        if self.left < 0:
            raise OSError("the disk is gone")
        return torch.full((3, 8, 8), float(number)), number % 2


def test_images_that_are_gone_at_the_end_do_not_spoil_the_survey():
    class Counted(Fading):
        pass

    counted = Counted(1000)
    layerscope.survey(net(), counted, pictures=0)
    needed = 1000 - counted.left - 4  # all but the last look for the labels of the four best examples
    record = layerscope.survey(net(), Fading(needed), pictures=0)
    assert record.provenance["images"] == 4
    assert [one.label for one in record.shown] == [""] * 4


def test_one_image_that_cannot_be_read_is_said_as_one(photos):
    (photos / "red" / "zz.png").write_bytes(b"none")
    (photos / "red" / "broken.png").unlink()
    notes = layerscope.survey(net(), photos).notes
    assert notes[0].startswith("left out, since it cannot be read: 1 image; the first is red/zz.png")


def test_a_survey_for_tensorboard_has_its_examples(photos, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record = layerscope.survey(net(), photos)
    tensorboard.export(record, tmp_path / "log")
    events = accumulator.EventAccumulator(str(tmp_path / "log"), size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == [f"examples/{entry.key}" for entry in record.values()]
