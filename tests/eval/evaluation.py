"""A small finished evaluation on disk: drawn scans, detections of a given skill, metrics of format 2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from tests.eval.conftest import CLASSES, draw_scan

from segloc_eval.numbers.score import score

ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Evaluation:
    """`metrics`, and the folder with the files that they were taken from."""

    def __init__(self, folder: Path, metrics: dict[str, Any]) -> None:
        self.folder, self.metrics = folder, metrics

    def picture(self, split: str, image_id: int | str) -> NDArray[np.uint8] | None:
        path = self.folder / "pictures" / f"{split}{image_id}.png"
        return np.asarray(Image.open(path)) if path.is_file() else None


def make_evaluation(
    folder: Path,
    skills: dict[str, float],
    *,
    labels: dict[str, int] | None = None,
    seeds: int = 3,
    splits: tuple[str, ...] = ("easy", "hard", "hidden"),
    kinds: tuple[str, ...] = ("bbox", "segm"),
    scans: int = 6,
    width: float = 0.02,
    side: int = 160,
) -> Evaluation:
    """Arms of a `skill` in 0..1 (share of objects found, and how well), the first the base; intervals of half `width`.

    Everything of the size and form that the evaluation writes; the intervals are made up around the true scores.
    """
    labels = labels or {"200": 200}
    truths = {split: _truth(folder, split, scans, side, seed) for seed, split in enumerate(splits)}
    (folder / "truth").mkdir(parents=True)
    for split, truth in truths.items():
        (folder / "truth" / f"{split}.json").write_text(json.dumps(truth))
    units = []
    for size, (slug, count) in enumerate(labels.items()):
        (folder / f"labels-{slug}.txt").write_text("".join(f"train/{n}.png\n" for n in range(count)))
        for number, (arm, skill) in enumerate(skills.items()):
            for seed in range(seeds):
                rng = np.random.default_rng([size, number, seed])
                skilled = 1 - (1 - skill) * 0.7**size
                units.append(
                    _unit(folder / arm / slug / f"seed-{seed}", arm, slug, seed, truths, kinds, skilled, rng, count)
                )
    comparison = {
        slug: {
            kind: _comparison([u for u in units if u["labels"] == slug], list(skills), kind, width) for kind in kinds
        }
        for slug in labels
    }
    pooled = sum(len(truth["annotations"]) for truth in truths.values())
    errors = {
        slug: {kind: {arm: _diagnosis(skill, pooled) for arm, skill in skills.items()} for kind in kinds}
        for slug in labels
    }
    counts = {split: len(truth["images"]) for split, truth in truths.items()}
    objects = {split: len(truth["annotations"]) for split, truth in truths.items()}
    metrics = {
        **{
            "format": 2,
            "command": "segloc-eval --ckpt run --ckpt random --data pidray --out eval",
            "date": "2026-11-22",
        },
        "config": {
            **{
                "data": "pidray",
                "seed": 0,
                "seeds": seeds,
                "labels": list(labels),
                "on": "test",
                "detector": "cascade",
            },
            "recipe": {"name": "quick", "arch": "resnet18", "width": 64, "size": 128, "epochs": 12, "batch_size": 8},
        },
        "versions": {"python": "3.11.2", "torch": "2.9.0", "segloc": "0.1.0"},
        "hardware": "x86_64 CPU, 2 threads",
        "data": {
            **{"path": "pidray", "fingerprint": "5f" * 32, "masks": "segm" in kinds, "classes": list(CLASSES.values())},
            "scans": {"train": 400, "val": 40, **counts},
            "objects": {"train": 900, "val": 85, **objects},
            **{"labels": labels, "problems": ["annotation without a mask (2, first: train.json, annotation 17)"]},
        },
        "arms": {arm: _arm(arm) for arm in skills},
        **{"units": units, "failed": [], "comparison": comparison, "errors": errors},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return Evaluation(folder, metrics)


def _arm(name: str) -> dict[str, Any]:
    if name in ("random", "imagenet"):
        about = "no pretraining" if name == "random" else "ResNet-18 trained on ImageNet with labels"
        return {"source": name, "sha256": None, "about": about}
    return {"source": f"runs/{name}", "sha256": "ab" * 32, "about": "segloc, 30 epochs on 20,000 pairs"}


def _truth(folder: Path, split: str, scans: int, side: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for id in range(scans):
        pixels, things = draw_scan(rng, side, 1 + int(rng.integers(3)))
        Image.fromarray(pixels).save(folder / "pictures" / f"{split}{id}.png")
        images.append({"id": id, "file_name": f"{split}/scan{id:04d}.png", "height": side, "width": pixels.shape[1]})
        annotations += [{"id": len(annotations) + n + 1, "image_id": id, **thing} for n, thing in enumerate(things)]
    categories = [{"id": id, "name": name} for id, name in CLASSES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _detections(truth: dict[str, Any], skill: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Boxes moved by up to a third of their size as the skill falls, some missed, misnamed or made up."""
    images = {image["id"]: image for image in truth["images"]}
    found = []
    for thing in truth["annotations"]:
        image = images[thing["image_id"]]
        x, y, w, h = thing["bbox"]
        if rng.random() < 0.4 + 0.55 * skill:
            dx, dy = rng.normal(0, 0.04 + 0.2 * (1 - skill), 2)
            id = thing["category_id"] if rng.random() < 0.7 + 0.3 * skill else int(rng.choice(list(CLASSES)))
            found.append((image, [x + dx * w, y + dy * h, w, h], id, 0.5 + 0.5 * rng.random()))
        if rng.random() > skill:
            box = [rng.random() * image["width"] * 0.7, rng.random() * image["height"] * 0.7, 20 + w / 2, 20 + h / 2]
            found.append((image, box, int(rng.choice(list(CLASSES))), 0.75 * rng.random()))
    results = []
    for image, (x, y, w, h), id, sure in found:
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        outline = np.stack([x + w / 2 * (1 + np.cos(angle)), y + h / 2 * (1 + np.sin(angle))], 1).clip(0)
        rle = coco_mask.frPyObjects([outline.reshape(-1).tolist()], image["height"], image["width"])[0]
        shape = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
        results.append(
            {
                "image_id": image["id"],
                "category_id": id,
                "score": float(sure),
                "bbox": [x, y, w, h],
                "segmentation": shape,
            }
        )
    return results


def _unit(
    folder: Path,
    arm: str,
    labels: str,
    seed: int,
    truths: dict[str, Any],
    kinds: tuple[str, ...],
    skill: float,
    rng: np.random.Generator,
    count: int,
) -> dict[str, Any]:
    folder.mkdir(parents=True)
    results = {split: _detections(truth, skill, rng) for split, truth in truths.items()}
    scores: dict[str, Any] = {}
    for kind in kinds:
        shape = "segmentation" if kind in ("segm", "semantic") else "bbox"
        for split, found in results.items():
            (folder / split).mkdir(exist_ok=True)
            keys = ["image_id", "category_id", shape] + ["score"] * (kind != "semantic")
            content = [{key: one[key] for key in keys} for one in found]
            (folder / split / f"results.{kind}.json").write_text(json.dumps(content))
        measured = "segm" if kind == "semantic" else kind
        scores[kind] = {split: score(truths[split], results[split], measured) for split in truths}
        if len(truths) > 1:
            scores[kind] |= {name: _mean_scores(list(scores[kind].values())) for name in ("mean", "pooled")}
        if kind == "semantic":
            for one in scores[kind].values():
                one["overall"] = {"mIoU": one["overall"]["AP"]}
    steps = 12 * count // 8
    losses = [0.4 + 2.2 * np.exp(-3 * n / steps) + 0.1 * rng.normal() for n in range(steps)]
    (folder / "log.jsonl").write_text(
        "".join(json.dumps({"step": n + 1, "samples": 8 * n + 8, "loss": loss}) + "\n" for n, loss in enumerate(losses))
    )
    return {
        **{"arm": arm, "labels": labels, "seed": seed, "scans": count, "scores": scores},
        "training": {
            **{"samples": 8 * steps, "steps": steps, "seconds": 4.1 * steps, "seconds_per_scan": 0.51},
            **{"first_loss": losses[0], "last_loss": losses[-1], "peak_memory_bytes": 3 * 2**30},
        },
        "testing": {"scans": sum(len(truth["images"]) for truth in truths.values()), "seconds_per_scan": 0.21},
        "hardware": "x86_64 CPU, 2 threads",
    }


def _mean_scores(scores: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return {part: {name: mean([one[part][name] for one in scores]) for name in scores[0][part]} for part in scores[0]}


def _comparison(units: list[dict[str, Any]], arms: list[str], kind: str, width: float) -> dict[str, Any]:
    def values(arm: str, split: str, part: str, name: str) -> list[float]:
        return [u["scores"][kind][split][part][name] for u in units if u["arm"] == arm]

    def estimate(arm: str, split: str, part: str, name: str) -> dict[str, Any] | None:
        seeds = values(arm, split, part, name)
        if None in seeds:
            return None
        mean, spread = float(np.mean(seeds)), float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None
        return {"mean": mean, "low": mean - width, "high": mean + width, "seeds": seeds, "spread": spread}

    def difference(arm: str, split: str, part: str, name: str) -> dict[str, Any] | None:
        ours, theirs = values(arm, split, part, name), values(arms[0], split, part, name)
        if None in ours or None in theirs:
            return None
        mean = float(np.mean(ours) - np.mean(theirs))
        seeds = [a - b for a, b in zip(ours, theirs, strict=True)]
        low, high = mean - 1.2 * width, mean + 1.2 * width
        return {"mean": mean, "low": low, "high": high, "seeds": seeds, "clear": not low <= 0 <= high}

    splits = list(units[0]["scores"][kind])
    metrics = ("mIoU",) if kind == "semantic" else METRICS

    def table(make: Callable[..., Any], arm: str) -> dict[str, Any]:
        return {
            "splits": {split: {name: make(arm, split, "overall", name) for name in metrics} for split in splits},
            "per_class": {split: {c: make(arm, split, "per_class", c) for c in CLASSES.values()} for split in splits},
        }

    seeds = sorted({unit["seed"] for unit in units})
    return {
        **{"base": arms[0], "draws": 1000},
        "arms": {arm: {"seeds": seeds, **table(estimate, arm)} for arm in arms},
        "differences": {arm: table(difference, arm) for arm in arms[1:]},
    }


def _diagnosis(skill: float, objects: int) -> dict[str, Any]:
    shares = dict(zip(ERRORS, (0.08, 0.2, 0.03, 0.02, 0.12, 0.3), strict=True))
    missed = 1 - skill
    recalls = [min(1.0, max(0.0, skill + 0.06 * (n - 2))) for n in range(5)]
    recall = np.linspace(0, 1, 101)
    precision = np.where(recall < skill, 1 - recall**3 * (1 - skill), 0.0)
    names = [*CLASSES.values(), "background"]
    right = np.diag([round(10 * skill)] * len(CLASSES) + [0]) + round(3 * missed)
    curve = {"recall": recall.tolist(), "precision": precision.tolist()}
    return {
        "counts": {name: round(share * missed * objects) for name, share in shares.items()},
        "gain": {name: 0.7 * share * missed for name, share in shares.items()},
        "size": [
            {
                "low": 20.0 * n + 8,
                "high": 20.0 * n + 28,
                "objects": objects // 5,
                "recall": r,
                "interval": [r - 0.05, r + 0.05],
            }
            for n, r in enumerate(recalls)
        ],
        "clutter": None,
        "confusion": {"classes": names, "counts": right.tolist()},
        "curves": {"all": curve, **dict.fromkeys(CLASSES.values(), curve)},
    }
