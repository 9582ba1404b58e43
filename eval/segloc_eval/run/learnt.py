"""Which scans a detector's weights learnt from: none of them may be scored."""

import hashlib
import os
from pathlib import Path

import click

from segloc_eval.config import DETECTOR
from segloc_eval.data.datasets import Data
from segloc_eval.data.scans import Scan
from segloc_eval.mm.model import read_about

MARKED = 4096  # bytes of a file's middle and end that tell it again


def learnt_by(source: str) -> frozenset[str]:
    """Marks of the scans that an arm's weights learnt from, where they are a detector that tells."""
    weights = Path(source)
    weights = weights / DETECTOR if (weights / DETECTOR).is_file() else weights
    return read_about(weights).learnt if weights.name == DETECTOR and weights.is_file() else frozenset()


def accept_learnt(source: str, data: Data) -> None:
    """click.ClickException where a detector learnt from scans that are to be scored, itself or what it began from."""
    learnt = learnt_by(source)
    scored = [scan for group in data.scored.values() for scan in group] if learnt else []
    known = [scan for scan in scored if mark(scan) in learnt]
    if known:
        raise click.ClickException(
            f"{source}: learnt from {len(known)} of the {len(scored)} scans that are to be scored, such as "
            f"{known[0].path}; score it on others"
        )


def mark(scan: Scan) -> str:
    """What tells a scan's file again, wherever it lies: 16 hex digits of its size, its middle and its end."""
    with scan.path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        for place in (size // 2, max(0, size - MARKED)):
            file.seek(place)
            digest.update(file.read(MARKED))
    return digest.hexdigest()[:16]
