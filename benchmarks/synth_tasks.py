"""What synth_speed.py times in processes of their own: encoding alone, reading, an idiomatic script, online copy-paste.

python benchmarks/synth_tasks.py NAME PATH...
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO

from segloc_synth.shards.format import ShardReader
from segloc_synth.sources.listing import list_images

SIZE, QUALITY = 256, 90
ENCODED = 500  # pairs of the yardstick
LOOP = 60  # pairs of a script
JPEG = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
Cost = dict[str, float]  # wall and cpu seconds a pair


def encode(build: Path) -> Cost:
    """Encode again what a build holds."""
    reader = ShardReader(build)
    pictures = [decoded(jpeg) for place in range(ENCODED) for jpeg in (reader[place].key, reader[place].query)]
    return timed(lambda: [cv2.imencode(".jpg", picture, JPEG) for picture in pictures], ENCODED)


def read(build: Path) -> Cost:
    """Read and decode a build's pairs in random order, as a training loop does."""
    reader = ShardReader(build)
    order = np.random.default_rng(0).permutation(len(reader)).tolist()

    def loop() -> None:
        for place in order:
            sample = reader[place]
            decoded(sample.key), decoded(sample.query)

    return timed(loop, len(order))


def script(scans: Path, annotations: Path, images: Path, out: Path) -> Cost:
    """The idiomatic script: for each pair decode two scans and the object's, paste it turned, write with masks."""
    import webdataset

    rng = np.random.default_rng(0)
    files, coco = scan_files(scans), COCO(annotations)
    marks = [mark for mark in coco.loadAnns(coco.getAnnIds()) if mark.get("segmentation")]

    def loop() -> None:
        with webdataset.TarWriter(str(out / "script.tar")) as sink:
            for index in range(LOOP):
                mark = marks[rng.integers(len(marks))]
                x, y, width, height = cv2.boundingRect(mask := coco.annToMask(mark))
                source = cv2.imread(str(images / coco.loadImgs(mark["image_id"])[0]["file_name"]))
                cut, alpha = (one[y : y + height, x : x + width] for one in (source, mask))
                sample: dict[str, Any] = {"__key__": f"{index:012d}", "json": {"class": mark["category_id"]}}
                for view in ("key", "query"):
                    scan = cv2.imread(str(files[rng.integers(len(files))]))
                    pasted, where = paste(cv2.resize(scan, (SIZE, SIZE), interpolation=cv2.INTER_AREA), cut, alpha, rng)
                    sample[f"{view}.jpg"] = cv2.imencode(".jpg", pasted, JPEG)[1].tobytes()
                    sample[f"{view}.png"] = cv2.imencode(".png", where)[1].tobytes()
                sink.write(sample)

    return timed(loop, LOOP)


def paste(canvas: Any, cut: Any, alpha: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """A canvas with a cut-out, BGR and 0/1, pasted turned and at most half its size; and where."""
    scale = rng.uniform(0.2, 0.5) * SIZE / max(cut.shape[:2])
    side = int(np.ceil(scale * np.hypot(*cut.shape[:2])))
    turn = cv2.getRotationMatrix2D((cut.shape[1] / 2, cut.shape[0] / 2), rng.uniform(0, 360), scale)
    turn[:, 2] += (side / 2 - cut.shape[1] / 2, side / 2 - cut.shape[0] / 2)
    turned, weight = cv2.warpAffine(cut, turn, (side, side)), cv2.warpAffine(alpha * 255, turn, (side, side))
    y, x = rng.integers(0, SIZE - side, 2)
    window = slice(y, y + side), slice(x, x + side)
    share = 0.8 * weight[..., None] / 255.0
    canvas[window] = share * turned + (1 - share) * canvas[window]
    where = np.zeros((SIZE, SIZE), np.uint8)
    where[window] = weight
    return canvas, where


def online(scans: Path) -> Cost:
    """Copy-paste while training, InsLoc's way: a crop of one scan, resized to a box, on another, for each view."""
    rng = np.random.default_rng(0)
    files = scan_files(scans)

    def crop(scan: Any, area: float, aspect: float) -> Any:
        height, width = scan.shape[:2]
        h, w = (area * height * width / aspect) ** 0.5, (area * height * width * aspect) ** 0.5
        h, w = min(int(h), height), min(int(w), width)
        y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        return scan[y : y + h, x : x + w]

    def loop() -> None:
        for _ in range(2 * LOOP):
            scan, other = (cv2.imread(str(files[rng.integers(len(files))])) for _ in range(2))
            below = cv2.resize(crop(other, rng.uniform(0.2, 1), rng.uniform(0.5, 2)), (SIZE, SIZE))
            w, h = rng.integers(SIZE // 2, SIZE, 2).tolist()
            y, x = rng.integers(0, SIZE - h), rng.integers(0, SIZE - w)
            below[y : y + h, x : x + w] = cv2.resize(crop(scan, rng.uniform(0.2, 1), rng.uniform(0.5, 2)), (w, h))

    return timed(loop, LOOP)


def decoded(jpeg: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def scan_files(folder: Path) -> list[Path]:
    return [folder / name for name, _ in list_images(folder)]


def timed(loop: Callable[[], Any], pairs: int) -> Cost:
    cv2.setNumThreads(1)
    wall, cpu = time.perf_counter(), time.process_time()
    loop()
    return {"wall": (time.perf_counter() - wall) / pairs, "cpu": (time.process_time() - cpu) / pairs}


TASKS: dict[str, Callable[..., Cost]] = {"encode": encode, "read": read, "script": script, "online": online}


if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*map(Path, sys.argv[2:]))))
