"""One sample: composed pictures encoded as JPEG, and the JSON record that says what was drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
from pycocotools import mask as coco_mask

from segloc_synth.bank.bank import Backgrounds, Objects
from segloc_synth.bank.cutting import Segment
from segloc_synth.bank.scenes import Scene
from segloc_synth.compose import blend
from segloc_synth.compose.blend import Translation
from segloc_synth.compose.place import Placed, place
from segloc_synth.compose.plan import Catalogue, Pair, Paste, View, catalogue, plan_pair
from segloc_synth.config import Config
from segloc_synth.shards.format import Sample
from segloc_synth.sources.backgrounds import neighbours
from segloc_synth.sources.images import Pixels, encode_jpeg

Chosen = tuple[int, Scene, list[tuple[str, str]]]  # a benign scan's place in its bank, the scan, problems met

OFF_BAG = "object more than half off the bag"


class Materials:
    """All that samples are made of: config, segments, benign scans, look-alikes, and how colours are translated."""

    def __init__(
        self, config: Config, objects: Objects, backgrounds: Backgrounds, distractors: Objects | None = None
    ) -> None:
        self.config, self.objects, self.backgrounds, self.distractors = config, objects, backgrounds, distractors
        self._translations: dict[tuple[bool, int, int], Translation] = {}
        self._last: tuple[int, Segment] | None = None  # both views of a pair may show it

    @cached_property
    def catalogue(self) -> Catalogue:
        """What plans draw from."""
        rows, distractors = self.objects.rows, len(self.distractors) if self.distractors else 0
        return catalogue(rows["class_id"], rows["share"], self.config.balance, distractors)

    def segment(self, paste: Paste, shown: Sequence[str]) -> tuple[Segment, float]:
        """What is pasted, and its wanted size relative to its bag (0: unknown); no look-alike out of scans `shown`."""
        if paste.distractor:
            segment = self._look_alike(paste.segment, shown)
            return segment, segment.share
        if self._last is None or self._last[0] != paste.segment:
            self._last = paste.segment, self.objects[paste.segment]
        return self._last[1], float(self.objects.rows["share"][paste.size_of])

    def _look_alike(self, drawn: int, shown: Sequence[str]) -> Segment:
        assert self.distractors is not None
        count = len(self.distractors)
        for number in ((drawn + step) % count for step in range(count)):
            scan = self.distractors.names[number].rpartition("#")[0]
            if not any(neighbours(scan, name) for name in shown):
                return self.distractors[number]
        return self.distractors[drawn]

    def translation(self, paste: Paste, segment: Segment, scene: Scene) -> Translation:
        """From the palette of what is pasted to that of the scan; made once for each two."""
        key = (paste.distractor, segment.palette, scene.palette)
        if key not in self._translations:
            source = self.distractors if paste.distractor else self.objects
            assert source is not None
            target = self.backgrounds.palettes[scene.palette]
            self._translations[key] = Translation.between(source.palettes[segment.palette], target)
        return self._translations[key]


@dataclass(frozen=True)
class Composed:
    """A finished picture.

    Attributes:
        background, scene: place of the benign scan in its bank, and the scan.
        picture: RGB uint8 [size, size, 3].
        items: labelled objects as placed, the subject first, each with its segment.
        occlusion: mean darkness, 0 to 1, of what lay under the subject.
        distractors: number of look-alikes.
        problems: (file or '', kind) of what was met.
    """

    background: int
    scene: Scene
    picture: Pixels
    items: list[tuple[Segment, Placed]]
    occlusion: float
    distractors: int
    problems: list[tuple[str, str]]


def make_sample(materials: Materials, index: int) -> tuple[Sample, list[tuple[str, str]]]:
    """Sample `index`: its JSON record and two JPEG files, and (file or '', kind) of the problems met."""
    config, backgrounds = materials.config, materials.backgrounds
    key, query = compose_pair(materials, plan_pair(config, materials.catalogue, len(backgrounds), index))
    class_id = key.items[0][0].class_id
    meta: dict[str, Any] = {
        "index": index,
        "class_id": class_id,
        "class_name": materials.objects.classes[class_id],
        "key": _record(config, key, backgrounds),
        "query": _record(config, query, backgrounds),
    }
    jpegs = (encode_jpeg(composed.picture, config.jpeg_quality) for composed in (key, query))
    return Sample(meta, *jpegs), key.problems + query.problems


def compose_pair(materials: Materials, pair: Pair) -> tuple[Composed, Composed]:
    """Compose key and query, the query on the first of its benign scans that shows another bag than the key's."""
    backgrounds = materials.backgrounds
    for_key = backgrounds.choose(pair.key.backgrounds)
    for_query = backgrounds.choose(pair.query.backgrounds, for_key[:2])
    shown = [backgrounds.file(chosen[0]) for chosen in (for_key, for_query)]
    return compose_view(materials, pair.key, for_key, shown), compose_view(materials, pair.query, for_query, shown)


def compose_view(materials: Materials, view: View, chosen: Chosen, shown: Sequence[str]) -> Composed:
    """Compose one view on its benign scan, as Backgrounds.choose gave it; no look-alike is out of scans `shown`."""
    how = materials.config.blend
    background, scene, met = chosen
    problems = list(met)
    picture = scene.pixels.copy()
    occlusion = 0.0
    items: list[tuple[Segment, Placed]] = []
    for paste in reversed(view.pastes):  # the subject comes last, so that nothing covers it
        segment, share = materials.segment(paste, shown)
        placed = place(segment, paste, share, scene, layers=how == "dual-energy")
        below = picture[placed.window]
        if paste is view.pastes[0]:
            occlusion = 1 - cv2.mean(cv2.cvtColor(below, cv2.COLOR_RGB2GRAY), placed.mask)[0] / 255
        if how == "dual-energy":
            above = blend.dual_energy(below, placed, materials.translation(paste, segment, scene))
        elif how == "multiply":
            above = blend.multiply(below, placed, segment.carrier)
        else:
            above = blend.hard(below, placed) if how == "hard" else blend.alpha(below, placed)
        picture[placed.window] = above
        if not paste.distractor:
            items.insert(0, (segment, placed))
        if placed.in_bag < 0.5:
            problems.append(("", OFF_BAG))
    return Composed(background, scene, picture, items, round(occlusion, 4), len(view.pastes) - len(items), problems)


def _record(config: Config, composed: Composed, backgrounds: Backgrounds) -> dict[str, Any]:
    items = [_item(config.size, segment, placed) for segment, placed in composed.items]
    segment, placed = composed.items[0]
    return {
        "box": items[0]["box"],
        "mask": items[0]["mask"],
        "segment": segment.name,
        "background": backgrounds.name(composed.background),
        "blend": config.blend,
        "coefficient": placed.paste.coefficient,
        "scale": placed.scale,
        "rotation": placed.paste.rotation,
        "flip": placed.paste.flip,
        "pose": list(placed.paste.pose),
        "occlusion": composed.occlusion,
        "distractors": composed.distractors,
        "items": items,
    }


def _item(size: int, segment: Segment, placed: Placed) -> dict[str, Any]:
    full = placed.full_mask(size)
    x, y, width, height = cv2.boundingRect(placed.mask)
    rle = coco_mask.encode(full)
    return {
        "class_id": segment.class_id,
        "box": [float(placed.left + x), float(placed.top + y), float(width), float(height)],
        "mask": {"size": [size, size], "counts": rle["counts"].decode()},
    }
