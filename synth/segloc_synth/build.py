"""The build: shards in parallel, going on where an earlier run of the same config stopped."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import click

from segloc_synth.bank import Backgrounds, Objects
from segloc_synth.config import Config
from segloc_synth.console import log, progress
from segloc_synth.engines import check_stop, run_local
from segloc_synth.files import read_json, write_json
from segloc_synth.sample import make_sample
from segloc_synth.shards import Sample, shard_path, sidecar_path, write_manifest, write_shard


@dataclass(frozen=True)
class Job:
    """All that a worker needs: the config, and the folders of the bank and of the output."""

    config: Config
    objects: Path
    backgrounds: Path
    out: Path


@lru_cache(maxsize=2)
def _open_bank(objects: Path, backgrounds: Path) -> tuple[Objects, Backgrounds]:
    return Objects(objects), Backgrounds(backgrounds)


def build_shard(task: tuple[int, int], job: Job) -> int:
    """Write shard `number` with `count` samples; a pure function of (config, bank, number, count). Returns number."""
    number, count = task
    objects, backgrounds = _open_bank(job.objects, job.backgrounds)
    problems: dict[str, int] = {}

    def samples() -> Iterator[Sample]:
        start = number * job.config.shard_size
        for index in range(start, start + count):
            check_stop()
            sample, kinds = make_sample(job.config, objects, backgrounds, index)
            for kind in kinds:
                problems[kind] = problems.get(kind, 0) + 1
            yield sample

    write_shard(shard_path(job.out, number), samples(), job.config.hash, problems)
    return number


def build(config: Config, objects: Path, backgrounds: Path, out: Path, n: int, workers: int) -> dict[str, Any]:
    """Build samples 0..n-1 into `out` and return the manifest; `objects` and `backgrounds` are bank folders.

    Goes on in a folder of the same config; click.ClickException for any other non-empty folder, or when `out`
    already holds more than n samples.
    """
    check_output(out, config, n)
    if not (out / "config.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "config.json", {"config": config.as_dict(), "config_hash": config.hash})
    for left_over in out.glob(".*.tmp"):  # of a run that was killed
        left_over.unlink(missing_ok=True)
    counts = _counts(config, n)
    todo = [(number, count) for number, count in enumerate(counts) if not _is_done(out, number, count)]
    if len(todo) < len(counts):
        log.info("%s: %d of %d shards are there, going on", out, len(counts) - len(todo), len(counts))
    job = Job(config, objects, backgrounds, out)
    finished = run_local(partial(build_shard, job=job), todo, min(workers, max(1, len(todo))))
    for _ in progress(finished, len(counts), "building shards", done=len(counts) - len(todo)):
        pass
    bank = Objects(objects)
    classes = [{"id": class_id, "name": bank.classes[class_id]} for class_id in bank.used_classes()]
    sources = {"objects": config.objects, "backgrounds": config.backgrounds}
    head = {
        "config": config.as_dict(),
        "config_hash": config.hash,
        "sources": sources,
        "classes": classes,
    }
    return write_manifest(out, head, len(counts))


def check_output(out: Path, config: Config, n: int) -> None:
    """click.ClickException unless `out` is absent, empty, or holds at most n samples of this very config."""
    if not (out / "config.json").exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise click.ClickException(f"{out}: is not an empty folder; name another --out")
        return
    mine, theirs = config.as_dict(), read_json(out / "config.json")
    if not isinstance(theirs, dict) or not isinstance(theirs.get("config"), dict):
        raise click.ClickException(f"{out}: holds something else; name another --out")
    if theirs.get("config_hash") != config.hash:
        old = theirs["config"]
        differs = [key for key, value in mine.items() if old.get(key) != value]
        what = ", ".join(f"{key} {old.get(key)} instead of {mine[key]}" for key in differs[:3])
        raise click.ClickException(f"{out}: holds a build of another config ({what}); name another --out")
    counts = _counts(config, n)
    last = sidecar_path(shard_path(out, len(counts) - 1))
    beyond = sidecar_path(shard_path(out, len(counts)))
    if beyond.exists() or (last.exists() and read_json(last)["count"] > counts[-1]):
        raise click.ClickException(f"{out}: holds more than {n} pairs already; raise --n or name another --out")


def _counts(config: Config, n: int) -> list[int]:
    """Samples in each shard of a build of n."""
    return [min(config.shard_size, n - start) for start in range(0, n, config.shard_size)]


def _is_done(out: Path, number: int, count: int) -> bool:
    """Whether the shard is there, whole by its size, with `count` samples (a short last shard may have grown)."""
    path = shard_path(out, number)
    if not sidecar_path(path).exists() or not path.exists():
        return False
    side = read_json(sidecar_path(path))
    return side["count"] == count and side["bytes"] == path.stat().st_size
