"""What masks derived from boxes are trusted by: learns bank/trust_weights.py anew, on PhantomRay alone.

Candidates of every box of simulated scans of several seeds, each with its measures and its overlap with the exact mask:
scans as PhantomRay writes them, and rough ones of several sizes and scanners, half of them with another bag or a pile
of loose items over their own, half of them blurred, sharpened, shrunk, stored as JPEG or with another contrast, half of
the boxes drawn a little off. A network of one hidden layer learns the overlap by least squares. Prints, for seeds that
it has not seen, how many masks are kept at which limit of trust, and how good these are.

Which candidates are varied depends on the weights in force too, so that a new run yields other numbers of the same
worth, not the same numbers; the limit of trust is to be chosen anew from what it prints. About ten minutes.

  python benchmarks/derived_masks_fit.py --out synth/segloc_synth/bank/trust_weights.py
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt
import torch

from segloc_synth.bank.boxes import candidates
from segloc_synth.bank.trust import CAUTION, FAR, SEEN
from segloc_synth.bank.trust_weights import MEASURES
from segloc_synth.phantom import PIDRAY, PIDRAY_VIVID, SIXRAY
from segloc_synth.phantom.dataset import scanner_of
from segloc_synth.phantom.scene import Shadow, cast, expose, plan_scene, scan_rng, silhouette
from segloc_synth.sources.images import Pixels

Floats = npt.NDArray[np.float32]
SPLITS = ("train", "train", "train", "train", "train", "easy", "hard", "hidden")
OVER = ("train", "hard", "benign")  # splits of bags laid over others
SCANNERS = (PIDRAY, PIDRAY_VIVID, SIXRAY)
SHADE = 1e-3  # attenuation from which there is something
LOOSE = 60  # items kept to be piled up elsewhere
HIDDEN, STEPS, BATCH = 16, 14000, 2048
LIMITS = (0.5, 0.6, 0.62, 0.64, 0.65, 0.66, 0.68, 0.7)


@dataclass(frozen=True)
class Kind:
    """Simulated scans of some kind.

    Attributes:
        sizes: longer sides in pixels, each as likely.
        spoilt: share of scans, and of boxes, that are less than perfect.
        crowded: share of scans with another bag or loose items over what they hold.
    """

    sizes: tuple[int, ...]
    spoilt: float
    crowded: float


PLAIN = Kind((256,), 0, 0)  # as PhantomRay is written
ROUGH = Kind((160, 256, 256, 256, 384, 512), 0.5, 0.5)
CROWDED = Kind(ROUGH.sizes, 0.5, 1)
TRAIN = {PLAIN: (108, 109, 112, 114), ROUGH: (101, 103, 104, 105, 110, 113)}  # seeds
TEST = {PLAIN: 102, CROWDED: 111}


def scans(seed: int, count: int, kind: Kind) -> Iterator[tuple[Pixels, list[tuple[list[float], Pixels]]]]:
    """`count` simulated scans, RGB uint8 [H, W, 3], each with box (x, y, w, h) and mask of its items."""
    rng = np.random.default_rng(seed)
    loose: list[Floats] = []
    for index in range(count):
        size, split = int(rng.choice(kind.sizes)), str(rng.choice(SPLITS))
        scanner = scanner_of(seed, split, index) if kind is PLAIN else SCANNERS[index % len(SCANNERS)]
        shadow = cast(plan_scene(seed, split, index), size)
        alone = [_trimmed(own) for own in shadow.threats]
        if loose and rng.random() < kind.crowded:
            other = cast(plan_scene(seed + 1000, str(rng.choice(OVER)), index), size) if rng.random() < 0.5 else None
            shadow = _crowd(shadow, other, loose, rng)
        loose = (loose + alone)[-LOOSE:]
        pixels = expose(shadow, scanner, scan_rng(seed, split, index, 1))
        if rng.random() < kind.spoilt:
            pixels = _spoil(pixels, rng)
        items = []
        for own in shadow.threats:
            mask = silhouette(own).astype(np.uint8)
            x, y, w, h = cv2.boundingRect(mask)
            off = np.zeros(4)
            if rng.random() < kind.spoilt:
                off = rng.normal(0, 0.025, 4) * (w, h, w, h) + 0.7 * rng.integers(-1, 2, 4)
            if mask.sum() >= 20:
                box = np.array([x + off[0], y + off[1], max(4, w - off[0] + off[2]), max(4, h - off[1] + off[3])])
                items.append((_cut(box, *pixels.shape[:2]), mask))
        yield pixels, items


def _trimmed(own: Floats) -> Floats:
    """The attenuation [2, h, w] of an item, cut to where it is."""
    x, y, w, h = cv2.boundingRect((own[0] > SHADE).astype(np.uint8))
    return own[:, y : y + h, x : x + w].copy()


def _crowd(shadow: Shadow, other: Shadow | None, loose: Sequence[Floats], rng: np.random.Generator) -> Shadow:
    """The shadow with another bag laid over it, if any, and `loose` items, [2, h, w] each, in a pile around its own.

    Attenuations add up (Beer and Lambert).
    """
    bag = shadow.bag.copy()
    height, width = bag.shape[1:]
    if other is not None:
        bag += np.stack([cv2.resize(energy, (width, height)) for energy in sum(other.threats, other.bag)])
    for own in shadow.threats:
        x, y, w, h = cv2.boundingRect((own[0] > SHADE).astype(np.uint8))
        for _ in range(rng.geometric(0.3)):
            item = loose[int(rng.integers(len(loose)))]
            middle = rng.normal((x + w / 2, y + h / 2), 0.6 * max(w, h))
            zoom = max(w, h) * rng.uniform(0.3, 1.2) / max(item.shape)
            bag += _laid(item, middle, zoom, rng.uniform(0, 360), width, height)
    return Shadow(bag, shadow.threats)


def _laid(item: Floats, middle: npt.NDArray[np.float64], zoom: float, angle: float, width: int, height: int) -> Floats:
    """An item's attenuation [2, h, w] in a picture [2, height, width], its middle at `middle` (x, y), turned."""
    centre = (item.shape[2] / 2, item.shape[1] / 2)
    turn = cv2.getRotationMatrix2D(centre, angle, zoom)
    turn[:, 2] += middle - centre
    return np.stack([cv2.warpAffine(energy, turn, (width, height)) for energy in item])


def _sized(attenuation: Floats, width: int, height: int) -> Floats:
    scaled = cv2.resize(np.ascontiguousarray(attenuation.transpose(1, 2, 0)), (width, height))
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _spoil(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Blurred or sharpened, with another contrast, at half the resolution at times, stored as JPEG."""
    if rng.random() < 0.3:
        pixels = cv2.resize(cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), pixels.shape[1::-1])
    soft = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.2, 1.1) * max(pixels.shape) / 256)
    if rng.random() < 0.4:
        sharp = rng.uniform(0.5, 2.0)
        soft = cv2.addWeighted(pixels, 1 + sharp, cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.8, 2)), -sharp, 0)
    other = cv2.LUT(soft, (255 * (np.arange(256) / 255) ** rng.uniform(0.7, 1.5)).astype(np.uint8))
    stored = cv2.imencode(".jpg", other, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 92))])[1]
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), np.uint8)


def _cut(box: npt.NDArray[np.float64], height: int, width: int) -> list[float]:
    """The box (x, y, w, h) within the picture."""
    x, y = max(0.0, float(box[0])), max(0.0, float(box[1]))
    return [x, y, min(width, float(box[0] + box[2])) - x, min(height, float(box[1] + box[3])) - y]


def examples(seed: int, count: int, kind: Kind) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Measures [N, M], overlap [N] and number of the box [N] of every candidate."""
    measures, overlaps, boxes = [], [], []
    for pixels, items in scans(seed, count, kind):
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
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
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
            '"""What bank/trust.py has learnt on PhantomRay, by benchmarks/derived_masks_fit.py: numbers."""\n',
            "# Measure -> mean, standard deviation.",
            "MEASURES = {",
            *measures,
            "}",
            "# Weights of the standardised measures, a row each, in the hidden units.",
            "HIDDEN = (",
            *(f"    ({row})," for row in rows[:-2]),
            ")",
            f"BIAS = ({rows[-2]})",
            "# Weights of the hidden units.",
            f"OUT = ({rows[-1]})",
            f"OUT_BIAS = {float(layers[3][0]):.2f}\n",
        ]
    )


@click.command()
@click.option("--scans", "count", default=350, help="Simulated scans of each seed.")
@click.option("--out", type=click.Path(path_type=Path), help="Module to write.  [default: print]")
def main(count: int, out: Path | None) -> None:
    """Learn, judge and write."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    parts = [examples(seed, count, kind) for kind, seeds in TRAIN.items() for seed in seeds]
    measured, overlap = (np.concatenate([part[which] for part in parts]) for which in (0, 1))
    mean, spread = measured.mean(0), measured.std(0) + 1e-6
    layers = fit(np.clip((measured - mean) / spread, -FAR, FAR).astype(np.float32), overlap)
    for kind, seed in TEST.items():
        measured, overlap, boxes = examples(seed, count, kind)
        hidden = np.tanh(np.clip((measured - mean) / spread, -FAR, FAR) @ layers[0].T + layers[1])
        trust = measured[:, list(MEASURES).index(SEEN)] ** CAUTION / (
            1 + np.exp(-(hidden @ layers[2][0] + layers[3][0]))
        )
        each = (np.flatnonzero(boxes == number) for number in np.unique(boxes))
        best = np.array([places[trust[places].argmax()] for places in each])
        for limit in LIMITS:
            kept = best[trust[best] >= limit]
            share, good = 100 * len(kept) / len(best), overlap[kept].mean()
            click.echo(f"{kind}, limit {limit}: {share:.0f} % kept, IoU {good:.3f}", err=True)
    text = written(mean, spread, layers)
    out.write_text(text) if out else click.echo(text)


if __name__ == "__main__":
    main()
