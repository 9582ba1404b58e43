"""The committed records: one JSON line a unit, appended, never changed; and what makes them comparable."""

import fcntl
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.transfer.arms import CPUINFO
from numpy._core._multiarray_umath import __cpu_dispatch__ as dispatched  # type: ignore[import-not-found]
from PIL import Image

RECORDS = Path(__file__).parent / "records.jsonl"
ROOT = Path(__file__).parents[2]
# What every x86-64 processor has, and no more.
PLAIN = {
    "NPY_DISABLE_CPU_FEATURES": " ".join(dispatched),
    "OPENBLAS_CORETYPE": "Nehalem",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_CPU_DISABLE": "SSE4.1,SSE4.2,AVX,FP16,AVX2,AVX512-SKX",
    "OPENCV_IPP": "disabled",
}


def read(path: Path = RECORDS, gpu: bool = False) -> list[dict[str, Any]]:
    """The records of the CPU's sizes, or of the GPU's, oldest first: they are no parts of one table."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [record for record in map(json.loads, lines) if (record["device"] != "cpu") == gpu]


def append(record: dict[str, Any], path: Path = RECORDS) -> None:
    """Add a record, whole, also while another process adds one."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(record, separators=(",", ":")) + "\n")


def key(record: dict[str, Any]) -> tuple[str, str, str, int]:
    """As Unit.key."""
    return record["experiment"], record["arm"], record["share"], record["seed"]


def generator() -> str:
    """What scans and pairs are made by, as a digest: simulated scans and pairs of every blend, a few of each.

    It is made without the instructions that some processors lack, so that it is the same on all: their rounding is not.
    Records of different generators do not belong into one table.
    """
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder) / "scans"
        _run("phantom", "--images", "40", "--backgrounds", "12", "--workers", "1", "--out", str(scans))
        for path in sorted(path for path in scans.rglob("*") if path.suffix in (".png", ".jpg", ".json")):
            digest.update(_content(path.name, path.read_bytes()))
        for blend in ("hard", "alpha", "multiply", "dual-energy"):
            out = Path(folder) / blend
            sources = ["--objects", str(scans / "pidray"), "--backgrounds", str(scans / "sixray")]
            more = ["--n", "6", "--size", "128", "--workers", "1", "--blend", blend, "--items", "1", "2"]
            _run("build", *sources, *more, "--out", str(out), cache=Path(folder) / "cache")
            with tarfile.open(out / "segloc-00000000.tar") as shard:
                for member in shard:
                    digest.update(_content(member.name, shard.extractfile(member).read()))  # type: ignore[union-attr]
    return digest.hexdigest()[:12]


def processor() -> str:
    """This machine's, as Linux calls it, with its numbers, since virtual ones hide the rest of the name: times of
    another are not comparable."""
    fields = ("model name", "cpu family", "model")
    name, family, model = (re.search(rf"^{field}\s*: (.*)", CPUINFO, re.MULTILINE) for field in fields)
    return f"{name[1]}, family {family[1]}, model {model[1]}" if name and family and model else platform.machine()


def timed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same records, with times of the machine alone that most of their experiment were made on; the others' are
    not known."""
    machines: dict[str, Counter[tuple[str, str | None]]] = {}
    for record in records:
        machines.setdefault(record["experiment"], Counter())[_machine(record)] += 1
    unknown = {"cpu_seconds": None, "seconds": None}
    return [
        record
        if _machine(record) == machines[record["experiment"]].most_common(1)[0][0]
        else {**record, "cost": {stage: {**cost, **unknown} for stage, cost in record["cost"].items()}}
        for record in records
    ]


def _machine(record: dict[str, Any]) -> tuple[str, str | None]:
    return record["device"], record.get("processor")


def commit() -> str:
    """The checkout's commit; with a plus where files of the tools differ from it."""
    head = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    tools = ["synth", "train", "eval", "benchmarks/transfer/*.py"]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *tools], cwd=ROOT).returncode
    return head.strip() + "+" * changed


def _content(name: str, data: bytes) -> bytes:
    """Of a picture its pixels: compressed, they too depend on the processor."""
    return np.asarray(Image.open(io.BytesIO(data))).tobytes() if name.endswith((".png", ".jpg")) else data


def _run(*arguments: str, cache: Path | None = None) -> None:
    env = {**os.environ, **PLAIN, **({"SEGLOC_CACHE": str(cache)} if cache else {})}
    subprocess.run(["segloc-synth", *arguments], env=env, check=True, capture_output=True)
