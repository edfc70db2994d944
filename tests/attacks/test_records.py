"""A crafted record: refused in one line or shown, in every view; bounded memory; never read once it has changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from layerscope.errors import LayerscopeError, RecordError
from layerscope.records.file import load
from layerscope.records.maps import Maps
from layerscope.records.record import Entry, Picture, Record
from layerscope.records.sites import Site
from layerscope.views import documents, examples, html, png, tensorboard
from layerscope.views import format as viewer_format
from tests.attacks import crafting, looking
from tests.attacks.measuring import peak

#: what the fuzzer and this test's own seeds found: number of the true record, place in its body, what stands there
OFFENDERS = {
    "a path that is no text": (0, ("entries", 0, "path"), 3),
    "provenance without end": (0, ("provenance", "x"), crafting._deep(900)),
    "provenance that is a list": (1, ("provenance",), []),
    "a probability that is a list": (0, ("predictions", 0, 0, "probability"), [1]),
    "a probability beyond one": (2, ("predictions", 0, 0, "probability"), 1.5),
    "a probability beyond all numbers": (2, ("predictions", 0, 0, "probability"), 10**400),
    "a type that is a list": (0, ("entries", 0, "type"), [1]),
    "a subject that is a number": (3, ("subject",), 0.5),
    "a kind that is none": (0, ("kind",), "6"),
    "findings whose channels are text": (1, ("findings", 0, "channels"), "12"),
    "a shape of texts": (0, ("entries", 0, "shape"), ["a", "b"]),
    "a shape below zero": (1, ("entries", 0, "shape"), [-4, -3, 5, 5]),
    "a tensor without axes that has maps": (1, ("entries", 0, "shape"), []),
    "images beyond all numbers": (3, ("entries", 0, "profile", "images"), 10**400),
    "lines beyond all numbers": (3, ("entries", 0, "profile", "lines", 0, "step"), 2**70),
    "a figure alone": (2, ("pairs", 0, "cosine"), None),
    "notes that are none": (0, ("notes",), 0.5),
    "a label that is none": (0, ("predictions", 0, 0, "label"), None),
    "maps that say another size": (0, ("entries", 0, "maps", 0, "reduced"), "2"),
    "a total that is not there": (1, ("entries", 0, "total"), 2),
    "a total below zero": (1, ("entries", 0, "total"), -1),
    "a total of two columns": (1, ("entries", 0, "total"), "totals"),
    "a side that is none": (2, ("entries", 0, "side"), "\ud800"),
    "a key that is there twice": (0, ("entries", 2, "path"), "conv"),
    "an array used twice": (0, ("entries", 0, "maps", 0, "codes"), "entries.1.maps.0.codes"),
    "a picture for maps": (0, ("entries", 0, "maps", 0, "codes"), "pictures.0.pixels"),
    "maps for a picture": (0, ("pictures", 0, "pixels"), "entries.0.maps.0.codes"),
    "examples without maps": (3, ("entries", 0, "maps"), []),
}
LIES = {
    "maps without a pixel": (0, "entries.0.maps.0.codes", np.zeros((6, 0, 14), np.uint8)),
    "no channel": (0, "entries.0.maps.0.codes", np.zeros((0, 16, 14), np.uint8)),
    "more totals than there are figures": (1, "totals.counts", np.ones((4, 3), np.int64)),
    "totals below zero": (1, "totals.counts", -np.ones((4, 2), np.int64)),
    "counts of another size": (0, "entries.0.columns.counts", np.ones((4, 5), np.int64)),
    "statistics of no channel": (3, "entries.0.columns.floats", np.zeros((4, 0))),
    "counts below zero": (1, "entries.0.columns.counts", -np.ones((4, 4), np.int64)),
    "squares below zero": (1, "entries.0.columns.floats", -np.ones((4, 4))),
    "a histogram of nothing": (1, "entries.0.histogram.counts", np.zeros(0, np.int64)),
    "bins below zero": (1, "entries.0.histogram.counts", -np.ones(10, np.int64)),
    "bins in a square": (1, "entries.0.histogram.counts", np.ones((2, 5), np.int64)),
    "edges of another type": (1, "entries.0.histogram.edges", np.ones(11, np.float32)),
    "a gray picture": (0, "pictures.0.pixels", np.zeros((9, 11, 1), np.uint8)),
    "statistics in a cube": (0, "entries.0.columns.floats", np.zeros((4, 6, 1))),
    "fewer inactive channels": (3, "entries.0.profile.inactive", np.zeros(2, np.int64)),
    "similarity of whole numbers": (3, "similarity.value", np.zeros((2, 2), np.int32)),
}


def changed(path: Path, number: int, place: tuple, value: object) -> Path:
    body, arrays = crafting.truth(number)
    holder = body
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return crafting.write(path, body, arrays)


@pytest.mark.parametrize("case", OFFENDERS)
def test_an_offender_is_refused_when_it_is_loaded(tmp_path, case):
    with pytest.raises(RecordError, match="make it again") as error:
        load(changed(tmp_path / "a.layerscope", *OFFENDERS[case]))
    assert str(error.value).startswith(f"{tmp_path}/a.layerscope: ")
    assert str(error.value).isprintable() and len(str(error.value)) < 500


@pytest.mark.parametrize("case", LIES)
def test_an_array_that_lies_is_refused_when_it_is_loaded(tmp_path, case):
    number, name, array = LIES[case]
    body, arrays = crafting.truth(number)
    assert name in arrays
    with pytest.raises(RecordError, match="make"):
        load(crafting.write(tmp_path / "a.layerscope", body, arrays | {name: array}))


@pytest.mark.parametrize("number", range(4))
def test_a_true_record_is_shown_in_every_view(tmp_path, number):
    assert looking.look(crafting.write(tmp_path / "a.layerscope", *crafting.truth(number)), tmp_path) == set()


BODIES = ["", "[]", "null", "3", '{"schema": 1}', '{"schema": []}', '{"schema": 1e999}', "[" * 20_000,
          '{"schema": ' + "9" * 5000 + "}", '{"a":' * 5000]  # fmt: skip


@pytest.mark.parametrize("text", BODIES, ids=lambda text: text[:20])
def test_a_body_that_is_none(tmp_path, text):
    with pytest.raises(RecordError, match=r"a whole record|newer"):
        load(crafting.write(tmp_path / "a.layerscope", text, {"x": np.zeros(1)}))


@pytest.mark.parametrize("seed", range(40))
def test_lies_at_random(tmp_path, seed):
    with looking.light_page():
        looking.look(crafting.crafted(tmp_path / "a.layerscope", crafting.Seeded(seed)), tmp_path)


@pytest.mark.slow
def test_many_lies_at_random(tmp_path):
    with looking.light_page():
        for seed in range(1000, 1400):
            looking.look(crafting.crafted(tmp_path / "a.layerscope", crafting.Seeded(seed)), tmp_path)


def test_what_is_no_character_is_a_question_mark(tmp_path):
    # half of a surrogate pair: in JSON, or the name of a file that is no UTF-8
    path = changed(tmp_path / "a.layerscope", 0, ("entries", 0, "path"), "x\ud800")
    assert looking.look(path, tmp_path) == set()
    assert '"x?"' in documents.dumps(documents.document(load(path)))
    assert "x?" in documents.tables(load(path))["layers"]


def test_loading_takes_a_few_times_the_file_and_no_more(tmp_path):
    """docs/record.md and docs/attacks.md state the factors: 40 for the JSON, 3 for the arrays."""
    body, arrays = crafting.truth(0)
    plain = crafting.write(tmp_path / "a.layerscope", body, arrays)
    load(plain)
    least = peak(lambda: load(plain))
    body["never"] = [""] * 30_000
    body["predictions"] = [[]] * 30_000
    path = crafting.write(tmp_path / "b.layerscope", body, arrays)
    assert peak(lambda: load(path)) < least + 40 * path.stat().st_size
    body, arrays = crafting.truth(0)
    arrays["entries.0.columns.floats"], arrays["entries.0.columns.counts"] = (
        np.zeros((4, 40_000)),
        np.zeros((4, 40_000), np.int64),
    )
    path = crafting.write(tmp_path / "c.layerscope", body, arrays)
    assert peak(lambda: load(path)) < least + 3 * path.stat().st_size


def test_an_array_named_by_many_is_read_once(tmp_path):
    body, arrays = crafting.truth(0)
    arrays["entries.0.columns.floats"], arrays["entries.0.columns.counts"] = (
        np.zeros((4, 20_000)),
        np.zeros((4, 20_000), np.int64),
    )
    body["entries"] = [body["entries"][0] | {"call": call, "maps": []} for call in range(500)]
    path = crafting.write(tmp_path / "a.layerscope", body, arrays)

    def refused() -> None:
        with pytest.raises(RecordError, match="used twice"):
            load(path)

    assert peak(refused) < 4 * path.stat().st_size


def test_views_take_a_bounded_number_of_bytes_for_each_of_the_file(tmp_path):
    """The worst there is for each: most channels of one value a byte; a mosaic grows each to 24 pixels."""
    record = Record("features", "x", pictures=[Picture("a", np.zeros((4, 4, 3), np.uint8))])
    record.add(Entry(Site("a", 0, "NCHW"), "Conv2d", (1, 3000, 1, 1), "float32", maps=[crafting.tiny_maps(3000)]))
    path = record.save(tmp_path / "a.layerscope")
    size = path.stat().st_size
    with looking.light_page():
        for name, view in looking.views(tmp_path).items():
            loaded = load(path)
            view(loaded)
            used = peak(lambda view=view, loaded=loaded: view(loaded))
            assert used < (2000 if name in ("pictures", "tensorboard") else 100) * size + 6_000_000, (name, used / size)


def test_a_small_picture_that_unpacks_to_a_huge_one_is_refused(tmp_path):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(buffer, "WEBP", lossless=True)
    body, arrays = crafting.truth(3)
    arrays["shown.1.data"] = np.frombuffer(buffer.getvalue(), np.uint8)
    record = load(crafting.write(tmp_path / "a.layerscope", body, arrays))

    def refused() -> None:
        with pytest.raises(RecordError, match="4000"):
            examples.examples_sheet(record, record["conv"], None)

    assert peak(refused) < 4_000_000


@pytest.mark.parametrize("line", [[2**40, 2**40, 2**40, 16], [0, 1, 2**45, 16], [-(2**50), 2**50, 9, 2**50]])
def test_fields_of_any_size_draw_no_gigabytes(tmp_path, line):
    ends = dict(zip(("low", "high", "step", "whole"), line, strict=True))
    record = load(changed(tmp_path / "a.layerscope", 3, ("entries", 0, "profile", "lines"), [ends, ends]))

    def drawn() -> None:
        try:
            examples.examples_sheet(record, record["conv"], None)
        except RecordError as error:
            assert "make the record again" in str(error)

    assert peak(drawn) < 30_000_000


@pytest.mark.parametrize("how", ["shortened", "replaced in place", "touched"])
def test_a_file_that_is_written_over_is_not_read_any_further(tmp_path, how):
    """Reading behind the end of a mapped file would be SIGBUS: the whole process gone."""
    path = crafting.write(tmp_path / "a.layerscope", *crafting.truth(0))
    record = load(path)
    if how == "shortened":
        os.truncate(path, 100)
    elif how == "replaced in place":
        path.write_bytes(b"\0" * path.stat().st_size)
    os.utime(path, (1, 1))
    with pytest.raises(RecordError, match="has been written over since it was opened; open it again"):
        viewer_format.block(record["conv"], 0)


def test_a_file_that_another_takes_the_place_of_is_read_to_its_end(tmp_path):
    body, arrays = crafting.truth(0)
    path = crafting.write(tmp_path / "a.layerscope", body, arrays)
    record = load(path)
    crafting.write(tmp_path / "b.layerscope", *crafting.truth(1)).replace(path)
    assert (record["conv"].maps[0].codes == arrays["entries.0.maps.0.codes"]).all()
    path.unlink()
    assert (record["relu:1"].maps[0].codes == arrays["entries.1.maps.0.codes"]).all()


def test_nothing_outside_of_the_file_is_read(tmp_path):
    """Offsets behind the end, overlapping tensors, headers longer than the file."""
    path = crafting.write(tmp_path / "a.layerscope", *crafting.truth(0))
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + size])
    name = "entries.0.maps.0.codes"
    begin, end = table[name]["data_offsets"]
    for offsets in (
        [begin, end + 10**9],
        [begin - 5, end - 5],
        [end, begin],
        [2**63, 2**63 + end - begin],
        [0, end - begin],
    ):
        head = json.dumps(table | {name: table[name] | {"data_offsets": offsets}}).encode()
        path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + size :])
        with pytest.raises(RecordError):
            load(path)
    for lie in (2**63, 10**12, len(data), 0, 7):
        path.write_bytes(lie.to_bytes(8, "little") + data[8:])
        with pytest.raises(RecordError):
            load(path)


def test_it_is_refused_as_a_file_that_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none", "/dev/null", "/proc/self/mem", "x" * 300, "a\0b"):
        with pytest.raises(LayerscopeError):
            load(path)


def test_layers_with_and_without_figures_are_one_table(tmp_path):
    """The first row named the columns; a layer of whole numbers first, and no table could be written."""
    record = load(crafting.write(tmp_path / "a.layerscope", *crafting.truth(3)))
    first = next(iter(record.values()))
    first.columns = first.whole = first.profile = None
    rows = documents.tables(record)["layers"].splitlines()
    assert len({row.count(",") for row in rows}) == 1 and len(rows) == 3 and "effective_rank" in rows[0]


def test_more_maps_than_pictures_is_no_fault(tmp_path):
    record = load(crafting.write(tmp_path / "a.layerscope", *crafting.truth(0)))
    record.pictures = record.pictures[:1]
    record["relu:1"].maps = record["relu:1"].maps[:1]
    for name, view in looking.views(tmp_path).items():
        with looking.light_page():
            view(record)
        assert name


def test_the_worst_mosaic_is_still_a_picture():
    maps = Maps(np.zeros(1, np.float32), np.ones(1, np.float32), (1, 1, 3000), np.zeros((1, 1, 3000), np.uint8))
    record = Record("features", "x" * 20_000, pictures=[Picture("n" * 20_000, np.zeros((1, 1, 3), np.uint8))])
    record.add(Entry(Site("p" * 20_000, 0, "NCHW"), "t" * 20_000, (1, 1, 1, 3000), "float32", maps=[maps]))
    assert png.feature_mosaic(record, next(iter(record.values())))[:4] == b"\x89PNG"
    assert tensorboard.maps(record)
    assert html.document(record)
