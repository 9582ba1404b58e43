"""PhantomRay on disk: PIDray's layout for the labelled scans, SIXray's names for the benign ones."""

from functools import partial
from pathlib import Path
from typing import Any

import click
import cv2

from segloc_synth.console import progress
from segloc_synth.engines import check_stop, run_local
from segloc_synth.files import cache_dir, new_folder, output_dir, write_json
from segloc_synth.phantom.annotate import annotation
from segloc_synth.phantom.physics import PIDRAY, PIDRAY_VIVID, SIXRAY, Scanner
from segloc_synth.phantom.scene import (
    BENIGN,
    CLASSES,
    SPLITS,
    cast,
    detector,
    expose,
    plan_scene,
    scan_rng,
    silhouette,
)

VERSION = 2  # of the generator: raise it when a scan's bytes change
BATCH = 16  # scans a task
VIVID = 0.25  # share of labelled scans in the vivid palette
STEMS = {"train": "xray_", "easy": "xray_easy", "hard": "xray_hard", "hidden": "xray_hidden"}
JSONS = {split: f"xray_{'' if split == 'train' else 'test_'}{split}.json" for split in SPLITS}
MIN_SIZE, MAX_SIZE = 48, 2048

Job = tuple[str, int]  # split or BENIGN, index
Record = dict[str, Any]


def split_sizes(images: int) -> dict[str, int]:
    """Scans per split: 12 % (at least one) each for easy, hard and hidden, the rest, about 64 %, for train."""
    if images < 4:
        raise click.ClickException(f"{images} labelled scans: at least 4 are needed, one for each split")
    tests = max(1, round(0.12 * images))
    return {"train": images - 3 * tests, "easy": tests, "hard": tests, "hidden": tests}


def scanner_of(seed: int, split: str, index: int) -> Scanner:
    """Which scanner a scan of the data set comes from; a quarter of PIDray's are in its second, vivid palette."""
    if split == BENIGN:
        return SIXRAY
    return PIDRAY_VIVID if scan_rng(seed, split, index, 4).random() < VIVID else PIDRAY


def write_scan(root: Path, seed: int, size: int, job: Job) -> Record:
    """Render one scan into the data set at `root`; returns its image record with its annotations, without ids."""
    split, index = job
    scene = plan_scene(seed, split, index)
    shadow = cast(scene, size)
    scanner = scanner_of(seed, split, index)
    pixels = cv2.cvtColor(expose(shadow, scanner, scan_rng(seed, split, index, 1)), cv2.COLOR_RGB2BGR)
    if scanner.jpeg is None:
        path = root / "pidray" / split / f"{STEMS[split]}{index:05d}.png"
        _, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    else:  # SIXray's
        path = root / "sixray" / f"N{index + 1:07d}.jpg"
        _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, scanner.jpeg])
    path.write_bytes(encoded.tobytes())  # cv2.imwrite does not tell of a full disk, and leaves half a file
    width, height = detector(scene, size)
    kinds = scan_rng(seed, split, index, 3).random(len(scene.threats))
    found = [
        annotation(silhouette(own), threat.category, float(kind))
        for threat, own, kind in zip(scene.threats, shadow.threats, kinds, strict=True)
    ]
    return {"height": height, "width": width, "file_name": path.name, "annotations": found}


def _write_batch(root: Path, seed: int, size: int, jobs: list[Job]) -> list[Record]:
    scans = []
    for job in jobs:
        check_stop()
        scans.append(write_scan(root, seed, size, job))
    return scans


def _render_all(root: Path, jobs: list[Job], seed: int, size: int, workers: int) -> list[Record]:
    batches = [jobs[i : i + BATCH] for i in range(0, len(jobs), BATCH)]
    results = run_local(partial(_write_batch, root, seed, size), batches, workers)
    scans = (scan for batch in results for scan in batch)
    return list(progress(scans, len(jobs), "simulating scans"))


def _coco(records: list[Record], info: Record) -> Record:
    """PIDray's json: ids of images and annotations count from 0 in each file."""
    images: list[Record] = []
    annotations: list[Record] = []
    for image_id, record in enumerate(records):
        images.append({k: record[k] for k in ("height", "width")} | {"id": image_id, "file_name": record["file_name"]})
        for found in record["annotations"]:
            annotations.append({"id": len(annotations), "image_id": image_id} | found)
    categories = [{"supercategory": "item", "id": i, "name": name} for i, (name, _) in enumerate(CLASSES, 1)]
    licence = {"name": "none needed: simulated scans, free for any use"}
    return {"info": info, "license": licence, "categories": categories, "images": images, "annotations": annotations}


def write_phantom(out: Path, images: int, backgrounds: int, seed: int, size: int, workers: int = 1) -> None:
    """Write the data set: `out`/pidray with `images` labelled scans in four splits, `out`/sixray with `backgrounds`
    benign ones, the longer side of each `size` pixels. Its bytes depend on the first four numbers alone.

    Raises click.ClickException for numbers out of range and when `out` holds anything. `out` appears whole or never.
    """
    splits = split_sizes(images)
    if backgrounds < 1:
        raise click.ClickException(f"{backgrounds} benign scans: at least 1 is needed")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise click.ClickException(f"{size} px: the longer side of a scan must be {MIN_SIZE} to {MAX_SIZE} px")
    if seed < 0:
        raise click.ClickException(f"seed {seed}: must not be negative")
    out = out.absolute()
    if out.exists():
        output_dir(out, "name a new one, or empty it first")
    info = {"description": "PhantomRay, simulated dual-energy baggage scans", "version": VERSION}
    info |= {"images": images, "backgrounds": backgrounds, "seed": seed, "size": size}
    jobs: list[Job] = [(split, i) for split, n in splits.items() for i in range(n)]
    jobs += [(BENIGN, i) for i in range(backgrounds)]
    with new_folder(out) as tmp:
        for folder in (*SPLITS, "annotations"):
            (tmp / "pidray" / folder).mkdir(parents=True)
        (tmp / "sixray").mkdir()
        records = _render_all(tmp, jobs, seed, size, workers)
        first = 0
        for split, n in splits.items():
            part = records[first : first + n]
            write_json(tmp / "pidray" / "annotations" / JSONS[split], _coco(part, info), indent=None)
            first += n
        write_json(tmp / "phantom.json", info)


def default_phantom(
    images: int = 1500, backgrounds: int = 1000, seed: int = 0, size: int = 256, workers: int = 1
) -> Path:
    """The data set for users without data: made on first use and kept in the user's cache directory."""
    name = f"phantom-v{VERSION}-{images}-{backgrounds}-seed{seed}-{size}px"
    out = cache_dir() / name
    if not (out / "phantom.json").is_file():
        try:
            write_phantom(out, images, backgrounds, seed, size, workers)
        except (OSError, click.ClickException):
            if not (out / "phantom.json").is_file():  # else another process was faster: the same bytes
                raise
    return out
