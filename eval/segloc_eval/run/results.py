"""What an evaluation's folder holds to be scored: truth and results per split, as standard COCO files.

Image ids in files are the data set's own, which restart in each split of PIDray and may be texts; scoring wants
numbers that are unique over the splits, so both are numbered when they are read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from segloc_eval.config import TRUTH
from segloc_eval.data.datasets import Data, truth
from segloc_eval.data.scans import Scan
from segloc_eval.numbers.errors import clutter
from segloc_eval.recipe import ResultKind
from segloc_synth.files import as_path, read_json, write_json
from segloc_synth.sources.images import BadImage, read_image
from segloc_synth.sources.masks import NO_AREA, segmentation_to_mask
from segloc_synth.sources.text import BadLabel
from segloc_synth.sources.values import FAR

FORMAT = 2  # of metrics.json
KINDS: tuple[ResultKind, ...] = ("bbox", "segm", "semantic")


@dataclass(frozen=True)
class Truth:
    """COCO data sets by split, image and annotation ids unique over all; `numbers`: split -> id in the files -> id."""

    splits: dict[str, dict[str, Any]]
    numbers: dict[str, dict[int | str, int]]


def read_own(file: Path, remedy: str) -> Any:
    """A JSON file that segloc-eval wrote; click.ClickException with the remedy when it is torn or gone."""
    try:
        return read_json(file)
    except click.ClickException as error:
        raise click.ClickException(f"{error.message}; {remedy}") from None


def results_file(folder: Path, split: str, kind: str) -> Path:
    """Where the results of one fine-tuning on one split lie."""
    return folder / split / f"results.{kind}.json"


def write_truth(out: Path, data: Data) -> None:
    """OUT/truth/SPLIT.json: a COCO data set each, under the image ids of the data set's own json.

    File names are as in the lists of scans; every object has its `clutter` (see errors.clutter) where it has a ring.
    A file of the very scans and labels is kept: measuring takes its time.
    """
    (out / TRUTH).mkdir(exist_ok=True)
    for split, scans in data.scored.items():
        file = out / TRUTH / f"{split}.json"
        value = truth(scans, data.classes, data.root)
        theirs = {scan.id: scan for scan in scans}
        for image in value["images"]:
            image["id"] = theirs[image["id"]].source_id
        for annotation in value["annotations"]:
            annotation["image_id"] = theirs[annotation["image_id"]].source_id
        with suppress(click.ClickException):  # a torn file is made anew
            if _unmeasured(read_json(file)) == value:
                continue
        with ThreadPoolExecutor() as pool:
            around = [one for scan in pool.map(_clutters, scans) for one in scan]
        for annotation, measured in zip(value["annotations"], around, strict=True):
            if measured is not None:
                annotation["clutter"] = round(measured, 4)
        write_json(file, value, indent=None)


def _unmeasured(value: Any) -> Any:
    """What write_truth wrote, without the `clutter` of its objects; None for anything else."""
    try:
        plain = [{key: of for key, of in one.items() if key != "clutter"} for one in value["annotations"]]
        return {**value, "annotations": plain}
    except (AttributeError, KeyError, TypeError):
        return None


def _clutters(scan: Scan) -> list[float | None]:
    pixels, _ = read_image(scan.path, expect=(scan.width, scan.height))
    return [clutter(pixels, thing.box) for thing in scan.objects]


def read_truth(out: Path, splits: Sequence[str]) -> Truth:
    """What write_truth wrote; click.ClickException when a file is missing or no such file."""
    numbered: dict[str, dict[str, Any]] = {}
    numbers: dict[str, dict[int | str, int]] = {}
    images = annotations = 0
    for split in splits:
        value = read_own(out / TRUTH / f"{split}.json", "evaluate again")
        try:
            ids = {image["id"]: images + place for place, image in enumerate(value["images"], 1)}
            numbered[split] = {
                **{"info": {}, "categories": value["categories"]},
                "images": [{**image, "id": ids[image["id"]]} for image in value["images"]],
                "annotations": [
                    {**annotation, "id": annotations + place, "image_id": ids[annotation["image_id"]]}
                    for place, annotation in enumerate(value["annotations"], 1)
                ],
            }
        except (KeyError, TypeError):
            raise click.ClickException(f"{out / TRUTH / split}.json: not as segloc-eval writes it") from None
        numbers[split] = ids
        images += len(value["images"])
        annotations += len(value["annotations"])
    return Truth(numbered, numbers)


def read_results(file: Path, split: str, known: Truth) -> list[dict[str, Any]]:
    """The results in a file of ours, under the numbered image ids; click.ClickException when they are of other data."""
    value = read_own(file, "delete it and evaluate again")
    numbers = known.numbers[split]
    try:
        return [{**result, "image_id": numbers[result["image_id"]]} for result in value]
    except (KeyError, TypeError):
        raise click.ClickException(f"{file}: holds results of images that split {split} does not have") from None


class ResultsBySplit(Mapping[str, list[dict[str, Any]]]):
    """One fine-tuning's numbered results by split, read when asked: all together may not fit in memory."""

    def __init__(self, folder: Path, kind: ResultKind, known: Truth) -> None:
        self.folder, self.kind, self.known = folder, kind, known

    def __getitem__(self, split: str) -> list[dict[str, Any]]:
        return read_results(results_file(self.folder, split, self.kind), split, self.known)

    def __iter__(self) -> Iterator[str]:
        return iter(self.known.splits)

    def __len__(self) -> int:
        return len(self.known.splits)


def kinds_in(folder: Path, known: Truth) -> list[ResultKind]:
    """The kinds of which the results of every split lie in a fine-tuning's folder, and which the truth can score."""
    masks = any("segmentation" in one for value in known.splits.values() for one in value["annotations"])
    scored = [kind for kind in KINDS if masks or kind == "bbox"]
    return [kind for kind in scored if all(results_file(folder, split, kind).is_file() for split in known.splits)]


def are_lost(scores: Iterable[str], folder: Path, known: Truth) -> bool:
    """Whether results that a finished unit's `scores` were taken from, by kind, are not in its folder any more."""
    return not set(scores) <= set(kinds_in(folder, known))


def clutters(known: Truth) -> dict[str, dict[int, float]]:
    """By split and numbered annotation id: what write_truth measured."""
    return {
        split: {one["id"]: one["clutter"] for one in value["annotations"] if "clutter" in one}
        for split, value in known.splits.items()
    }


def check_results(value: Any, file: Path, split: str, kind: ResultKind, known: Truth) -> None:
    """Whether anybody's json can be scored as results of this kind; click.ClickException names the first bad record."""
    if not isinstance(value, list):
        raise click.ClickException(f"{file}: not a COCO results file: it needs a list of detections")
    sizes = {image["id"]: (image["height"], image["width"]) for image in known.splits[split]["images"]}
    categories = {category["id"] for category in known.splits[split]["categories"]}
    numbers = known.numbers[split]
    for place, result in enumerate(value):
        reason = _fault(result, kind, numbers, sizes, categories)
        if reason:
            raise click.ClickException(f"{file}: result no. {place}: {reason}")


def _fault(
    result: Any,
    kind: ResultKind,
    numbers: dict[int | str, int],
    sizes: dict[int, tuple[int, int]],
    categories: set[int],
) -> str:
    """Why a record is no result of this kind; empty when it is one."""
    if not isinstance(result, dict):
        return "not an object"
    image = result.get("image_id")
    if type(image) not in (int, str) or image not in numbers:
        return f"image_id {str(image)[:40]} is no image of this split"
    if type(result.get("category_id")) is not int or result["category_id"] not in categories:
        return f"category_id {str(result.get('category_id'))[:40]} is no category of the data"
    if kind != "semantic" and not _finite(result.get("score")):
        return "score is no finite number"
    if kind == "bbox":
        box = result.get("bbox")
        fits = isinstance(box, list) and len(box) == 4 and all(_finite(v) for v in box) and min(box[2:]) >= 0
        return "" if fits else "bbox is not [x, y, width, height]"
    mask = result.get("segmentation")
    if not isinstance(mask, dict) or mask.get("size") != list(sizes[numbers[image]]):
        return "segmentation is no RLE of the image's size"
    try:
        segmentation_to_mask(mask, *sizes[numbers[image]])
    except BadLabel as error:
        return "" if str(error) == NO_AREA else f"segmentation: {error}"  # an empty mask finds nothing, but is a result
    return ""


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < FAR  # nan is not


def pictures(metrics: dict[str, Any], out: Path) -> Callable[[str, int | str], NDArray[np.uint8] | None]:
    """Looks up scans of the test splits by split and image id: RGB uint8 [H, W, 3], None where it cannot be read."""
    root = as_path(metrics["data"]["path"])
    files = {
        (file.stem, image["id"]): (root / image["file_name"], (image["width"], image["height"]))
        for file in (out / TRUTH).glob("*.json")
        for image in read_json(file)["images"]
    }

    def look_up(split: str, image: int | str) -> NDArray[np.uint8] | None:
        try:
            return read_image(*files[split, image])[0]
        except (BadImage, KeyError):
            return None

    return look_up
