"""A survey as a record: saved and loaded equal, refused when it lies, drawn as text and tables."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import layerscope
from layerscope.errors import RecordError
from layerscope.records.profiles import Line, edges_of
from layerscope.views import documents, terminal
from layerscope.views.documents import quantiles_of
from layerscope.views.format import profile_block
from tests.survey import making
from tests.test_record import plain


def test_a_survey_survives(tmp_path):
    record = making.record()
    assert plain(layerscope.load(record.save(tmp_path / "a.layerscope"))) == plain(record)


@pytest.mark.parametrize(
    "name, change",
    [
        ("entries.0.profile.inactive", lambda array: array[:2]),
        ("entries.0.profile.inactive", lambda array: array.astype(np.float64)),
        ("entries.0.profile.examples.image", lambda array: array[:, :1]),
        ("entries.0.profile.examples.value", lambda array: array.ravel()),
        ("entries.0.profile.histograms.counts", lambda array: array[:1]),
        ("entries.0.profile.histograms.bins", lambda array: array[::-1]),
        ("entries.0.profile.eta_squared", lambda array: array[:1]),
        ("similarity.value", lambda array: array[:1]),
    ],
)
def test_a_survey_that_lies_about_its_sizes_is_refused(tmp_path, name, change):
    path = making.record().save(tmp_path / "a.layerscope")
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    arrays[name] = np.ascontiguousarray(change(arrays[name]))
    save_file(arrays, path, metadata=metadata)
    with pytest.raises(RecordError, match="make"):
        layerscope.load(path)


def test_channels_of_copies_have_to_be_there(tmp_path):
    path = making.record().save(tmp_path / "a.layerscope")
    with safe_open(path, framework="numpy") as file:
        body = json.loads(file.metadata()["layerscope"])
    body["entries"][0]["profile"]["redundant_channels"] = [[0, 9, 1.0]]
    save_file(load_file(path), path, metadata={"layerscope": json.dumps(body)})
    with pytest.raises(RecordError, match="not there"):
        layerscope.load(path)


def test_bins_of_float_bits_hold_their_values():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(2000) * 10.0 ** rng.integers(-30, 30, 2000)).astype(np.float32)
    bits = values.view(np.int32)
    bins = np.where(bits < 0, 2047 - ((bits >> 20) & 0x7FF), 2048 + (bits >> 20)).astype(np.int64)
    low, high = edges_of(bins)
    assert ((low <= values) & (values <= high)).all()
    assert (np.abs(high - low) <= np.minimum(np.abs(low), np.abs(high)) / 8 * (1 + 1e-12)).all()


def test_lines_end_at_the_image():
    line = Line(-3, 4, 2, 16)
    assert [line.ends(unit) for unit in (0, 1, 7)] == [(0, 4), (0, 6), (11, 16)]


def test_json_names_images_and_classes():
    data = json.loads(documents.dumps(documents.document(making.record())))
    assert data["images"] == 5 and data["classes"] == ["cat", "dog"]
    first = data["layers"][0]
    assert first["dead"] == [1] and first["effective_rank"] == 1.75
    assert first["copies"] == [{"a": 0, "b": 2, "correlation": 0.995}]
    channel = first["channels"][0]
    assert channel["class"] == "cat" and channel["silent"] == 1
    assert [one["image"] for one in channel["top"]] == ["cats/3.jpg", "cats/1.jpg"]
    assert set(channel["top"][0]) >= {"image", "value", "position"}
    assert first["channels"][1]["top"] == [] and first["channels"][1]["class"] is None
    # 7 zeros, then 1 value in the bin from 1, 2 in the next and 70 in that from 1.375
    assert [channel[name] for name in ("q01", "q05", "median", "q95", "q99")] == [0, 0, 1.4375, 1.4375, 1.4375]
    assert [one["median"] for one in first["channels"]] == [1.4375, 0, 1.1875]
    assert data["broken"][0]["reason"] == "cut off"
    assert data["similarity"]["cka"] == [[1, 0.5], [0.5, 1]]


def test_there_are_no_quantiles_without_a_histogram():
    entry = making.record()["conv"]
    assert {len(values) for values in quantiles_of(entry).values()} == {3}
    assert quantiles_of(replace(entry, profile=replace(entry.profile, histograms=None))) == {}


def test_tables_have_examples_and_histograms():
    found = {name: list(csv.DictReader(io.StringIO(text))) for name, text in documents.tables(making.record()).items()}
    assert set(found) == {"layers", "channels", "examples", "histograms"}
    assert found["examples"][0] == {
        "layer": "conv", "channel": "0", "place": "1", "image": "cats/3.jpg", "number": "3", "value": "3.0",
        "y": found["examples"][0]["y"], "x": found["examples"][0]["x"],
    }  # fmt: skip
    assert len(found["examples"]) == 8
    rows = [row for row in found["histograms"] if row["layer"] == "conv"]
    assert [(row["channel"], row["count"]) for row in rows] == [("0", "1"), ("0", "2"), ("0", "70"), ("2", "80")]
    assert float(rows[0]["from"]) == 1.0 and float(rows[0]["to"]) == 1.125
    assert found["channels"][0]["class"] == "cat" and found["channels"][0]["median"] == "1.4375"


def test_the_terminal_says_what_is_dead_and_what_follows_a_class(capsys):
    terminal.show(making.record())
    said = capsys.readouterr().out
    assert "1/3" in said and "5 of 6 images" in said
    assert "conv channel 0 follows cat: the classes explain 80% of it" in said


def test_the_viewers_block_holds_every_array():
    data = profile_block(making.profile())
    size = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + size])
    at, found = 4 + size, {}
    for name, kind, sizes in head["arrays"]:
        at += -at % 4
        count = int(np.prod(sizes))
        found[name] = np.frombuffer(data, f"<{kind}", count, at).reshape(sizes)
        at += 4 * count
    assert at == len(data)
    of_classes, of_examples = ["favourite", "selectivity", "explained"], ["image", "value", "position", "at"]
    assert list(found) == ["silent", *of_classes, *of_examples, "spread", "bins"]
    assert found["favourite"].tolist() == [0, -1, 1] and found["explained"][0] == np.float32(0.8)
    assert found["silent"].tolist() == [1, 5, 0] and found["image"].tolist() == [[3, 1], [-1, -1], [0, 3]]
    assert head["lines"][0] == [-3, 4, 2, 16]
    assert found["bins"].tolist() == [2048 + 8 * 127 + at for at in range(4)]
