"""Which detection finds which object: the decisions of pycocotools' COCOeval, made once per results file.

Ten IoU thresholds, four size ranges, crowds and objects of other sizes ignored, at most 100 detections of a class and
image. Every number of score.py, and every draw of a bootstrap, is read from the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Kind = Literal["bbox", "segm"]
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
# all, small, medium, large: areas in pixels, both ends inside
RANGES = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])
LIMIT = 100  # best detections counted per image and class
FALSE, TRUE, IGNORED = 0, 1, 2  # what a detection counts as
_PADDED = 2**20  # IoU values matched at a time


@dataclass(frozen=True)
class Things:
    """Objects of a data set, or detections on it, a row each.

    image, label: int64 [n], positions among the sorted ids of images and categories; area: float64 [n], pixels;
    shape: float64 [n, 4] boxes (x, y, w, h) or object [n] RLE dicts; crowd: bool [n]; score: float64 [n] (objects: 1);
    id: object [n], the annotations' ids (detections: the position in the results).
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    area: NDArray[np.float64]
    shape: NDArray[Any]
    crowd: NDArray[np.bool_]
    score: NDArray[np.float64]
    id: NDArray[Any]

    def take(self, rows: NDArray[Any]) -> "Things":
        return Things(*(value[rows] for value in vars(self).values()))


@dataclass(frozen=True)
class Matches:
    """What each detection counts as.

    images: number of images; classes: names by label; label, image int64 [n], score float64 [n]: as the detections,
    ordered by class, image and falling score; state: int8 [n, size range, threshold], FALSE, TRUE or IGNORED;
    target: int64 [n], the row of the object found at IoU 0.5 in any size, else -1;
    object_label, object_image: int64 [m]; counted: bool [m, size range], objects to be found.
    """

    images: int
    classes: tuple[str, ...]
    label: NDArray[np.int64]
    image: NDArray[np.int64]
    score: NDArray[np.float64]
    state: NDArray[np.int8]
    target: NDArray[np.int64]
    object_label: NDArray[np.int64]
    object_image: NDArray[np.int64]
    counted: NDArray[np.bool_]


def read_objects(truth: dict[str, Any], kind: Kind) -> Things:
    """The annotations of a COCO data set; polygons and uncompressed RLE become RLE for kind segm.

    What is marked "ignore", as VOC's difficult objects are, is ignored as crowds are.
    """
    images, labels = positions(truth)
    records = [a for a in truth["annotations"] if a["image_id"] in images and a["category_id"] in labels]
    if kind == "segm":
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        shapes = [to_rle(record["segmentation"], *sizes[record["image_id"]]) for record in records]
    else:
        shapes = [record["bbox"] for record in records]
    return Things(
        image=np.array([images[record["image_id"]] for record in records], np.int64),
        label=np.array([labels[record["category_id"]] for record in records], np.int64),
        area=np.array([record["area"] for record in records], np.float64),
        shape=_shapes(shapes, kind),
        crowd=np.array([bool(r.get("iscrowd", 0) or r.get("ignore", 0)) for r in records], np.bool_),
        score=np.ones(len(records)),
        id=_objects([record["id"] for record in records]),
    )


def read_detections(truth: dict[str, Any], results: Sequence[dict[str, Any]], kind: Kind) -> Things:
    """COCO results ordered by class, image and falling score, the best LIMIT of each class and image.

    Equal scores keep the order of `results`; unknown categories are left out. ValueError for an unknown image.
    """
    images, labels = positions(truth)
    key = "bbox" if kind == "bbox" else "segmentation"
    try:
        image = np.array([images[result["image_id"]] for result in results], np.int64)
    except KeyError as id:
        raise ValueError(f"results for image {id}, which the data set does not have") from None
    label = np.array([labels.get(result["category_id"], -1) for result in results], np.int64)
    score = np.array([result["score"] for result in results], np.float64)
    order = np.lexsort((-score, image, label))
    order = order[label[order] >= 0]
    first = np.flatnonzero(changes(label[order], image[order]))
    rank = np.arange(len(order)) - np.repeat(first, np.diff([*first, len(order)]))
    order = order[rank < LIMIT]
    shapes = _shapes([results[row][key] for row in order], kind)
    area = shapes[:, 2] * shapes[:, 3] if kind == "bbox" else _areas(shapes)
    none = np.zeros(len(order), np.bool_)
    return Things(image[order], label[order], area, shapes, none, score[order], order)


def to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Compressed COCO RLE of a segmentation: polygons, uncompressed or compressed RLE."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def overlaps(detections: NDArray[Any], objects: NDArray[Any], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU [D, G] of shapes as in Things; with a crowd: intersection over the detection's area, as COCO has it."""
    if detections.ndim == 2:
        return coco_mask.iou(detections, objects, crowd.astype(np.uint8))
    return coco_mask.iou(list(detections), list(objects), crowd.astype(np.uint8))


def matches(truth: dict[str, Any], results: Sequence[dict[str, Any]], kind: Kind) -> Matches:
    """The table of a COCO results list against a COCO data set (fields as score.score wants them)."""
    names = {category["id"]: category["name"] for category in truth["categories"]}
    classes = tuple(names[id] for id in sorted(names))
    images = len({image["id"] for image in truth["images"]})
    return match(read_objects(truth, kind), read_detections(truth, results, kind), images, classes)


def match(objects: Things, detections: Things, images: int, classes: tuple[str, ...]) -> Matches:
    """Match greedily, best detection first, each to the free object of its class that it overlaps most."""
    outside = (objects.area[:, None] < RANGES[:, 0]) | (objects.area[:, None] > RANGES[:, 1])
    ignored = outside | objects.crowd[:, None]
    away = (detections.area[:, None] < RANGES[:, 0]) | (detections.area[:, None] > RANGES[:, 1])
    unmatched = np.where(away, IGNORED, FALSE).astype(np.int8)
    state = np.repeat(unmatched[:, :, None], len(THRESHOLDS), axis=2)
    target = np.full(len(detections.label), -1, np.int64)
    for rows, columns, iou in _batches(objects, detections, images):
        _match_batch(rows, columns, iou, ignored, objects.crowd, state, target)
    found = (detections.label, detections.image, detections.score, state, target)
    return Matches(images, classes, *found, objects.label, objects.image, ~ignored)


def concatenate(tables: Sequence[Matches]) -> Matches:
    """One table of all images: of equal scores, those of earlier tables come first. All have the same classes."""
    images = np.cumsum([0, *(table.images for table in tables)])
    objects = np.cumsum([0, *(len(table.object_label) for table in tables)])
    moved = [
        replace(
            table,
            image=table.image + images[place],
            object_image=table.object_image + images[place],
            target=np.where(table.target < 0, -1, table.target + objects[place]),
        )
        for place, table in enumerate(tables)
    ]
    fields = ("label", "image", "score", "state", "target", "object_label", "object_image", "counted")
    return Matches(
        int(images[-1]),
        tables[0].classes,
        *(np.concatenate([getattr(table, field) for table in moved]) for field in fields),
    )


def _batches(
    objects: Things, detections: Things, images: int
) -> "list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]":
    """Batches of groups (a class in an image with both objects and detections of it).

    Detection rows [K, D], object rows [K, G] (-1: padding) and IoU [K, D, G] (padding: -1). Detections that overlap
    no object by half match nothing and are left out.
    """
    theirs = np.argsort(objects.label * images + objects.image, kind="stable")
    keys, first = np.unique((objects.label * images + objects.image)[theirs], return_index=True)
    members = np.split(theirs, first[1:])
    group = detections.label * images + detections.image  # rising, as they are ordered
    bounds = np.stack([np.searchsorted(group, keys), np.searchsorted(group, keys + 1)], 1).tolist()
    groups = []
    for columns, (start, end) in zip(members, bounds, strict=False):  # without objects: [[]] and []
        if start < end:
            iou = overlaps(detections.shape[start:end], objects.shape[columns], objects.crowd[columns])
            near = np.flatnonzero(iou.max(1) >= THRESHOLDS[0])
            if len(near):
                groups.append((start + near, columns, iou[near]))
    groups.sort(key=lambda group: group[2].shape)
    return [_pad(groups[first:last]) for first, last in _cuts([group[2].size for group in groups])]


def _cuts(sizes: list[int]) -> list[tuple[int, int]]:
    """Cut a list into runs of about _PADDED values at the largest size in the run."""
    cuts, first, widest = [], 0, 0
    for place, size in enumerate(sizes):
        widest = max(widest, size)
        if place > first and widest * (place + 1 - first) > _PADDED:
            cuts.append((first, place))
            first, widest = place, size
    return [*cuts, (first, len(sizes))] if sizes else []


def _pad(groups: list[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    deep, wide = (max(group[2].shape[axis] for group in groups) for axis in (0, 1))
    rows, columns = np.full((len(groups), deep), -1), np.full((len(groups), wide), -1)
    iou = np.full((len(groups), deep, wide), -1.0)
    for place, (own, theirs, values) in enumerate(groups):
        rows[place, : len(own)], columns[place, : len(theirs)] = own, theirs
        iou[place, : len(own), : len(theirs)] = values
    return rows, columns, iou


def _match_batch(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    iou: NDArray[np.float64],
    ignored: NDArray[np.bool_],
    crowd: NDArray[np.bool_],
    state: NDArray[np.int8],
    target: NDArray[np.int64],
) -> None:
    """Write state and target of a batch's detections: axes group, size range, threshold, object."""
    ignore = ignored[columns].transpose(0, 2, 1)[:, :, None]
    again = crowd[columns][:, None, None]  # a crowd can be found many times
    wide = columns.shape[1]
    free = np.ones((len(rows), len(RANGES), len(THRESHOLDS), wide), np.bool_)
    bars = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for place in range(rows.shape[1]):
        overlap = iou[:, place][:, None, None]
        able = (free | again) & (overlap >= bars)
        proper = able & ~ignore
        able = np.where(proper.any(-1, keepdims=True), proper, able)  # an object that counts goes first
        # of equal overlaps COCOeval takes the last
        best = wide - 1 - np.where(able, overlap, -1.0)[..., ::-1].argmax(-1)
        hit = np.any(able, axis=-1)
        which, area, at = np.nonzero(hit)
        chosen = best[hit]
        free[which, area, at, chosen] = False
        lost = ignored[columns[which, chosen], area]
        state[rows[which, place], area, at] = np.where(lost, IGNORED, TRUE)
        first = hit[:, 0, 0]
        target[rows[first, place]] = columns[first, best[first, 0, 0]]


def positions(truth: dict[str, Any]) -> tuple[dict[Any, int], dict[Any, int]]:
    """Places of image and category ids among the sorted ones."""
    images = sorted({image["id"] for image in truth["images"]})
    labels = sorted({category["id"] for category in truth["categories"]})
    return {id: place for place, id in enumerate(images)}, {id: place for place, id in enumerate(labels)}


def _areas(rles: NDArray[Any]) -> NDArray[np.float64]:
    """Pixels of masks; a few at a time, as pycocotools 2.0.11 fails at 256."""
    return np.array([area for at in range(0, len(rles), 200) for area in coco_mask.area(list(rles[at : at + 200]))])


def _shapes(shapes: list[Any], kind: Kind) -> NDArray[Any]:
    return np.array(shapes, np.float64).reshape(-1, 4) if kind == "bbox" else _objects(shapes)


def _objects(values: list[Any]) -> NDArray[Any]:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def changes(*keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True at each row that differs from the one before; at the first."""
    out: NDArray[np.bool_] = np.ones(len(keys[0]), np.bool_)
    out[1:] = np.any(np.stack([np.diff(key) != 0 for key in keys]), axis=0)
    return out
