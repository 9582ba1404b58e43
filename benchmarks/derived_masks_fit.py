"""What masks derived from boxes are trusted by: learns bank/trust_weights.py anew, on PhantomRay alone.

Candidates of every box of simulated scans of several seeds, sizes and scanners, part of them blurred, stored as JPEG,
with another contrast or with boxes drawn a little off, each with its measures and its overlap with the exact mask. A
network of one hidden layer learns the overlap by least squares. Prints, for a seed that it has not seen, how many masks
are kept at which limit of trust, and how good these are.

The weights in use were learnt so from PhantomRay as it is written (seeds 101, 103, 104 and 105 at 256 px,
113 at 400, 110 at 512, 120 on the SIXray scanner at 384; the limit on seeds 102 and 111). Which candidates are varied
depends on the weights in force too, so that a new run yields other numbers of the same worth, not the same numbers; the
limit of trust is to be chosen anew from what it prints.

  python benchmarks/derived_masks_fit.py --out synth/segloc_synth/bank/trust_weights.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt
import torch

from segloc_synth.bank.boxes import candidates
from segloc_synth.bank.trust import FAR
from segloc_synth.bank.trust_weights import MEASURES
from segloc_synth.phantom import PIDRAY, PIDRAY_VIVID, SIXRAY
from segloc_synth.phantom.scene import cast, expose, plan_scene, scan_rng, silhouette
from segloc_synth.sources.images import Pixels

Floats = npt.NDArray[np.float32]
TRAIN = (101, 103, 104, 105, 110, 113, 120)  # seeds
TEST = 102
SPLITS = ("train", "train", "easy", "hard", "hidden")
SCANNERS = (PIDRAY, PIDRAY_VIVID, SIXRAY)
SIZES = (256, 256, 256, 384, 512)
HIDDEN, STEPS, BATCH = 10, 9000, 2048
LIMITS = (0.5, 0.6, 0.64, 0.66, 0.68, 0.7, 0.75)


def scans(seed: int, count: int, spoilt: float) -> Iterator[tuple[Pixels, list[tuple[list[float], Pixels]]]]:
    """Simulated scans, each with box and mask of its items; a share `spoilt` of scans and of boxes is less than
    perfect."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        size, scanner, split = int(rng.choice(SIZES)), SCANNERS[index % len(SCANNERS)], str(rng.choice(SPLITS))
        shadow = cast(plan_scene(seed, split, index), size)
        pixels = expose(shadow, scanner, scan_rng(seed, split, index, 1))
        if rng.random() < spoilt:
            pixels = _spoil(pixels, rng)
        items = []
        for own in shadow.threats:
            mask = silhouette(own).astype(np.uint8)
            x, y, w, h = cv2.boundingRect(mask)
            off = np.zeros(4)
            if rng.random() < spoilt:
                off = rng.normal(0, 0.015, 4) * (w, h, w, h) + 0.7 * rng.integers(-1, 2, 4)
            if mask.sum() >= 20:
                box = np.array([x + off[0], y + off[1], max(4, w - off[0] + off[2]), max(4, h - off[1] + off[3])])
                items.append((_cut(box, *pixels.shape[:2]), mask))
        yield pixels, items


def _spoil(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    soft = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.2, 1.1) * max(pixels.shape) / 256)
    other = cv2.LUT(soft, (255 * (np.arange(256) / 255) ** rng.uniform(0.7, 1.5)).astype(np.uint8))
    stored = cv2.imencode(".jpg", other, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 92))])[1]
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), np.uint8)


def _cut(box: npt.NDArray[np.float64], height: int, width: int) -> list[float]:
    """The box (x, y, w, h) within the picture."""
    x, y = max(0.0, float(box[0])), max(0.0, float(box[1]))
    return [x, y, min(width, float(box[0] + box[2])) - x, min(height, float(box[1] + box[3])) - y]


def examples(seed: int, count: int, spoilt: float) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Measures [N, M], overlap [N] and number of the box [N] of every candidate."""
    measures, overlaps, boxes = [], [], []
    for pixels, items in scans(seed, count, spoilt):
        for box, mask in items:
            found = candidates(pixels, (box[0], box[1], box[2], box[3]))
            if found is None:
                continue
            (left, top, right, bottom), masks, measured = found
            truth = mask[top:bottom, left:right] > 0
            cut_off = int(mask.sum()) - int(truth.sum())
            for one in masks:
                own = cv2.resize(one.astype(np.float32), (right - left, bottom - top)) >= 0.5
                overlaps.append((own & truth).sum() / ((own | truth).sum() + cut_off))
            measures.append(measured)
            boxes += [len(measures)] * len(masks)
    return np.concatenate(measures), np.array(overlaps, np.float32), np.array(boxes)


def fit(standard: Floats, overlap: Floats) -> list[npt.NDArray[Any]]:
    """Weights and biases of both layers."""
    torch.manual_seed(0)
    x, y = torch.tensor(standard), torch.tensor(overlap)
    net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=3e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2 * STEPS // 3)
    for _ in range(STEPS):
        chosen = torch.randint(len(x), (BATCH,))
        loss = ((torch.sigmoid(net(x[chosen])[:, 0]) - y[chosen]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return [parameter.detach().numpy() for parameter in net.parameters()]


def written(mean: Floats, spread: Floats, layers: list[npt.NDArray[Any]]) -> str:
    """The module's text."""
    rows = [", ".join(f"{weight:.2f}" for weight in row) for row in (*layers[0].T, layers[1], layers[2][0])]
    measures = [f'    "{name}": ({m:.4g}, {s:.4g}),' for name, m, s in zip(MEASURES, mean, spread, strict=True)]
    return "\n".join(
        [
            '"""What bank/trust.py has learnt on PhantomRay, by benchmarks/derived_masks_fit.py."""\n',
            "# Measure -> mean, standard deviation.",
            "MEASURES = {",
            *measures,
            "}",
            "# Weights of the standardised measures, a row each, in the hidden units.",
            "HIDDEN = (",
            *(f"    ({row})," for row in rows[:-2]),
            ")",
            f"BIAS = ({rows[-2]})",
            f"OUT = ({rows[-1]})  # weights of the hidden units",
            f"OUT_BIAS = {float(layers[3][0]):.2f}\n",
        ]
    )


@click.command()
@click.option("--scans", "count", default=400, help="Simulated scans of each seed.")
@click.option("--out", type=click.Path(path_type=Path), help="Module to write.  [default: print]")
def main(count: int, out: Path | None) -> None:
    """Learn, judge and write."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    parts = [examples(seed, count, 0.5) for seed in TRAIN]
    measured, overlap = (np.concatenate([part[which] for part in parts]) for which in (0, 1))
    mean, spread = measured.mean(0), measured.std(0) + 1e-6
    layers = fit(np.clip((measured - mean) / spread, -FAR, FAR).astype(np.float32), overlap)
    measured, overlap, boxes = examples(TEST, count, 0.0)
    hidden = np.tanh(np.clip((measured - mean) / spread, -FAR, FAR) @ layers[0].T + layers[1])
    trust = 1 / (1 + np.exp(-(hidden @ layers[2][0] + layers[3][0])))
    best = np.array([where[trust[where].argmax()] for where in (np.flatnonzero(boxes == n) for n in np.unique(boxes))])
    for limit in LIMITS:
        kept = best[trust[best] >= limit]
        click.echo(f"limit {limit}: {100 * len(kept) / len(best):.0f} % kept, IoU {overlap[kept].mean():.3f}", err=True)
    text = written(mean, spread, layers)
    out.write_text(text) if out else click.echo(text)


if __name__ == "__main__":
    main()
