"""Tiny real shard folders: coloured shapes on two cluttered backgrounds, written by the format's owner."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tests.conftest import rle

from segloc_synth.shards.format import Sample, config_hash
from segloc_synth.shards.manifest import Layout, shard_path, write_manifest
from segloc_synth.shards.writer import write_shard
from segloc_train.summary import Cost

CLASSES = ("disc", "square", "triangle", "ring")
USES = 4  # pairs that show objects of one scan


def clutter(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 [size, size, 3]: white with pale random rectangles."""
    image = np.full((size, size, 3), 255, np.uint8)
    for _ in range(8):
        corners = rng.integers(0, size, (2, 2)).tolist()
        cv2.rectangle(image, corners[0], corners[1], rng.integers(150, 256, 3).tolist(), -1)
    return image


def draw(image: np.ndarray, shape: int, colours: list[list[int]], box: tuple[int, int, int]) -> None:
    """Paint an object of two colours into the square `box` (x, y, side)."""
    x, y, side = box
    centre, radius = (x + side // 2, y + side // 2), side // 2 - 1
    if shape == 0:
        cv2.circle(image, centre, radius, colours[0], -1)
    elif shape == 1:
        cv2.rectangle(image, (x, y), (x + side - 1, y + side - 1), colours[0], -1)
    elif shape == 2:
        corners = np.array([[x, y + side - 1], [x + side - 1, y + side - 1], [x + side // 2, y]])
        cv2.fillPoly(image, [corners], colours[0])
    else:
        cv2.circle(image, centre, radius * 3 // 4, colours[0], max(radius // 2, 2))
    cv2.circle(image, centre, max(side // 8, 1), colours[1], -1)


def pair(seed: int, index: int, size: int, classes: int) -> Sample:
    """One object on two backgrounds at two places, from scan index // USES; a function of its arguments."""
    rng = np.random.default_rng([seed, index])
    shape = int(rng.integers(classes))
    colours = rng.integers(0, 200, (2, 3)).tolist()
    meta: dict[str, object] = {"index": index, "class_id": shape + 1, "class_name": CLASSES[shape]}
    files = {}
    for name in ("key", "query"):
        image = clutter(rng, size)
        side = int(rng.integers(size // 4, size // 2))
        x, y = rng.integers(0, size - side, 2).tolist()
        draw(image, shape, colours, (x, y, side))
        mask = np.zeros((size, size, 3), np.uint8)
        draw(mask, shape, [[1, 1, 1]] * 2, (x, y, side))
        meta[name] = {
            "box": [float(x), float(y), float(side), float(side)],
            "mask": rle(mask[..., 0]),
            "segment": f"train/scan_{index // USES:05d}#{index}",
        }
        ok, data = cv2.imencode(".jpg", image[..., ::-1])
        assert ok
        files[name] = data.tobytes()
    return Sample(meta, files["key"], files["query"])


def make_shards(
    folder: Path, count: int, size: int = 64, classes: int = 4, seed: int = 0, shard_size: int = 100
) -> Path:
    """A finished build of `count` pairs."""
    folder.mkdir(parents=True)
    config = {"size": size, "seed": seed, "count": count}
    identity = config_hash(config)
    shards = range(0, count, shard_size)
    for number, first in enumerate(shards):
        samples = (pair(seed, i, size, classes) for i in range(first, min(first + shard_size, count)))
        write_shard(shard_path(folder, number), samples, identity, {})
    head = {
        "config": config,
        "config_hash": identity,
        "sources": {},
        "classes": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
    }
    write_manifest(folder, head, Layout(count, shard_size))
    return folder


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 pairs of 64 px in two shards."""
    return make_shards(tmp_path_factory.mktemp("data") / "pairs", 160)


@pytest.fixture(scope="module")
def bare() -> Iterator[None]:
    """Runs without a forecast of their cost and with a blank chart, which take as long as their steps do."""
    chart = cv2.imencode(".png", np.zeros((8, 8, 4), np.uint8))[1].tobytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segloc_train.summary.dry_run", lambda *_: Cost(1, 3))
        patch.setattr("segloc_train.summary.pair_seconds", lambda *_: 1e-3)
        patch.setattr("segloc_train.run.runlog.scatter", lambda *_: chart)
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
