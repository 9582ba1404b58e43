"""How good are masks derived from boxes, and does their trust tell?

Every box of simulated scans, whose masks are exact, and of real scans with masks, where there are some: the share of
masks kept at each limit of trust, the mean overlap (intersection over union) of those kept and of all, the share of
the kept that overlap by less than half, and CPU time a box on one core. Intervals are 95 % of 2,000 bootstrap draws of
scans. A box in which nothing is found counts as overlap 0 among all.

  python benchmarks/derived_masks.py
  python benchmarks/derived_masks.py --seeds 301 302 --limits 0.5 0.6 0.7
  python benchmarks/derived_masks.py --sheet sheet.png --source SCANS --seed 1       (a contact sheet of what is kept)
"""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.bank.boxes import annotation_mask, mask_from_box
from segloc_synth.bank.labelled import MIN_TRUST, read_labelled
from segloc_synth.phantom import write_phantom
from segloc_synth.sources.images import Pixels, read_image
from segloc_synth.sources.masks import segmentation_to_mask
from segloc_synth.sources.text import BadLabel

Table = npt.NDArray[np.float64]
REAL = ("masks", "sixray_masks")  # folders of real scans with masks
DRAWS = 2000
TILE, COLUMNS, SHOWN = 160, 8, 48
OUTLINE = (230, 0, 120)


def measure(path: Path) -> Table:
    """Of each object of all splits of a source with masks and boxes: number of its scan, trust (-1: nothing found),
    overlap with its mask, CPU milliseconds; [N, 4]."""
    rows = []
    for number, scan in enumerate(read_labelled(path, allow_test=True).scans):
        pixels = read_image(scan.path)[0]
        boxes = [annotation.box or (0.0, 0.0, 1.0, 1.0) for annotation in scan.annotations]
        for place, annotation in enumerate(scan.annotations):
            truth = segmentation_to_mask(annotation.segmentation, *pixels.shape[:2])
            start = time.process_time()
            found = mask_from_box(pixels, boxes[place], boxes[:place] + boxes[place + 1 :])
            took = 1000 * (time.process_time() - start)
            mask, trust = found or (np.zeros_like(truth), -1.0)
            rows.append((number, trust, (mask & truth).sum() / max(1, (mask | truth).sum()), took))
    return np.array(rows)


def _pooled(tables: list[Table]) -> Table:
    """One table of several, whose scans are numbered apart."""
    return np.concatenate([table + np.array([1e5 * place, 0, 0, 0]) for place, table in enumerate(tables)])


def figures(table: Table, limit: float) -> tuple[float, float, float, float]:
    """Share kept, mean overlap of the kept, mean overlap of all, share of the kept that overlap by less than half."""
    kept = table[table[:, 1] >= limit, 2]
    good, poor = (float(kept.mean()), float((kept < 0.5).mean())) if len(kept) else (np.nan, np.nan)
    return len(kept) / len(table), good, float(table[:, 2].mean()), poor


def interval(table: Table, limit: float) -> npt.NDArray[np.float64]:
    """The 95 % bootstrap interval of each of figures(), scans drawn with replacement: [2, 4]."""
    rng = np.random.default_rng(0)
    groups = [table[table[:, 0] == number] for number in np.unique(table[:, 0])]
    draws = [
        figures(np.concatenate([groups[n] for n in rng.integers(0, len(groups), len(groups))]), limit)
        for _ in range(DRAWS)
    ]
    return np.nanquantile(np.array(draws), (0.025, 0.975), axis=0)


def lines(name: str, table: Table, limits: tuple[float, ...]) -> Iterator[str]:
    """Rows of the table in Markdown, one for each limit."""
    took = table[:, 3].mean()
    for limit in limits:
        kept, good, every, poor = figures(table, limit)
        low, high = interval(table, limit)
        yield (
            f"| {name} | {limit:.2f} | {100 * kept:.0f} % ({100 * low[0]:.0f} to {100 * high[0]:.0f}) | "
            f"{good:.3f} ({low[1]:.3f} to {high[1]:.3f}) | {every:.3f} ({low[2]:.3f} to {high[2]:.3f}) | "
            f"{100 * poor:.0f} % | {took:.0f} |"
        )


def sheet(source: Path, seed: int, limit: float) -> Pixels:
    """Derived masks of SHOWN boxes of a source that are kept, drawn at random, as outlines: RGB uint8."""
    rng = np.random.default_rng(seed)
    scans = read_labelled(source, masks_from_boxes=True, allow_test=True).scans
    tiles: list[Pixels] = []
    for place in rng.permutation(len(scans)):
        pixels, annotations = read_image(scans[place].path)[0], scans[place].annotations
        annotation = annotations[rng.integers(len(annotations))]
        try:
            mask, trust = annotation_mask(annotation, pixels, annotations, limit)
            assert annotation.box is not None
            tiles.append(_tile(pixels, mask, annotation.box, trust))
        except BadLabel:
            continue
        if len(tiles) == SHOWN:
            break
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    return np.vstack([np.hstack(tiles[first : first + COLUMNS]) for first in range(0, len(tiles), COLUMNS)])


def _tile(pixels: Pixels, mask: Pixels, box: tuple[float, float, float, float], trust: float) -> Pixels:
    reach = 0.12 * max(box[2:])
    left, top = int(max(0, box[0] - reach)), int(max(0, box[1] - reach))
    part = (slice(top, int(box[1] + box[3] + reach)), slice(left, int(box[0] + box[2] + reach)))
    scale = (TILE - 14) / max(pixels[part].shape[:2])
    shown = cv2.resize(pixels[part], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    grown = cv2.resize(mask[part].astype(np.float32), shown.shape[1::-1]) >= 0.5
    outlines, _ = cv2.findContours(grown.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(shown, outlines, -1, OUTLINE, 1)
    tile: Pixels = np.full((TILE, TILE, 3), 255, np.uint8)
    tile[: shown.shape[0], : shown.shape[1]] = shown
    cv2.putText(tile, f"{trust:.2f}", (2, TILE - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 0, 0), 1)
    return tile


@click.command()
@click.option("--seeds", type=int, multiple=True, default=(201, 202), help="Of PhantomRay, for reporting.")
@click.option("--images", default=400, help="Simulated labelled scans of each seed.")
@click.option("--limits", type=float, multiple=True, default=(0.0, 0.5, MIN_TRUST, 0.7), help="Limits of trust.")
@click.option("--sheet", "drawn", type=click.Path(path_type=Path), help="Write a contact sheet there, and no table.")
@click.option("--source", type=click.Path(path_type=Path), help="Boxes to draw on the sheet.")
@click.option("--seed", default=0, help="Of the sheet.")
def main(drawn: Path | None, source: Path | None, seed: int, **options: Any) -> None:
    """Print the table, or draw the sheet."""
    cv2.setNumThreads(1)
    scans = Path(os.environ.get("SEGLOC_SCANS", "../shared/data"))
    if drawn:
        picture = sheet(source or scans / "sixray_scans" / "annotations" / "train.json", seed, MIN_TRUST)
        cv2.imwrite(str(drawn), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return
    click.echo("| boxes of | limit | kept | IoU of the kept | IoU of all | kept below 0.5 | ms a box |")
    click.echo("|---|---|---|---|---|---|---|")
    simulated, real = [], []
    for number in options["seeds"]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "phantom"
            write_phantom(root, options["images"], 2, number, 256, 1)
            simulated.append((f"PhantomRay, seed {number}", measure(root / "pidray")))
    for name in REAL:
        if (scans / name).is_dir():
            real.append((f"real, `{name}`", measure(scans / name)))
    for group, name in ((simulated, "PhantomRay, all"), (real, "real, all")):
        if len(group) > 1:
            group.append((name, _pooled([table for _, table in group])))
    for name, table in simulated + real:
        for line in lines(name, table, options["limits"]):
            click.echo(line)


if __name__ == "__main__":
    main()
