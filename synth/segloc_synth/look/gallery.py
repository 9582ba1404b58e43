"""A gallery of a build: one HTML file with pictures, filters and provenance inside, opened from disk."""

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from segloc_synth.console import log
from segloc_synth.files import atomic_write
from segloc_synth.look.preview import decode
from segloc_synth.shards.format import Sample, ShardReader
from segloc_synth.sources.images import encode_jpeg, resize
from segloc_synth.sources.listing import spread

PAIRS = 200
MAX_BYTES = 15_000_000  # of all pairs in the file; where they are more, some are left out
MAX_SIDE = 384  # pixels; larger pictures are shrunk, others embedded byte for byte
SHRUNK_QUALITY = 85


def write_gallery(folder: Path, path: Path, pairs: int = PAIRS) -> None:
    """Write the gallery of build `folder`: `pairs` samples spread evenly over it, fewer where 15 MB hold no more.

    click.ClickException when `folder` holds no finished build or a picture in it is damaged.
    """
    reader = ShardReader(folder)
    names = {entry["id"]: entry["name"] for entry in reader.classes}
    found = [json.dumps(_pair(reader.complete(place), names, folder)) for place in spread(len(reader), pairs)]
    fit = max(1, int(len(found) * MAX_BYTES / max(MAX_BYTES, sum(map(len, found)))))
    kept = [found[place] for place in spread(len(found), fit)]
    if len(kept) < len(found):
        log.info("%s: %d of %d pairs, for %d MB", path, len(kept), len(found), MAX_BYTES // 1_000_000)
    size = reader.manifest["config"]["size"]
    about = (
        f"{len(kept)} of {len(reader)} pairs, spread evenly over the build. {size} px, "
        f"seed {reader.manifest['config']['seed']}, config {reader.manifest['config_hash'][:16]}."
    )
    head, listed = json.dumps({"about": about, "size": size})[:-1], ",\n".join(kept)
    data = f'{head}, "pairs": [\n{listed}\n]}}'.replace("<", "\\u003c")  # so that no name ends the script element
    page = files("segloc_synth").joinpath("gallery.html").read_text("utf-8")
    with atomic_write(path) as file:
        file.write(page.replace("{{data}}", data).encode())


def _pair(sample: Sample, names: dict[int, str], folder: Path) -> dict[str, Any]:
    """A sample's record with a `picture` in each view, and in the items class name, area and outline for the mask."""
    views = {}
    for name, jpeg in (("key", sample.key), ("query", sample.query)):
        # Without mask and box of the first item.
        record = {field: value for field, value in sample.meta[name].items() if field not in ("mask", "box")}
        record["items"] = [_item(item, names) for item in record["items"]]
        views[name] = {**record, "picture": f"data:image/jpeg;base64,{_picture(jpeg, sample.meta['index'], folder)}"}
    return {**sample.meta, **views}


def _item(item: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    mask = coco_mask.decode(item["mask"])
    rest = {name: value for name, value in item.items() if name != "mask"}
    return {"class_name": names.get(item["class_id"], "?"), **rest, "area": int(mask.sum()), "outline": outline(mask)}


def outline(mask: np.ndarray) -> str:
    """SVG path in pixels through the middle of the pixels that touch a 0/1 mask [H, W] from outside."""
    padded = cv2.dilate(np.pad(mask, 1), np.ones((3, 3), np.uint8))  # so that lines at the border are drawn too
    loops, _ = cv2.findContours(padded, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    # Half a pixel to its middle, one back for the padding.
    return "".join("M" + "L".join(f"{x - 0.5:g} {y - 0.5:g}" for x, y in loop[:, 0].tolist()) + "Z" for loop in loops)


def _picture(jpeg: bytes, index: int, folder: Path) -> str:
    """Base64 of the JPEG, shrunk where it is larger than a gallery needs."""
    rgb = decode(jpeg, index, folder)
    if len(rgb) > MAX_SIDE:
        jpeg = encode_jpeg(resize(rgb, MAX_SIDE, MAX_SIDE), SHRUNK_QUALITY)
    return base64.b64encode(jpeg).decode()
