"""Objects drawn on scans: mask outlines, boxes, class names and scores."""

import io
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
        colour = COLOURS[mark.colour % len(COLOURS)]
        x, y, w, h = (value * scale for value in mark.box)
        pen.rectangle((x, y, x + w, y + h), outline=colour, width=1)
        left, top, right, bottom = pen.textbbox((0, 0), mark.text, font=font)
        at_x = min(max(0, x), max(0, size[0] - (right - left) - 6))
        at_y = y - (bottom - top) - 6 if y > bottom - top + 6 else min(y + h, size[1] - (bottom - top) - 6)
        pen.rectangle((at_x, at_y, at_x + right - left + 6, at_y + bottom - top + 6), fill=colour)
        pen.text((at_x + 3 - left, at_y + 3 - top), mark.text, fill="white", font=font)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
