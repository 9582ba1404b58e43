"""Picture sheets of composites beside their truth, PhantomRay only: the best and the worst cases of each blend mode."""

from pathlib import Path

import cv2
import numpy as np
import realism_truth
from pycocotools import mask as coco_mask

from segloc_synth.files import atomic_write
from segloc_synth.shards.format import ShardReader
from segloc_synth.sources.images import Pixels

LOOKED_AT = 60  # composites
SHOWN = 8
TILE = 150
GAP = 4
INK = (20, 20, 20)


def write(folder: Path, data: Path, builds: dict[str, Path]) -> None:
    """Write `folder`/best-and-worst-BLEND.jpg for each build, truth above composite, best matches left, worst right;
    and side-by-side.jpg, a case a row: the truth, then each build's composite of the same draw, where it has it."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = realism_truth.Truth(data)
    readers = {blend: ShardReader(build) for blend, build in builds.items()}
    for blend, reader in readers.items():
        cases = sorted(
            (_case(truth, reader, index) for index in range(min(LOOKED_AT, len(reader)))), key=lambda case: case[0]
        )
        chosen = [*cases[: SHOWN // 2], *cases[-SHOWN // 2 :]]
        columns = [np.vstack([_titled(f"dE {lab:.1f}"), *tiles]) for lab, *tiles in chosen]
        _save(folder / f"best-and-worst-{blend}.jpg", np.hstack([_framed(column) for column in columns]))
    last = list(readers.values())[-1]
    rows = [np.hstack([_framed(_titled(title)) for title in ("truth", *readers)])]
    for index in range(SHOWN):
        wanted, (_, true, _) = last[index].meta["key"], _case(truth, last, index)
        tiles = [true]
        for reader in readers.values():
            sample = reader[index]
            same = all(sample.meta["key"][part] == wanted[part] for part in ("segment", "background", "box"))
            tiles.append(_tile(realism_truth.decoded(sample.key), wanted["box"]) if same else np.full_like(true, 255))
        rows.append(np.hstack([_framed(tile) for tile in tiles]))
    _save(folder / "side-by-side.jpg", np.vstack(rows))


def _case(truth: realism_truth.Truth, reader: ShardReader, index: int) -> tuple[float, Pixels, Pixels]:
    """A key view's mean dE from its truth, and the object's surroundings in the truth and in the composite."""
    sample, quality = reader[index], reader.manifest["config"]["jpeg_quality"]
    record, picture = sample.meta["key"], realism_truth.decoded(sample.key)
    true, _ = realism_truth.recoded(truth.view(record, realism_truth.true_density(record)), quality)
    _, lab = realism_truth.difference(picture, true, coco_mask.decode(record["mask"]))
    return lab, _tile(true, record["box"]), _tile(picture, record["box"])


def _save(path: Path, picture: Pixels) -> None:
    done, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done
    with atomic_write(path) as file:
        file.write(jpeg.tobytes())


def _framed(picture: Pixels) -> Pixels:
    return np.asarray(cv2.copyMakeBorder(picture, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255,) * 3), np.uint8)


def _tile(picture: Pixels, box: list[float]) -> Pixels:
    """The surroundings of a box, TILE x TILE."""
    x, y, width, height = box
    half = max(width, height) / 2 + 16
    scale = TILE / (2 * half)
    matrix = np.array([[scale, 0, TILE / 2 - scale * (x + width / 2)], [0, scale, TILE / 2 - scale * (y + height / 2)]])
    return np.asarray(cv2.warpAffine(picture, matrix, (TILE, TILE), flags=cv2.INTER_LINEAR, borderValue=(255,) * 3))


def _titled(text: str) -> Pixels:
    title = np.full((20, TILE, 3), 255, np.uint8)
    return np.asarray(cv2.putText(title, text, (3, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA))
