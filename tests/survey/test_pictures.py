"""The sheet of best examples."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from layerscope.errors import RecordError
from layerscope.records.profiles import Shown, crop_of
from layerscope.views import pictures
from layerscope.views.examples import examples_sheet, opened
from tests.survey import making


def test_a_picture_a_layer(tmp_path):
    written = pictures.write(making.record(), tmp_path, None)
    assert [path.name for path in written] == ["conv.examples.png", "relu.examples.png"]


def test_the_image_lies_where_its_example_is():
    record = making.record()
    page = np.asarray(Image.open(io.BytesIO(examples_sheet(record, record["conv"], None))))
    found = [int(page[60 + 100 * row + 40, 226 + 100 * place + 40].max()) for row in range(3) for place in range(2)]
    blank = int(page[2, 2].max())
    assert [value > blank for value in found] == [True, True, False, False, True, True]


def test_a_broken_picture_is_named():
    with pytest.raises(RecordError, match=r"cats/7\.jpg"):
        opened(Shown(7, "cats/7.jpg", "cat", 8, 8, np.arange(40, dtype=np.uint8)))
    assert opened(Shown(7, "cats/7.jpg", "cat", 0, 0, np.empty(0, np.uint8))) is None


def test_the_crop_is_that_of_the_page():
    profile = making.profile()
    profile.examples.origin[0, 0], profile.examples.position[0, 0] = (2, 3), (4, 5)
    crop = crop_of(profile, 0, 0, (4, 4), (16, 16))
    assert crop.shown == ((3, 12), (5, 14))
    assert crop.field == ((5, 12), (9, 12))
    assert crop.heat == ((3.5, 11.5), (5.5, 13.5))
