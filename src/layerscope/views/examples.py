"""The best examples of a layer's channels as one picture: a row a channel, a crop an image."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from layerscope.errors import RecordError
from layerscope.records.profiles import Profile, Shown, crop_of
from layerscope.records.record import Entry, Record
from layerscope.text import number, shape
from layerscope.views.sheet import RGB, Ink, Sheet, colored, fit, framed

__all__ = ["examples_sheet", "opened"]

_SIDE, _GAP, _MARGIN, _TEXT = 96, 4, 16, 210
#: crops of fewer pixels are enlarged beyond recognition: some of what lies around is shown too
_LEAST_PX = 24
#: how bright it is where no cell of the window lies, of 254: neither high nor low
_UNKNOWN = 117
#: sides of a picture in a record, and of what lies on a crop: a few bytes of a crafted record could ask for gigabytes
_MOST_PX = 1024
_KEPT = 32  # pictures


def opened(shown: Shown) -> RGB | None:
    """The pixels of an image (h, w, 3); None where the record has none. Raises RecordError for broken ones."""
    if not shown.data.size:
        return None
    try:
        with Image.open(io.BytesIO(shown.data.tobytes()), formats=["WEBP"]) as image:
            if max(image.size) > _MOST_PX:
                raise ValueError(f"{image.size} pixels")
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises anything on bytes that are no picture
        raise RecordError(f"{shown.name}: its picture in the record is broken ({error}); make it again") from error


def examples_sheet(record: Record, entry: Entry, channels: int | None) -> bytes:
    """PNG of the first channels of a layer (all for None): what each follows, and its best images, best first.

    What is bright excites the channel; the frame is the receptive field of its greatest value.
    """
    profile = entry.profile
    assert profile is not None and profile.examples is not None
    places = profile.examples.image.shape[1]
    rows = list(range(len(profile.inactive)))[: channels or None]
    shown = {image.number: image for image in record.shown}

    @lru_cache(_KEPT)
    def image_of(number: int) -> RGB | None:
        return opened(shown[number]) if number in shown else None

    step = _SIDE + _GAP
    page = Sheet(2 * _MARGIN + 44 + len(rows) * step, 2 * _MARGIN + _TEXT + places * step)
    page.text(_MARGIN, _MARGIN, f"{entry.key}   {entry.type} {shape(entry.shape[1:])}", 20)
    line = f"best of {profile.images:,} images; bright where the channel is high"
    page.text(_MARGIN, _MARGIN + 26, line, 13, Ink.MUTED)
    for row, channel in enumerate(rows):
        y = _MARGIN + 44 + row * step
        _said(page, record, entry, profile, channel, y)
        for place in range(places):
            image = int(profile.examples.image[channel, place])
            pixels = image_of(image)
            if image < 0:
                break
            if pixels is not None:
                size = shown[image].height, shown[image].width
                crop = _crop(entry, profile, channel, place, pixels, size)
            else:  # the record lacks the image: its surroundings in the map alone
                crop = fit(colored(entry.maps[place].codes[channel], 0, 254, "gray"), _SIDE, _SIDE)
            page.picture(_MARGIN + _TEXT + place * step, y, crop)
    return page.png()


def _said(page: Sheet, record: Record, entry: Entry, profile: Profile, channel: int, y: int) -> None:
    lines = [f"channel {channel}"]
    if channel in set(entry.dead):
        lines[0] += "   dead"
    elif profile.examples is not None and profile.examples.image[channel, 0] >= 0:
        lines.append(f"up to {number(float(profile.examples.value[channel, 0]))}")
    if 0 < profile.inactive[channel] < profile.images:
        share = profile.inactive[channel] / max(profile.images, 1)
        lines.append(f"silent on {f'{share:.0%}' if share >= 0.005 else 'under 1%'} of the images")
    if profile.preferred_class is not None and profile.eta_squared is not None:
        best = int(profile.preferred_class[channel])
        if 0 <= best < len(record.classes) and profile.eta_squared[channel] > 0:
            lines.append(f"follows {record.classes[best]}: {profile.eta_squared[channel]:.0%}")
    twins = [a + b - channel for a, b, _ in profile.redundant_channels if channel in (a, b)]
    if twins:
        lines.append(f"same as {', '.join(map(str, twins[:4]))}")
    for at, line in enumerate(lines[:5]):
        size, ink = (13, Ink.MUTED) if at else (15, Ink.TEXT)
        page.text(_MARGIN, y + 2 + at * 18, line, size, ink, room=_TEXT - 8)


def _crop(entry: Entry, profile: Profile, channel: int, place: int, pixels: RGB, size: tuple[int, int]) -> RGB:
    """The crop of one example, _SIDE pixels square at most, darkened where the channel is low."""
    maps = entry.maps[place]
    crop = crop_of(profile, channel, place, maps.shape[1:], size)
    scale = [pixels.shape[axis] / max(size[axis], 1) for axis in range(2)]
    (top, bottom), (left, right) = (_wide(*ends, size[axis]) for axis, ends in enumerate(crop.shown))
    box = (left * scale[1], top * scale[0], right * scale[1], bottom * scale[0])
    factor = _SIDE / max(right - left, bottom - top, 1)
    wide, high = max(1, round((right - left) * factor)), max(1, round((bottom - top) * factor))
    picture = Image.fromarray(pixels).resize((wide, high), Image.Resampling.BICUBIC, box)
    heat = _heat(maps.codes[channel], crop.heat, (top, left), factor, (high, wide))
    dark = (np.asarray(picture, np.float32) * (0.35 + 0.65 * heat[..., None])).astype(np.uint8)
    (y0, y1), (x0, x1) = crop.field
    field = ((x0 - left) * factor, (y0 - top) * factor, (x1 - left) * factor, (y1 - top) * factor)
    whole = field[0] <= 1 and field[1] <= 1 and field[2] >= wide - 1 and field[3] >= high - 1
    return dark if whole else framed(dark, field, 1)


def _wide(low: int, high: int, whole: int) -> tuple[int, int]:
    """At least _LEAST_PX pixels, as far as the image has them."""
    size = max(high - low, min(_LEAST_PX, whole))
    low = min(max(low - (size - (high - low)) // 2, 0), whole - size)
    return low, low + size


def _heat(
    codes: NDArray[np.uint8], box: tuple[tuple[float, float], tuple[float, float]], corner: tuple[int, int],
    factor: float, size: tuple[int, int],
) -> NDArray[np.float32]:  # fmt: skip
    """The window's codes as shares 0 to 1 on the pixels of the crop."""
    (y0, y1), (x0, x1) = box
    values = Image.fromarray(np.where(codes == 255, 0, codes).astype(np.uint8))
    high, wide = max(1, round((y1 - y0) * factor)), max(1, round((x1 - x0) * factor))
    laid = Image.new("L", (size[1], size[0]), _UNKNOWN)
    at = round((x0 - corner[1]) * factor), round((y0 - corner[0]) * factor)
    if max(high, wide, abs(at[0]), abs(at[1])) > _MOST_PX:
        raise RecordError(f"cells of {high} x {wide} pixels on a crop of {size}: make the record again")
    laid.paste(values.resize((wide, high), Image.Resampling.BILINEAR), at)
    return np.asarray(laid, np.float32) / np.float32(254)
