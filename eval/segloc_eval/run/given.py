"""--eval-only: arms that are results already, anybody's or ours. They are checked record by record and copied."""

from pathlib import Path
from typing import Any

import click
from pycocotools import mask as coco_mask

from segloc_eval.config import DETECTOR
from segloc_eval.recipe import ResultKind
from segloc_eval.run.results import KINDS, Truth, check_results, results_file
from segloc_synth.files import read_json, write_json

KEY = {"bbox": "bbox", "segm": "segmentation", "semantic": "segmentation"}


def is_detector(source: str) -> bool:
    """Whether the arm is a fine-tuned detector, which has to look at the scans yet."""
    return source.endswith(DETECTOR)


def copy_results(source: Path, known: Truth, folder: Path) -> None:
    """Check an arm's results and write them below `folder`, a file per split and kind.

    `source` is a folder with SPLIT/results.KIND.json, or one COCO results json, whose detections may have boxes, masks
    (RLE) or both. click.ClickException for a split or kind that is missing, and the first record that is no result.
    """
    splits = list(known.splits)
    if source.is_dir():
        kinds = tuple(kind for kind in KINDS if any(results_file(source, split, kind).is_file() for split in splits))
        files = {(split, kind): results_file(source, split, kind) for split in splits for kind in kinds}
        missing = [file for file in files.values() if not file.is_file()]
        if missing or not kinds:
            raise click.ClickException(f"{missing[0] if missing else source}: no such results file")
    else:
        if len(splits) > 1:
            raise click.ClickException(
                f"{source}: one results json, but the data have the splits {', '.join(splits)}; name a folder that "
                f"holds {splits[0]}/results.bbox.json and so on, or the json of one split as --data"
            )
        kinds = _kinds_in(source)
        files = {(splits[0], kind): source for kind in kinds}
    for (split, kind), file in files.items():
        value = read_json(file)
        check_results(value, file, split, kind, known)
        wanted = ("image_id", "category_id", KEY[kind], "score")
        (folder / split).mkdir(parents=True, exist_ok=True)
        kept = [{name: result[name] for name in wanted if name in result} for result in value]
        for result in kept:
            if isinstance(result.get("segmentation", {}).get("counts"), list):
                rle = coco_mask.frPyObjects(result["segmentation"], *result["segmentation"]["size"])
                result["segmentation"] = {**rle, "counts": rle["counts"].decode()}
        write_json(results_file(folder, split, kind), kept, indent=None)


def _kinds_in(file: Path) -> tuple[ResultKind, ...]:
    """What the detections of a results json have, judged by the first."""
    value = read_json(file)
    first: Any = value[0] if isinstance(value, list) and value else {}
    has = first if isinstance(first, dict) else {}
    if not isinstance(value, list) or (value and not {"bbox", "segmentation"} & set(has)):
        raise click.ClickException(
            f"{file}: neither {DETECTOR} nor COCO results: a list of detections with bbox is needed"
        )
    if "segmentation" in has and "score" not in has:
        return ("semantic",)
    return tuple(kind for kind in KINDS[:2] if KEY[kind] in has) or ("bbox",)
