"""Objects drawn on scans: mask outlines, boxes, class names and scores."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

SIDE = 420  # pixels of a drawn scan's longer side
COLOURS = (
    *((214, 39, 40), (31, 119, 180), (44, 160, 44), (148, 103, 189), (227, 119, 26), (0, 140, 150)),
    *((196, 60, 150), (110, 110, 20), (120, 70, 50), (150, 0, 70), (90, 90, 220), (20, 100, 60)),
)


@dataclass(frozen=True)
class Mark:
    """One object to draw: box (x, y, w, h) in the scan's pixels, mask as RLE or None, colour by class index."""

    box: tuple[float, ...]
    mask: dict[str, Any] | None
    colour: int
    text: str


def marks(records: Iterable[dict[str, Any]], names: dict[int, str]) -> list[Mark]:
    """COCO annotations or results, masks as RLE, as marks: colour by the place in `names`, the score behind its name.

    `names`: category id to name. A record without a box gets its mask's.
    """
    colours = {id: number for number, id in enumerate(names)}
    found = []
    for record in records:
        id, mask = record["category_id"], record.get("segmentation")
        box = record.get("bbox") or coco_mask.toBbox(mask).tolist()
        score = f" {record['score']:.2f}" if "score" in record else ""
        found.append(Mark(tuple(box), mask or None, colours[id], f"{names[id]}{score}"))
    return found


def draw(pixels: NDArray[np.uint8], marks: list[Mark]) -> bytes:
    """The scan (uint8 RGB [H, W, 3]) with `marks`, best first, as JPEG with a longer side of SIDE pixels."""
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = cv2.resize(pixels, size, interpolation=method)
    for mark in reversed(marks):
        if mark.mask:
            mask = cv2.resize(coco_mask.decode(mark.mask), size, interpolation=cv2.INTER_LINEAR)
            outline, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(canvas, outline, -1, COLOURS[mark.colour % len(COLOURS)], 2, cv2.LINE_AA)
    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    for mark in reversed(marks):
        x, y, w, h = (value * scale for value in mark.box)
        colour = COLOURS[mark.colour % len(COLOURS)]
        pen.rectangle((x, y, x + w, y + h), outline=colour, width=1 if mark.mask else 2)
    taken: list[tuple[float, float, float, float]] = []
    for mark in marks:  # the best has the first choice of place
        left, top, right, bottom = pen.textbbox((0, 0), mark.text, font=font)
        place = _place([value * scale for value in mark.box], right - left + 6, bottom - top + 6, size, taken)
        taken.append(place)
        pen.rectangle(place, fill=COLOURS[mark.colour % len(COLOURS)])
        pen.text((place[0] + 3 - left, place[1] + 3 - top), mark.text, fill="white", font=font)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _place(
    box: list[float], width: float, height: float, size: tuple[int, int], taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a label: over, under or beside the box, in the picture, free if it can."""
    x, y, w, h = box
    corners = [
        (x, y - height),
        (x, y + h),
        (x + w - width, y - height),
        (x + w - width, y + h),
        (x + w, y),
        (x - width, y),
    ]
    places = []
    for left, top in corners:
        left, top = (max(0, min(at, room)) for at, room in ((left, size[0] - width), (top, size[1] - height)))
        places.append((left, top, left + width, top + height))
    apart = (p for p in places if all(p[2] <= t[0] or t[2] <= p[0] or p[3] <= t[1] or t[3] <= p[1] for t in taken))
    return next(apart, places[0])
