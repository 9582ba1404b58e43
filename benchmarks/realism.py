"""How real do composites look? PhantomRay across its two scanners, where the truth can be simulated.

Objects are cut from scans of the PIDRAY scanner and pasted onto benign bags of the SIXRAY scanner by every blend mode
that there is; beside them stand real ones: bags of the same make with the object inside, on the SIXRAY scanner.
Prints AUCs of a linear model (segloc-synth probe) and of a small CNN (probe_cnn.py); 0.5 is perfect.

  python benchmarks/realism.py --out realism.json
"""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from segloc_synth.console import cores, progress, run
from segloc_synth.engines import run_local
from segloc_synth.files import write_json
from segloc_synth.phantom import write_phantom
from segloc_synth.phantom.scene import CLASSES

sys.path.insert(0, str(Path(__file__).parent))
import realism_truth

BATCH = 16


def write_real(out: Path, count: int, seed: int, size: int, workers: int) -> None:
    """A COCO data set of `count` scans of the benign scanner with one prohibited item each; whole or absent."""
    if (out / "set.json").exists():
        return
    (out / "images").mkdir(parents=True, exist_ok=True)
    batches = [range(first, min(first + BATCH, count)) for first in range(0, count, BATCH)]
    found = run_local(partial(_write_batch, out, seed, size), batches, workers)
    records = [record for batch in progress(found, len(batches), "simulating real scans, in batches") for record in batch]
    write_json(
        out / "set.json",
        {
            "images": [{"id": i, **image} for i, (image, _) in enumerate(records)],
            "annotations": [{"id": i, "image_id": i, **mark} for i, (_, mark) in enumerate(records)],
            "categories": [{"id": i, "name": name} for i, (name, _) in enumerate(CLASSES, 1)],
        },
    )


def _write_batch(out: Path, seed: int, size: int, batch: range) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    records = []
    for index in batch:
        jpeg, mark, (width, height) = realism_truth.real_scan(seed, index, size)
        name = f"P{index + 1:07d}.jpg"
        (out / "images" / name).write_bytes(jpeg)
        records.append(({"file_name": name, "width": width, "height": height}, mark))
    return records
