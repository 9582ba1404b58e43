"""A build's composites as a COCO detection data set: images/ and annotations.json in a new folder."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from pycocotools import mask as coco_mask

from segloc_synth.console import progress
from segloc_synth.files import new_folder, output_dir
from segloc_synth.look.preview import decode
from segloc_synth.shards.format import Sample, ShardReader

VIEWS = ("key", "query")
REMEDY = "export needs a new folder"


def export_coco(build: Path, out: Path, views: tuple[str, ...] = VIEWS, limit: int | None = None) -> int:
    """Write the first `limit` pairs of a build (None: all), one image for each of `views`; returns the image count.

    `out`/images holds the shards' JPEG files, untouched; `out`/annotations.json every item with box, compressed RLE
    and area in pixels. The images of pair i have the ids 2 i + 1 (key) and 2 i + 2 (query), whatever the limit, and
    keep the fields of the view's record, `background` and `segment` among them, so that a user can split by bag.
    Beside the reader, memory does not grow with the number of pairs. `out` appears only when all is written.

    click.ClickException when `build` is no finished build or a pair of it is damaged, or `out` is a file or a folder
    that is not empty.
    """
    reader = ShardReader(build)
    pairs = len(reader) if limit is None else min(limit, len(reader))
    info = {
        "description": f"Composites of {pairs} pairs ({' and '.join(views)}) made by segloc-synth",
        "version": version("segloc"),
        "config_hash": reader.manifest["config_hash"],
    }
    if out.exists():
        output_dir(out, REMEDY)
    with new_folder(out.resolve()) as folder:
        (folder / "images").mkdir()
        with (folder / "annotations.json").open("w") as file, (folder / "annotations.part").open("w+") as part:
            head = {"info": info, "licenses": [], "categories": reader.classes}
            file.write(json.dumps(head)[:-1] + ', "images": [')
            images, annotations = _Rows(file), _Rows(part)
            for place in progress(range(pairs), pairs, "exporting pairs"):
                sample = reader.complete(place)
                for view in views:
                    image, jpeg = _image(sample, view), getattr(sample, view)
                    decode(jpeg, place, build)  # a damaged one is named
                    images.add(image)
                    (folder / "images" / image["file_name"]).write_bytes(jpeg)
                    for item in sample.meta[view]["items"]:
                        annotations.add({"id": annotations.count + 1, **_annotation(item, image["id"])})
            file.write('\n], "annotations": [')
            part.seek(0)
            shutil.copyfileobj(part, file)
            file.write("\n]}\n")
        (folder / "annotations.part").unlink()
        if out.exists():  # what came into it meanwhile would stay, and this be thrown away
            output_dir(out, REMEDY)
    return pairs * len(views)


class _Rows:
    """The elements of a JSON list, one a line, written as they come."""

    def __init__(self, file: IO[str]) -> None:
        self.file, self.count = file, 0

    def add(self, row: dict[str, Any]) -> None:
        self.file.write((",\n" if self.count else "\n") + json.dumps(row))
        self.count += 1


def _image(sample: Sample, view: str) -> dict[str, Any]:
    """The COCO record of one picture, with what its view's record says beside box and masks."""
    index, record = sample.meta["index"], sample.meta[view]
    height, width = record["items"][0]["mask"]["size"]
    return {
        "id": 2 * index + 1 + VIEWS.index(view),
        "file_name": f"{index:012d}_{view}.jpg",
        "width": width,
        "height": height,
        "pair": index,
        "view": view,
        **{name: value for name, value in record.items() if name not in ("box", "mask", "items")},
    }


def _annotation(item: dict[str, Any], image_id: int) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "category_id": item["class_id"],
        "bbox": item["box"],
        "area": int(coco_mask.area(item["mask"])),
        "iscrowd": 0,
        "segmentation": item["mask"],
        **{name: value for name, value in item.items() if name not in ("class_id", "box", "mask")},
    }
