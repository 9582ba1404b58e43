"""A fine-tuned detector on anybody's pictures: COCO results and drawn pictures."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import torch

from segloc_eval.data.scans import Scan
from segloc_eval.mm.model import load_detector
from segloc_eval.mm.predict import Results, predict
from segloc_eval.recipe import kinds
from segloc_eval.report.drawing import draw, marks
from segloc_eval.run.unit import write_results
from segloc_synth.console import log, progress
from segloc_synth.files import atomic_write, output_dir, write_json
from segloc_synth.sources.images import BadImage, read_image
from segloc_synth.sources.listing import list_images
from segloc_synth.sources.problems import USABLE, Problem

SURE = 0.3  # least score of what is drawn


def predict_folder(weights: Path, images: Sequence[Path], out: Path, device: torch.device) -> list[Problem]:
    """Let a fine-tuned detector look at pictures; returns the problems of the pictures.

    Args:
        weights: detector.pth, with its detector.json beside it, or the folder of both.
        images: picture files, and folders that are searched through for them.
        out: a new or empty folder. It gets images.json (COCO images, numbered from 1, and categories),
            results.bbox.json and, with masks, results.segm.json (or results.semantic.json), and in pictures/ a JPEG
            for each picture, NUMBER_NAME.jpg, with what was found at a score of 0.3 or more.

    Pictures that cannot be read are left out. click.ClickException when the detector cannot be used, none of the
    pictures can be read, or `out` is taken.
    """
    model, about = load_detector(weights)
    scans, problems = _readable(_files(images))
    if not scans:
        first = f"; first problem: {problems[0].kind}: {problems[0].where()}" if problems else ""
        raise click.ClickException(f"no picture that can be read among {', '.join(map(str, images))}{first}")
    out = output_dir(out, "name another --out")
    (out / "pictures").mkdir()
    categories = [{"id": id, "name": name} for id, name in about.classes.items()]
    listed = [
        {"id": scan.id, "file_name": str(scan.path), "width": scan.width, "height": scan.height} for scan in scans
    ]
    write_json(out / "images.json", {"images": listed, "categories": categories, "annotations": []})
    by_scan: dict[int, Results] = {}
    found = predict(model, scans, list(about.classes), about.recipe, device)
    digits = len(str(len(scans)))
    for scan, results in zip(scans, progress(found, len(scans), "looking at pictures"), strict=True):
        by_scan[scan.id] = results
        with atomic_write(out / "pictures" / f"{scan.id:0{digits}d}_{scan.path.stem}.jpg") as file:
            file.write(_drawn(scan, results, about.classes))
    write_results(out, scans, by_scan, about.detector)
    log.info("%s: %s", out, ", ".join(f"results.{kind}.json" for kind in kinds(about.detector)))
    return problems


def _files(images: Iterable[Path]) -> list[Path]:
    """Each file once, in the order given, a folder's sorted; click.ClickException for a path that is neither."""
    files: dict[Path, None] = {}
    for path in images:
        if path.is_dir():
            files |= dict.fromkeys(path / name for name, _ in list_images(path))
        elif path.is_file():
            files[path] = None
        else:
            raise click.ClickException(f"{path}: no such file or folder")
    return list(files)


def _readable(files: Iterable[Path]) -> tuple[list[Scan], list[Problem]]:
    """The pictures that decode, numbered from 1, in their size as stored; and what is wrong with any."""
    scans: list[Scan] = []
    problems: list[Problem] = []
    for path in files:
        try:
            pixels, kinds = read_image(path)
        except BadImage as reason:
            problems.append(Problem(str(reason), str(path)))
            continue
        problems += [Problem(kind, str(path)) for kind in kinds if kind in USABLE]
        number = len(scans) + 1
        scans.append(Scan(number, number, path, pixels.shape[1], pixels.shape[0], ()))
    return scans, problems


def _drawn(scan: Scan, results: Results, classes: dict[int, str]) -> bytes:
    """JPEG of the scan with what was found in it at a score of SURE or more."""
    sure = [result for result in results if result.get("score", 1.0) >= SURE]
    best = sorted(sure, key=lambda result: -result.get("score", 1.0))
    return draw(read_image(scan.path)[0], marks(best, classes))
