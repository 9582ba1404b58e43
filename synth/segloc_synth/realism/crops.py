"""Crops of objects with their surroundings, composited and real, and which of them are compared with which."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segloc_synth.bank.labelled import read_labelled
from segloc_synth.bank.segments import SMALLEST, open_scan
from segloc_synth.look.preview import decode
from segloc_synth.realism.matching import FOLDS, Found, fold, group, match, unique
from segloc_synth.shards.format import ShardReader
from segloc_synth.sources.backgrounds import bag_mask
from segloc_synth.sources.images import WHITE, BadImage, Pixels, decode_jpeg, encode_jpeg, fit_to_canvas, read_image
from segloc_synth.sources.text import BadLabel

MARGIN = 16  # pixels of surroundings on each side of an object
SIDE = 64  # least side of a crop
TRIES = 300  # places for the other region
IN_BAG = 0.98  # share of a region that must lie on the bag
CONTROLS = ("which region, real scans", "real against real")  # questions about real scans alone
FEWEST = 20  # comparisons below which a figure says nothing


@dataclass(frozen=True)
class Crop:
    """An object with its surroundings: RGB uint8 [h, w, 3] and 0/1 uint8 [h, w]; beyond the canvas it is white."""

    pixels: Pixels
    mask: Pixels


@dataclass(frozen=True)
class Trial:
    """A question put to a classifier: how do `ones` differ from `others`?

    Attributes:
        name: the question.
        ones, others: the crops; with `paired`, number i of either comes from one picture and the two are compared
            with each other only.
        groups: int64 [len(ones) + len(others)], crops of one bag (and, where there are enough, of one object).
        folds: int64, as long, 0 to FOLDS - 1: the part of the cross-validation; a group lies in one fold.
    """

    name: str
    ones: list[Crop]
    others: list[Crop]
    paired: bool
    groups: NDArray[np.int64]
    folds: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """1 for each of `ones`, then 0 for each of `others`."""
        return np.repeat([1, 0], [len(self.ones), len(self.others)])


def trials(folder: Path, real: Path | None, limit: int, seed: int = 0) -> list[Trial]:
    """The questions that the composites of a build allow, and with a labelled source `real` those beside real objects.

    At most `limit` composites. click.ClickException when either source holds too few.
    """
    reader = ShardReader(folder)
    if not len(reader):
        raise click.ClickException(f"{folder}: no pairs in it; build some with segloc-synth build --n")
    config, rng = reader.manifest["config"], np.random.default_rng(seed)
    pool = list(_composites(reader, rng, 12 * limit))
    if real is None:
        chosen, groups = unique(pool, limit)
        return [_which_region("which region", chosen, groups, reader, rng, str(folder))]
    objects = list(_real_objects(real, config["size"], config["jpeg_quality"]))
    rng.shuffle(objects)  # type: ignore[arg-type]
    ones, others, groups = match(pool, objects, limit)
    if len(ones) < FEWEST:
        raise click.ClickException(
            f"{real}: {len(objects)} usable objects, of which {len(ones)} match a composite of {folder} in class and "
            f"size; {FEWEST} are needed: name a larger source of the same classes, or build more pairs"
        )
    fakes, reals = ([_crop(*_load(item, reader)[:2]) for item in side] for side in (ones, others))
    both = np.tile(groups, 2)
    bags = group([item.keys[:1] for item in others])
    if bags.max() < 2 * FOLDS - 1:
        raise click.ClickException(f"{real}: usable objects in {bags.max() + 1} scans; {2 * FOLDS} are needed")
    half = np.isin(bags, rng.permutation(bags.max() + 1)[::2])
    order = np.argsort(~half, kind="stable")
    halves = [reals[i] for i in order]
    split = int(half.sum())
    control = np.concatenate([fold(bags[half], rng), fold(bags[~half], rng)])
    return [
        _which_region("which region", ones, groups, reader, rng, str(folder)),
        _which_region(CONTROLS[0], others, groups, reader, rng, str(real)),
        Trial("composite against real", fakes, reals, False, both, fold(both, rng)),
        Trial(CONTROLS[1], halves[:split], halves[split:], False, bags[order], control),
    ]


def _composites(reader: ShardReader, rng: np.random.Generator, most: int) -> Iterator[Found]:
    """The pairs' subjects, in random order."""
    for place in rng.permutation(len(reader))[: -(-most // 2)]:
        meta = reader.complete(int(place)).meta
        for name in ("key", "query"):
            view = meta[name]
            scan = view["segment"].rpartition("#")[0]
            masks = [item["mask"] for item in view["items"]]
            keys = (f"bag {view['background']}", f"bag {scan}")
            area = int(coco_mask.area(masks[0]))
            yield Found((int(place), name), meta["class_name"].casefold(), area, keys, masks[0], tuple(masks[1:]))


def _real_objects(path: Path, size: int, quality: int) -> Iterator[Found]:
    """The objects of a labelled source on the canvas, as a build's backgrounds are: fitted, encoded as JPEG."""
    source = read_labelled(path, allow_test=True)
    for scan in source.scans:
        try:
            whole, found, _, _ = open_scan(scan, source.bottom_rows)
            pixels, _ = read_image(scan.path, expect=scan.size, at_least=size)  # decoded as benign scans are
        except (BadImage, BadLabel):
            continue
        pixels = pixels[: round(len(whole) * pixels.shape[1] / whole.shape[1])]
        jpeg = encode_jpeg(fit_to_canvas(pixels, size), quality)
        masks = [(annotation.class_id, _rle(fit_mask(mask, size))) for annotation, mask, _ in found]
        for number, (class_id, rle) in enumerate(masks):
            rest = tuple(other for place, (_, other) in enumerate(masks) if place != number)
            name, area = source.classes[class_id].casefold(), int(coco_mask.area(rle))
            if area >= SMALLEST:
                yield Found(jpeg, name, area, (f"bag {scan.name}",), rle, rest)


def fit_mask(mask: Pixels, size: int) -> Pixels:
    """A mask, 0/1 uint8 [H, W], on the canvas, uint8 [size, size], where a scan's pixels are."""
    paper = np.repeat(WHITE * (1 - mask)[..., None], 3, axis=2)
    return (fit_to_canvas(paper, size)[..., 0] < WHITE / 2).astype(np.uint8)


def _rle(mask: Pixels) -> dict[str, Any]:
    return dict(coco_mask.encode(np.asfortranarray(mask)))


def _load(item: Found, reader: ShardReader) -> tuple[Pixels, Pixels, Pixels]:
    """The canvas of an object, its mask, and the mask of all labelled objects."""
    if isinstance(item.source, tuple):
        place, name = item.source
        picture = decode(getattr(reader[place], name), place, reader.folder)
    else:
        own = decode_jpeg(item.source)
        assert own is not None
        picture = own
    mask = coco_mask.decode(item.mask)
    return picture, mask, np.bitwise_or.reduce([mask, *(coco_mask.decode(other) for other in item.others)])


def _crop(picture: Pixels, mask: Pixels, shift: tuple[int, int] = (0, 0)) -> Crop:
    """The crop around a mask, moved on by `shift` (x, y) pixels; the mask moves with it."""
    x, y, width, height = cv2.boundingRect(mask)
    wide, high = (max(side + 2 * MARGIN, SIDE) for side in (width, height))
    left, top = x - (wide - width) // 2, y - (high - height) // 2
    return Crop(
        _window(picture, left + shift[0], top + shift[1], wide, high, WHITE), _window(mask, left, top, wide, high, 0)
    )


def _window(pixels: Pixels, left: int, top: int, width: int, height: int, beyond: int) -> Pixels:
    out = np.full((height, width, *pixels.shape[2:]), beyond, np.uint8)
    rows = slice(max(top, 0), max(min(top + height, len(pixels)), 0))
    cols = slice(max(left, 0), max(min(left + width, pixels.shape[1]), 0))
    out[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left] = pixels[rows, cols]
    return out


def _which_region(
    name: str,
    items: list[Found],
    groups: NDArray[np.int64],
    reader: ShardReader,
    rng: np.random.Generator,
    where: str,
) -> Trial:
    """Each object's box against a box of its size elsewhere in the same bag. Where the object is, is the question,
    so its outline is not told: both masks are the box."""
    ones, others, kept = [], [], []
    for number, item in enumerate(items):
        picture, mask, labelled = _load(item, reader)
        x, y, width, height = cv2.boundingRect(mask)
        shift = _elsewhere(picture, labelled, (x, y, width, height), rng)
        if shift is None:
            continue
        box = np.zeros_like(mask)
        box[y : y + height, x : x + width] = 1
        ones.append(_crop(picture, box))
        others.append(_crop(picture, box, shift))
        kept.append(number)
    part = groups[kept]
    if len(kept) < FEWEST or len(np.unique(part)) < FOLDS:
        raise click.ClickException(
            f"{where}: {len(kept)} composites on different backgrounds have room in the bag for a second region of the "
            f"object's size; {FEWEST} are needed: build more pairs, with more benign scans"
        )
    folds = fold(part, rng)
    return Trial(name, ones, others, True, np.tile(part, 2), np.tile(folds, 2))


def _elsewhere(
    picture: Pixels, labelled: Pixels, box: tuple[int, int, int, int], rng: np.random.Generator
) -> tuple[int, int] | None:
    """How far to move a box (x, y) so that it lies in the bag, as far as it did, clear of labelled objects, and on
    what is as dark and as varied as its content, as far as a few hundred random places allow."""
    x, y, width, height = box
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1))

    def means(values: NDArray[Any]) -> NDArray[np.float64]:
        total = cv2.integral(values)
        return np.asarray(
            total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width],
            np.float64,
        ) / (width * height)

    in_bag = means(bag_mask(picture))
    free = means(cv2.dilate(labelled, np.ones((5, 5), np.uint8))) == 0
    spots = np.argwhere(free & (in_bag >= min(IN_BAG, in_bag[y, x])))
    if not len(spots):
        return None
    spots = spots[rng.integers(len(spots), size=TRIES)]
    looks = [means(grey), np.sqrt(np.maximum(means(grey**2) - means(grey) ** 2, 0)), means(slope)]
    unlike = sum((np.log((look[tuple(spots.T)] + 4) / (look[y, x] + 4)) ** 2 for look in looks), np.zeros(len(spots)))
    top, left = spots[int(unlike.argmin())]
    return int(left) - x, int(top) - y
