"""Records: saved whole, loaded equal, refused when they lie."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import layerscope
from layerscope.errors import NoEntry, OutputError, RecordError
from layerscope.records.record import Record


def plain(value):
    """A record as comparable plain data."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, layerscope.records.record.Maps):
        return plain([value.lo, value.hi, value.codes, value.reduced])
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


@pytest.fixture
def saved(small, photo, tmp_path):
    record = layerscope.features(small, [photo, photo])
    path = record.save(tmp_path / "a.layerscope")
    return record, path


def test_features_survive(saved):
    record, path = saved
    assert plain(layerscope.load(path)) == plain(record)
    assert len(record.pictures) == 2


def test_weights_and_compare_survive(checkpoint, tmp_path):
    for record in (layerscope.weights(checkpoint), layerscope.compare(checkpoint, checkpoint)):
        assert plain(layerscope.load(record.save(tmp_path / "a"))) == plain(record)


def test_the_file_is_plain_safetensors_with_json(saved):
    path = saved[1]
    arrays = load_file(path)
    assert arrays["entries.0.maps.0.codes"].dtype == np.uint8
    assert arrays["entries.0.columns.floats"].shape == (4, 6)
    assert b"pickle" not in path.read_bytes()[:100_000]


def test_maps_are_read_when_they_are_looked_at(saved):
    maps = layerscope.load(saved[1])["stem"].maps[0]
    assert callable(maps.source)
    assert maps.codes.shape == maps.shape
    assert not callable(maps.source)


def test_a_key_that_is_not_there(saved):
    for kind in (RecordError, KeyError):
        with pytest.raises(kind, match=r"^'block.rely' is not in this record; nearest: block.relu") as error:
            saved[0]["block.rely"]
        assert isinstance(error.value, NoEntry)


def test_a_record_is_a_mapping(saved):
    record = saved[0]
    assert isinstance(record, Mapping)
    assert list(record)[:2] == list(record.keys())[:2] == ["stem", "bn"]
    assert "stem" in record and "block.rely" not in record and 3 not in record
    assert record["stem"] is record.get("stem") is dict(record)["stem"]
    assert record.get("block.rely") is None and record.get("block.rely", 3) == 3
    assert [key for key, _ in record.items()] == [entry.key for entry in record.values()]
    assert len(record) == len(record.values()) == len({**record})


def test_a_key_that_is_not_there_is_looked_for_without_its_neighbours(saved, monkeypatch):
    monkeypatch.setattr("layerscope.records.record.nearest", lambda *_: pytest.fail("compared with every name"))
    assert "block.rely" not in saved[0]


def test_a_record_without_entries_is_true(saved):
    assert bool(saved[0]) is bool(saved[0].only()) is bool(Record("features", "x")) is True
    assert len(saved[0].only()) == 0


def test_twice_the_same_key_is_refused(saved):
    with pytest.raises(RecordError, match="twice"):
        saved[0].add(saved[0]["stem"])


def rewritten(path, change):
    """The file with its JSON changed."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as handle:
        body = json.loads(handle.metadata()["layerscope"])
    change(body)
    save_file(load_file(path), path, metadata={"layerscope": json.dumps(body)})
    return path


def drop(body):
    del body["entries"]


def newer(body):
    body["schema"] = 99


def lie_about_maps(body):
    body["entries"][0]["maps"][0]["range"] = "entries.1.maps.0.range"
    body["entries"][0]["maps"][0]["codes"] = "entries.0.columns.counts"


def take_a_picture_for_maps(body):
    body["entries"][0]["maps"][0]["codes"] = "pictures.0.pixels"


def miss_a_tensor(body):
    body["entries"][0]["total"] = "nowhere"


@pytest.mark.parametrize("change", [drop, newer, lie_about_maps, take_a_picture_for_maps, miss_a_tensor])
def test_a_file_that_lies_is_refused(saved, change):
    with pytest.raises(RecordError) as error:
        layerscope.load(rewritten(saved[1], change))
    assert "a.layerscope" in str(error.value) or "pictures.0.pixels" in str(error.value)


def test_what_is_no_record(saved, tmp_path):
    (tmp_path / "text").write_text("no record")
    (tmp_path / "cut").write_bytes(saved[1].read_bytes()[:-100])
    save_file({"a": np.zeros(3)}, tmp_path / "other")
    for name in ("text", "cut", "other", "none"):
        with pytest.raises(RecordError, match=name):
            layerscope.load(tmp_path / name)


def test_saving_is_whole_or_not_at_all(saved, tmp_path):
    (tmp_path / "no").touch()
    with pytest.raises(OutputError, match="no/where"):
        Record("features", "x").save(tmp_path / "no" / "where")
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]


def test_random_bytes_never_raise_anything_else(saved, tmp_path):
    data = bytearray(saved[1].read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(data)
        for at in rng.integers(0, min(len(data), 6000), 5):
            broken[at] = rng.integers(256)
        (tmp_path / "b").write_bytes(broken)
        with contextlib.suppress(RecordError):
            layerscope.load(tmp_path / "b")


def test_torch_is_not_needed_to_read_a_record(saved):
    look = f"r = layerscope.load({str(saved[1])!r}); r['stem'].maps[0].codes"
    script = f"import sys, layerscope; {look}; print('torch' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
