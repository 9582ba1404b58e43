"""A contact sheet of a build: pairs with mask outlines, boxes and class names."""

import io
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from segloc_synth.files import atomic_write
from segloc_synth.shards.format import Sample, ShardReader
from segloc_synth.shards.manifest import mend
from segloc_synth.sources.images import Pixels, decode_jpeg
from segloc_synth.sources.listing import spread

PAIRS = 12
PAIRS_PER_ROW = 3
TILE = 256  # pixels a picture
GAP = 8
HEADER = 34
OUTLINE, BOX, INK, PAPER = (225, 0, 152), (0, 0, 0), (20, 20, 20), (236, 236, 236)


def contact_sheet(folder: Path, pairs: int = PAIRS) -> Image.Image:
    """Draw `pairs` samples spread evenly over a finished build; click.ClickException when it is none."""
    reader = ShardReader(folder)
    places = spread(len(reader), pairs)
    width, height = 2 * TILE + 2 * GAP, TILE + HEADER + GAP
    rows = -(-len(places) // PAIRS_PER_ROW)
    sheet = Image.new("RGB", (PAIRS_PER_ROW * (width + GAP) + GAP, rows * height + GAP), PAPER)
    for number, place in enumerate(places):
        row, col = divmod(number, PAIRS_PER_ROW)
        _draw_pair(sheet, reader.complete(place), GAP + col * (width + GAP), GAP + row * height, folder)
    return sheet


def write_contact_sheet(folder: Path, path: Path, pairs: int = PAIRS) -> None:
    """Write the contact sheet of build `folder` as a PNG."""
    buffer = io.BytesIO()
    contact_sheet(folder, pairs).save(buffer, "PNG")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def _draw_pair(sheet: Image.Image, sample: Sample, left: int, top: int, folder: Path) -> None:
    draw = ImageDraw.Draw(sheet)
    title, small = ImageFont.load_default(13), ImageFont.load_default(11)
    meta = sample.meta
    draw.text((left, top), f"{meta['class_name']}   pair {meta['index']}", INK, title)
    for place, (name, jpeg) in enumerate((("key", sample.key), ("query", sample.query))):
        view = meta[name]
        x = left + place * (TILE + GAP)
        note = f"{name}: {view['blend']} {view['coefficient']:.2f}, x{view['scale']:.2f}, {view['rotation']:.0f} deg"
        draw.text((x, top + 16), note, INK, small)
        picture = decode(jpeg, meta["index"], folder)
        sheet.paste(Image.fromarray(draw_view(picture, view, TILE)), (x, top + HEADER))


def decode(jpeg: bytes, index: int, folder: Path) -> Pixels:
    """A picture of pair `index` of the build in `folder`, RGB uint8; click.ClickException when it is damaged."""
    rgb = decode_jpeg(jpeg)
    if rgb is None:
        raise click.ClickException(f"{folder}: a picture of pair {index} is damaged; {mend(folder)}")
    return rgb


def draw_view(rgb: Pixels, view: dict[str, Any], tile: int) -> Pixels:
    """A picture with its items' mask outlines and boxes, RGB uint8 [tile, tile, 3]."""
    scale = tile / len(rgb)
    picture = cv2.resize(rgb, (tile, tile), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    for item in view["items"]:
        mask = cv2.resize(coco_mask.decode(item["mask"]), (tile, tile), interpolation=cv2.INTER_NEAREST)
        around = cv2.dilate(mask, np.ones((3, 3), np.uint8))  # beside the object, not over it
        outlines, _ = cv2.findContours(around, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        picture = cv2.drawContours(np.ascontiguousarray(picture), outlines, -1, OUTLINE, 1)
        x, y, width, height = (round(number * scale) for number in item["box"])
        cv2.rectangle(picture, (x - 3, y - 3), (x + width + 2, y + height + 2), BOX, 1)
    return np.asarray(picture, np.uint8)
