"""The build: shards in parallel, going on where an earlier run of the same config stopped."""

import gc
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

import click
from upath import UPath

from segloc_synth.bank.bank import Backgrounds, Objects
from segloc_synth.compose.sample import Materials, make_sample
from segloc_synth.config import Config
from segloc_synth.console import fault, log, progress
from segloc_synth.engines import AHEAD, check_stop, run_local, run_ray
from segloc_synth.files import SCRATCH, is_local, read_json, read_only, remove_left_overs, write_json
from segloc_synth.shards.format import Sample
from segloc_synth.shards.manifest import (
    SHARD_NAME,
    Layout,
    Problems,
    Summary,
    note,
    read_page_totals,
    read_summaries,
    read_summary,
    shard_path,
    sidecar_path,
    write_manifest,
    write_page,
)
from segloc_synth.shards.writer import write_shard
from segloc_synth.sources.problems import USABLE

Engine = Literal["local", "ray"]
WEB = ("http", "https")  # stores that take no files
ENGINES: tuple[Engine, ...] = get_args(Engine)


@dataclass(frozen=True)
class Job:
    """All that a worker needs.

    Attributes:
        config: of the build.
        objects, backgrounds, distractors: folders of the bank; None without distractors.
        scans: folder or URL of the benign source, from which backgrounds are prepared.
        out: folder or URL of the output.
        strict: whether a benign scan that cannot be used is an error.
    """

    config: Config
    objects: tuple[Path, ...]
    backgrounds: Path
    scans: Path
    distractors: Path | None
    out: Path
    strict: bool = False


class Stopped(click.ClickException):
    """The build stopped with some shards done; the same command finishes the rest."""

    exit_code = 3


_opened: tuple[Job, Materials] | None = None  # of the last shard made in this process


def _materials(job: Job) -> Materials:
    global _opened
    if _opened is None or _opened[0] != job:
        distractors = Objects([job.distractors]) if job.distractors else None
        materials = Materials(job.config, Objects(job.objects), Backgrounds(job.backgrounds, job.scans), distractors)
        _opened = job, materials
        gc.freeze()  # what lives as long as the process need not be looked through again and again
    return _opened[1]


def build_shard(task: tuple[int, int], job: Job) -> Summary:
    """The summary of shard `number` with `count` samples, written unless it is there.

    The shard is a pure function of (config, bank, number, count).
    """
    number, count = task
    if there := _done(job.out, number, count, job.config.hash):
        return there
    materials = _materials(job)
    problems: Problems = {}

    def samples() -> Iterator[Sample]:
        start = number * job.config.shard_size
        for index in range(start, start + count):
            check_stop()
            sample, met = make_sample(materials, index)
            for file, kind in met:
                if job.strict and file and kind not in USABLE:
                    raise click.ClickException(f"{job.scans / file}: {kind}; mend it or leave out --strict")
                note(problems, kind, file or f"{index:012d}")
            yield sample

    return write_shard(shard_path(job.out, number), samples(), job.config.hash, problems)


def build(
    job: Job,
    n: int,
    workers: int,
    about: dict[str, Any],
    engine: Engine = "local",
    part: tuple[int, int] = (1, 1),
) -> dict[str, Any] | None:
    """Build samples 0..n-1 and return the manifest, which also gets what is told `about` the build.

    Goes on in a folder of the same config. `part` (i, of) builds only that share of the shards; the manifest is None,
    and not written, while shards of other parts are missing.

    Raises:
        click.ClickException: the output folder holds anything else, or more than n samples already.
        Stopped: a fault, such as a full disk, when some shards are done.
    """
    config, out = job.config, job.out
    check_output(out, config, n)
    if not (out / "config.json").exists():
        write_json(out / "config.json", {"config": config.as_dict(), "config_hash": config.hash})
    remove_left_overs(out)
    layout = Layout(n, config.shard_size)
    share = layout.share(*part)
    with resumable(out, share, workers):
        try:
            summaries = _build_share(job, layout, share, workers, engine)
        finally:
            remove_left_overs(out)  # of workers that were lost
        bank = Objects(job.objects)
        classes = [{"id": class_id, "name": bank.classes[class_id]} for class_id in bank.used_classes()]
        sources = {"objects": config.objects, "backgrounds": config.backgrounds}
        head = {
            "config": config.as_dict(),
            "config_hash": config.hash,
            "sources": sources,
            **about,
            "classes": classes,
        }
        return write_manifest(out, head, layout, summaries)


def _build_share(job: Job, layout: Layout, share: range, workers: int, engine: Engine) -> list[Summary] | None:
    """Build the shards of a share and the pages that are complete then; the summaries of all where there is no page."""
    out, identity = job.out, job.config.hash
    pages = [page for page in range(max(1, layout.pages)) if _overlap(layout.page(page), share)]
    if layout.pages:
        pages = [page for page in pages if read_page_totals(out, layout, page, identity) is None]
    todo = {page: _overlap(layout.page(page), share) for page in pages}
    total = sum(map(len, todo.values()))
    if total < len(share):
        log.info("%s: %d of %d shards are there, going on", out, len(share) - total, len(share))
    if not total:
        return None
    tasks = ((number, layout.count(number)) for page in pages for number in todo[page])
    run = run_ray if engine == "ray" else run_local
    finished = run(partial(build_shard, job=job), tasks, min(workers, total))
    summaries: list[Summary] | None = None
    # Closed at once on a fault, so that no worker goes on behind the message.
    with closing(finished), closing(progress(finished, len(share), "building shards", len(share) - total)) as results:
        for page in pages:
            mine = [summary for _, summary in zip(todo[page], results, strict=False)]
            whole = len(mine) == len(layout.page(page))
            if not layout.pages:
                summaries = mine if whole else None
            elif whole:
                write_page(out, page, identity, mine)
            else:
                read = list(read_summaries(out, layout, layout.page(page), identity))
                if None not in read:
                    write_page(out, page, identity, [summary for summary in read if summary])
        next(results, None)  # lets the progress end
    return summaries


def _overlap(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


@contextmanager
def resumable(out: Path, share: range, workers: int) -> Iterator[None]:
    """Turn a fault inside the block into one line that says what is done, when anything is."""
    try:
        yield
    except Exception as error:
        reason = error.message if isinstance(error, click.ClickException) else fault(error)
        with suppress(OSError):
            first = share[: AHEAD * workers]
            if reason and any(sidecar_path(shard_path(out, number)).exists() for number in first):
                raise Stopped(f"{reason}; the shards that are done stay, the same command finishes the rest") from None
        raise


def missing(out: Path, config: Config, n: int) -> str:
    """How much of a build of n is there, for people."""
    layout = Layout(n, config.shard_size)
    if layout.pages:
        there = sum(read_page_totals(out, layout, page, config.hash) is not None for page in range(layout.pages))
        return f"{there} of {layout.pages} pages of shards are there"
    found = read_summaries(out, layout, range(layout.shards), config.hash)
    return f"{sum(summary is not None for summary in found)} of {layout.shards} shards are there"


def begun(out: Path) -> dict[str, Any] | None:
    """What config.json in `out` tells of the build there; None where `out` is absent or empty.

    OSError where `out` cannot be written to, click.ClickException where it holds anything else.
    """
    if not is_local(out) and cast(UPath, out).protocol in WEB:
        raise read_only(out)
    if not (out / "config.json").exists():
        foreign = out.exists() and (not out.is_dir() or any(path.name != SCRATCH for path in out.iterdir()))
        if foreign and not (out / "config.json").exists():  # another part may have written it just now
            raise click.ClickException(f"{out}: is not an empty folder; name another --out")
        return None
    theirs = read_json(out / "config.json")
    if not isinstance(theirs, dict) or not isinstance(theirs.get("config"), dict):
        raise click.ClickException(f"{out}: holds something else; name another --out")
    return theirs


def check_output(out: Path, config: Config, n: int) -> None:
    """click.ClickException unless `out` is absent, empty, or holds at most n samples of this very config."""
    theirs = begun(out)
    if theirs is None:
        return
    mine = config.as_dict()
    if theirs.get("config_hash") != config.hash:
        old = theirs["config"]
        differs = [key for key, value in mine.items() if old.get(key) != value]
        what = ", ".join(f"{key} {old.get(key)} instead of {mine[key]}" for key in differs[:3])
        raise click.ClickException(f"{out}: holds a build of another config ({what}); name another --out")
    if outgrown(out, Layout(n, config.shard_size)):
        raise click.ClickException(f"{out}: holds more than {n} pairs already; raise --n or name another --out")


def outgrown(out: Path, layout: Layout) -> bool:
    """Are there shards of a larger build? Parts and interrupted builds leave gaps; of a build of pages, and at a URL,
    the next one is asked for alone, as a listing may take long."""
    if _told(sidecar_path(shard_path(out, layout.shards - 1))) > layout.count(layout.shards - 1):
        return True
    following = shard_path(out, layout.shards)
    if layout.pages or not is_local(out):
        return sidecar_path(following).exists()
    return any(SHARD_NAME.fullmatch(path.name) and path.name >= following.name for path in out.iterdir())


def _told(sidecar: Path) -> int:
    """How many samples a sidecar tells of; 0 where it is missing or damaged, and the shard to be made anew."""
    try:
        return int(json.loads(sidecar.read_bytes())["count"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0


def _done(out: Path, number: int, count: int, identity: str) -> Summary | None:
    """The summary of a shard that is there, whole by its size, with `count` samples (a short last one may grow)."""
    summary = read_summary(out, number, count, identity)
    try:
        return summary if summary and summary.entry["filesize"] == shard_path(out, number).stat().st_size else None
    except FileNotFoundError:
        return None
