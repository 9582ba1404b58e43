"""Scans where two arms differ most, or that one arm alone is best and worst at, drawn side by side with the truth."""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segloc_eval.config import unit_folder
from segloc_eval.numbers.matches import to_rle
from segloc_eval.report.drawing import draw, marks
from segloc_eval.report.markup import Markup, dim, tag
from segloc_eval.report.view import View
from segloc_synth.files import read_json

Id: TypeAlias = int | str
Pictures: TypeAlias = Callable[[str, Id], NDArray[np.uint8] | None]
Records: TypeAlias = dict[Id, list[dict[str, Any]]]  # annotations or results by image id

SHOWN = 2  # scans of each sort: gained, lost, drawn by lot
IOU = 0.5  # from which an object counts as found
RULES = (
    "of an arm's results on a scan as many count as the scan has objects, the best first, and these are drawn; an "
    "object is found by a result of its class",
    "the objects of a class are found, all or none, when all that is painted as the class covers them",
)


@dataclass(frozen=True)
class Pair:
    """The arms shown, two or a lone one: where their files of one label size and seed lie."""

    labels: str
    kind: str
    arm: str
    seed: int
    folders: dict[str, Path]  # of the base, unless the arm is alone, and of the arm, in this order


@dataclass(frozen=True)
class Compared:
    """One scan: objects found by the arm minus those found by the base (`gain`), and the same of their IoU.

    Of a lone arm: objects found minus those missed, and the IoU of those found.
    """

    split: str
    image_id: Id
    gain: int
    overlap: float


@dataclass(frozen=True)
class SplitTruth:
    """A split's COCO data set: annotations by image (ignored ones left out), names of classes, images by id."""

    things: Records
    names: dict[int, str]
    images: dict[Id, dict[str, Any]]


def files_of(unit: dict[str, Any], folders: list[Path]) -> Path:
    """Where the files of a unit lie: as a merged report says, else below the first folder that has them."""
    if "folder" in unit:
        return Path(unit["folder"])
    places = [unit_folder(folder, unit["arm"], unit["labels"], unit["seed"]) for folder in folders]
    return next((place for place in places if place.is_dir()), places[0])


def found(things: list[dict[str, Any]], results: list[dict[str, Any]]) -> list[float]:
    """IoU of every annotation with the result that finds it, 0 where none does.

    Only as many results count as there are annotations, the best first; each takes the free object of its class that
    its box covers best, if their IoU is at least IOU. Semantic results have no boxes: the masks of a class, together,
    find all its objects or none.
    """
    if not things or not results:
        return [0.0] * len(things)
    if "bbox" not in results[0]:
        return [_overlap(things, results, thing["category_id"]) for thing in things]
    best = ranked(results, things)
    ious = np.asarray(coco_mask.iou(_boxes(best), _boxes(things), [0] * len(things)))
    overlaps = [0.0] * len(things)
    for row, result in enumerate(best):
        same = (at for at, thing in enumerate(things) if thing["category_id"] == result["category_id"])
        free = [(float(ious[row, at]), at) for at in same if not overlaps[at] and ious[row, at] >= IOU]
        if free:
            overlap, at = max(free)
            overlaps[at] = overlap
    return overlaps


def _overlap(things: list[dict[str, Any]], results: list[dict[str, Any]], category: int) -> float:
    """IoU of all that is of the class with all that was taken for it; 0 below IOU."""
    truth, shown = (
        [record["segmentation"] for record in records if record["category_id"] == category]
        for records in (things, results)
    )
    iou = float(coco_mask.iou([coco_mask.merge(shown)], [coco_mask.merge(truth)], [0])[0, 0]) if shown else 0.0
    return iou if iou >= IOU else 0.0


def _boxes(records: list[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4)


def ranked(results: list[dict[str, Any]], things: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results that count: the best, one for each object (one where there is none); without scores all."""
    if results and "score" not in results[0]:
        return results
    return sorted(results, key=lambda result: -result["score"])[: max(1, len(things))]


def choose(compared: list[Compared], seed: int) -> dict[str, list[Compared]]:
    """At most SHOWN scans each: the largest gains, the largest losses, and others drawn by `seed`.

    Equal gains go by the gain in overlap, then by the order of the data.
    """
    order = sorted(range(len(compared)), key=lambda at: (-compared[at].gain, -compared[at].overlap, at))
    gained = [at for at in order if compared[at].gain > 0][:SHOWN]
    lost = [at for at in reversed(order) if compared[at].gain < 0][:SHOWN]
    rest = [at for at in range(len(compared)) if at not in {*gained, *lost}]
    lot = [rest[at] for at in sorted(np.random.default_rng(seed).permutation(len(rest))[:SHOWN])]
    return {name: [compared[at] for at in group] for name, group in (("up", gained), ("down", lost), ("lot", lot))}


def scans(view: View, folders: list[Path], pictures: Pictures) -> list[Markup]:
    """The section: the rule, how often each arm finds more, and the pictures."""
    pair = _pair(view, folders)
    if pair is None:
        return [dim("No scans to show: that takes two arms with a label size and a seed in common, or one alone.")]
    truths = {split: _first(folders, f"truth/{split}.json") for split in view.tests}
    needed = [*truths.values(), *(d / s / f"results.{pair.kind}.json" for d in pair.folders.values() for s in truths)]
    missing = [path for path in needed if not path.is_file()]
    if missing:
        return [dim(f"No scans to show: {missing[0]} is missing.")]
    compared = [scan for split, path in truths.items() for scan in _compare(pair, split, path)]
    parts = _told(view, pair, compared)
    chosen = choose(compared, int(view.metrics["config"].get("seed") or 0))
    wanted = {scan for group in chosen.values() for scan in group}
    drawn: dict[Compared, Markup] = {}
    for split, path in truths.items():  # one split's results in memory at a time
        drawn |= _draw_split(
            [scan for scan in compared if scan in wanted and scan.split == split], pair, path, pictures, view
        )
    gains, loses = ("finds", "misses") if len(pair.folders) == 1 else ("gains", "loses")
    titles = {"up": f"Where {pair.arm} {gains} most", "down": f"Where it {loses} most", "lot": "Drawn by lot"}
    for sort, group in chosen.items():
        parts += [tag("h3", titles[sort]), *(drawn[scan] for scan in group)]
        if not group:
            parts.append(dim("No such scan."))
    return parts


def _told(view: View, pair: Pair, compared: list[Compared]) -> list[Markup]:
    """How often the arm finds more, and the rule."""
    arm, base, size = pair.arm, view.base, f", {view.label_name(pair.labels)}" if len(view.labels) > 1 else ""
    more, fewer = sum(scan.gain > 0 for scan in compared), sum(scan.gain < 0 for scan in compared)
    counted = f"{len(compared) - more - fewer:,}. Counted with seed {pair.seed}{size}."
    rule = f"The rule: {RULES[pair.kind == 'semantic']} with an IoU of at least {IOU}. Shown are the"
    if len(pair.folders) == 1:
        return [
            tag(
                "p",
                f"{arm} finds more objects than it misses in {more:,} of {len(compared):,} scans, misses more in "
                f"{fewer:,}, and as many or none in {counted}",
            ),
            dim(f"{rule} scans in which it finds most, and misses most, and others drawn by lot."),
        ]
    return [
        tag(
            "p",
            f"{arm} finds more objects than {base} in {more:,} of {len(compared):,} scans, fewer in {fewer:,} and as "
            f"many in {counted}",
        ),
        dim(
            f"{rule} largest gains and the largest losses in objects found (equal ones by overlap), and scans drawn by "
            f"lot. {arm} is the arm with the largest mean difference to {base}, clear or not, among those with weights "
            "of their own where there are any."
        ),
    ]


def _pair(view: View, folders: list[Path]) -> Pair | None:
    """At the smallest label size, the only arm, or the one with the largest mean difference, own weights first."""
    if not view.others and view.labels and view.kinds:
        labels = view.labels[0]
        unit = min(view.units(labels, view.base), key=lambda unit: unit["seed"])
        return Pair(labels, view.kinds[0], view.base, unit["seed"], {view.base: files_of(unit, folders)})
    for labels in view.labels:
        for kind in view.kinds:
            options = []
            for arm in view.others:
                difference = view.difference(labels, kind, arm, view.head)
                shared = set(view.seeds(labels, arm)) & set(view.seeds(labels, view.base))
                if difference is not None and shared:
                    own = view.metrics["arms"][arm]["sha256"] is not None
                    options.append((own, difference["mean"], arm, min(shared)))
            if options:
                _, _, arm, seed = max(options)
                units = {unit["arm"]: unit for unit in view.units(labels) if unit["seed"] == seed}
                where = {side: files_of(units[side], folders) for side in (view.base, arm)}
                return Pair(labels, kind, arm, seed, where)
    return None


def _compare(pair: Pair, split: str, path: Path) -> list[Compared]:
    truth = _truth(path, None if pair.kind == "semantic" else ())
    sides = []
    for folder in pair.folders.values():  # one arm's results in memory at a time
        results = by_image(_boxed(read_json(folder / split / f"results.{pair.kind}.json"), pair.kind))
        sides.append({id: found(truth.things.get(id, []), results.get(id, [])) for id in truth.images})
    *base, arm = sides
    return [
        Compared(split, id, _hits(arm[id]) - _hits(base[0][id]), sum(arm[id]) - sum(base[0][id]))
        if base
        else Compared(split, id, 2 * _hits(arm[id]) - len(arm[id]), sum(arm[id]))
        for id in truth.images
    ]


def _hits(ious: list[float]) -> int:
    return sum(iou > 0 for iou in ious)


def _draw_split(
    chosen: list[Compared], pair: Pair, path: Path, pictures: Pictures, view: View
) -> dict[Compared, Markup]:
    """Truth and both arms on the chosen scans of a split."""
    if not chosen:
        return {}
    ids = {scan.image_id for scan in chosen}
    truth = _truth(path, ids)
    results = {arm: _joined(folder / chosen[0].split, view.kinds, ids) for arm, folder in pair.folders.items()}
    drawn = {}
    for scan in chosen:
        image, things = truth.images[scan.image_id], truth.things.get(scan.image_id, [])
        title = tag("h4", f"{scan.split}: {Path(str(image['file_name'])).name}")
        pixels = pictures(scan.split, scan.image_id)
        if pixels is None:
            drawn[scan] = tag("div", title, dim("The picture of this scan was not found."), class_="scan")
            continue
        objects = f"{len(things)} object{'s' * (len(things) != 1)}"
        panels = [_panel(draw(pixels, marks(things, truth.names)), f"ground truth, {objects}")]
        for arm, by_scan in results.items():
            mine = by_scan.get(scan.image_id, [])
            count = _hits(found(things, mine))
            shown = marks(ranked(mine, things), truth.names)
            panels.append(_panel(draw(pixels, shown), f"{arm} finds {count} of {len(things)}"))
        drawn[scan] = tag("div", title, tag("div", *panels, class_="scans"), class_="scan")
    return drawn


def _truth(path: Path, masks: Iterable[Id] | None) -> SplitTruth:
    """Read a truth file; masks become RLE on the images in `masks` (None: on all) and are left out elsewhere."""
    content = read_json(path)
    images = {image["id"]: image for image in content["images"]}
    wanted = set(images) if masks is None else set(masks)
    things: Records = {}
    for thing in content["annotations"]:
        id, shape = thing["image_id"], thing.get("segmentation")
        if not (thing.get("iscrowd") or thing.get("ignore")):
            mask = to_rle(shape, images[id]["height"], images[id]["width"]) if shape and id in wanted else None
            things.setdefault(id, []).append({**thing, "segmentation": mask})
    return SplitTruth(things, {category["id"]: category["name"] for category in content["categories"]}, images)


def by_image(records: Iterable[dict[str, Any]]) -> Records:
    """Annotations or results by their image's id, each image's in the order given."""
    grouped: Records = {}
    for record in records:
        grouped.setdefault(record["image_id"], []).append(record)
    return grouped


def _joined(folder: Path, kinds: list[str], ids: set[Id]) -> Records:
    """Results on some images, box and mask of a detection in one record: both files list them in one order."""
    joined: Records = {}
    for kind in kinds:
        path = folder / f"results.{kind}.json"
        for id, records in by_image(_boxed(read_json(path), kind) if path.is_file() else []).items():
            before = joined.get(id, records)
            if id in ids and len(before) == len(records):  # other lengths: another program's; its boxes must do
                joined[id] = [{**new, **old} for old, new in zip(before, records, strict=True)]
    return joined


def _boxed(results: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Masks with the boxes round them: objects are found by boxes. Others as they are."""
    if kind != "segm":
        return results
    return [{"bbox": coco_mask.toBbox(result["segmentation"]).tolist(), **result} for result in results]


def _first(folders: list[Path], name: str) -> Path:
    return next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)


def _panel(jpeg: bytes, caption: str) -> Markup:
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return tag("figure", tag("img", alt=caption, src=source), tag("figcaption", caption))
