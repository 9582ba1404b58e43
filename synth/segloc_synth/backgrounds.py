"""The benign source: scans without labels, and where in them a bag lies."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np

from segloc_synth.images import Pixels, list_images

# A pixel this much darker than the empty belt belongs to something; real belts vary by about 3 grey levels.
BAG_CONTRAST = 10
SMALLEST_BAG = 0.02  # share of the canvas; smaller blobs are loose straps and noise


@dataclass(frozen=True)
class BenignSource:
    """A folder of benign scans: `names` are the files' paths in it without extension, in sorted order."""

    path: Path
    relative: list[str]
    fingerprint: str

    def open_path(self, place: int) -> Path:
        return self.path / self.relative[place]


def read_benign(path: Path) -> BenignSource:
    """List a folder of benign scans; click.ClickException when it is missing or holds fewer than two pictures."""
    if not path.exists():
        raise click.ClickException(f"{path}: no such folder")
    if not path.is_dir():
        raise click.ClickException(f"{path}: is a file; name a folder of benign scans as --backgrounds")
    files = list_images(path)
    if len(files) < 2:
        raise click.ClickException(f"{path}: {len(files)} image files in it; a pair needs two different benign scans")
    relative = [file.relative_to(path) for file in files]
    sizes = [(str(name), file.stat().st_size) for name, file in zip(relative, files, strict=True)]
    digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
    return BenignSource(path, [str(name) for name in relative], digest)


def bag_mask(pixels: Pixels) -> Pixels:
    """Where bags lie in a scan: 0/1 mask, uint8 [H, W], of RGB [H, W, 3]; holes inside a bag count as bag.

    All zero when the scan holds nothing but belt.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    belt = int(np.percentile(grey, 98))  # the brightest common level: white, or the grey of a grey scanner
    thing = (grey < belt - BAG_CONTRAST).astype(np.uint8)
    thing = cv2.morphologyEx(thing, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    reach = max(3, round(max(grey.shape) / 24)) | 1
    closed = cv2.morphologyEx(thing, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    large = [outline for outline in outlines if cv2.contourArea(outline) >= SMALLEST_BAG * grey.size]
    return np.asarray(cv2.drawContours(np.zeros_like(grey), large, -1, 1, thickness=cv2.FILLED), np.uint8)
