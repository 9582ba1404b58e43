"""One sample: composed pictures encoded as JPEG, and the JSON record that says what was drawn."""

from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from segloc_synth.bank import Backgrounds, Objects
from segloc_synth.compose import Placed, blend, place
from segloc_synth.config import Config
from segloc_synth.images import Pixels
from segloc_synth.plan import Pair, View, plan_pair
from segloc_synth.shards import Sample

OFF_BAG = "object more than half off the bag"


def make_sample(config: Config, objects: Objects, backgrounds: Backgrounds, index: int) -> tuple[Sample, list[str]]:
    """Sample `index`: its JSON record and two JPEG files, and the kinds of problems met."""
    pair = plan_pair(config, len(objects), len(backgrounds), index)
    segment = objects[pair.segment]
    names = {"class_id": segment.class_id, "class_name": objects.classes[segment.class_id]}
    meta: dict[str, Any] = {"index": index, **names}
    problems: list[str] = []
    jpegs = []
    for view_name in ("key", "query"):
        placed, picture = compose_view(config, objects, backgrounds, pair, view_name)
        if placed.in_bag < 0.5:
            problems.append(OFF_BAG)
        meta[view_name] = _record(config, placed, segment.class_id, segment.name, backgrounds)
        flags = [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality]
        done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), flags)
        assert done
        jpegs.append(jpeg.tobytes())
    return Sample(meta, *jpegs), problems


def compose_view(
    config: Config, objects: Objects, backgrounds: Backgrounds, pair: Pair, name: str
) -> tuple[Placed, Pixels]:
    """The segment as placed for the `key` or `query` of a pair, and the composite, uint8 RGB [size, size, 3]."""
    view: View = getattr(pair, name)
    segment = objects[pair.segment]
    placed = place(segment, view, backgrounds.bag(view.background))
    return placed, blend(backgrounds.pixels(view.background), placed, segment.carrier, config.blend)


def _record(config: Config, placed: Placed, class_id: int, segment: str, backgrounds: Backgrounds) -> dict[str, Any]:
    full = placed.full_mask(config.size)
    rle = coco_mask.encode(np.asfortranarray(full))
    mask = {"size": [config.size, config.size], "counts": rle["counts"].decode()}
    box = [float(number) for number in cv2.boundingRect(full)]
    view = placed.view
    return {
        "box": box,
        "mask": mask,
        "segment": segment,
        "background": backgrounds.names[view.background],
        "blend": config.blend,
        "coefficient": view.coefficient,
        "scale": view.scale,
        "rotation": view.rotation,
        "flip": view.flip,
        "items": [{"class_id": class_id, "box": box, "mask": mask}],
    }
