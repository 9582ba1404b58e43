"""Verification: every shard, sidecar, page and the manifest of a build read through and compared."""

import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import click

from segloc_synth.config import Config
from segloc_synth.console import progress
from segloc_synth.engines import check_stop, run_local
from segloc_synth.files import Hashed, write_json
from segloc_synth.shards.format import MEMBERS, config_hash
from segloc_synth.shards.manifest import (
    FORMAT_VERSION,
    Layout,
    Summary,
    add_totals,
    is_count,
    page_path,
    read_manifest,
    read_page,
    read_summary,
    shard_path,
    sidecar_path,
)
from segloc_synth.shards.soundness import contradicted, own_words, unsound, untrue
from segloc_synth.shards.writer import ScanIndex

CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file of a build; `shard` is the number of the shard to be made anew, if any."""

    file: str
    problem: str
    shard: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Checked:
    """A shard that was read: what is wrong, the summary of its sidecar where nothing is, and names of its classes."""

    findings: list[Finding]
    summary: Summary | None
    names: dict[int, str] = field(default_factory=dict)


def verify(folder: Path, workers: int) -> tuple[Config, Layout, dict[str, Any], Iterator[Finding]]:
    """Config, layout, command and licences of a finished build, and what is wrong in it, found by reading all of it.

    click.ClickException when there is no manifest, or it and config.json are both too damaged to tell the config.
    """
    manifest = read_manifest(folder)
    config, findings = _read_config(folder, manifest)
    layout = _layout(folder, manifest, config)
    sources = {"objects": config.objects, "backgrounds": config.backgrounds}
    findings += [Finding("manifest.json", words) for words in (*unsound(manifest), *untrue(manifest, sources))]
    return config, layout, own_words(manifest), _verify(folder, manifest, config.hash, layout, findings, workers)


def forget(folder: Path, config: Config, layout: Layout, findings: list[Finding]) -> None:
    """Remove the done-markers of what is wrong, so that a build makes just that anew."""
    if any(finding.file == "config.json" for finding in findings):
        write_json(folder / "config.json", {"config": config.as_dict(), "config_hash": config.hash})
    for finding in findings:
        if finding.shard is not None:
            sidecar_path(shard_path(folder, finding.shard)).unlink(missing_ok=True)
    for page in range(layout.pages):
        here = layout.page(page)
        names = {page_path(folder, page).name, page_path(folder, page).with_suffix(".json").name}
        if any(finding.file in names or finding.shard in here for finding in findings):
            page_path(folder, page).with_suffix(".json").unlink(missing_ok=True)


def _read_config(folder: Path, manifest: dict[str, Any]) -> tuple[Config, list[Finding]]:
    """The config by the first of manifest.json and config.json that agrees with its own hash."""
    found: dict[str, Config] = {}
    findings = []
    for name in ("manifest.json", "config.json"):
        try:
            content = manifest if name == "manifest.json" else json.loads((folder / name).read_bytes())
            config = Config(**content["config"])
            if not config.hash == content["config_hash"] == config_hash(content["config"]):
                raise ValueError("config and hash differ")
            found[name] = config
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            findings.append(Finding(name, "holds no config, or one that does not agree with its hash"))
    if not found:
        raise click.ClickException(
            f"{folder}: neither manifest.json nor config.json says what was built; build it anew"
        )
    config = next(iter(found.values()))
    if any(other != config for other in found.values()):
        findings.append(Finding("config.json", "is of another config than manifest.json"))
    return config, findings


def _layout(folder: Path, manifest: dict[str, Any], config: Config) -> Layout:
    """The layout by the totals or by the list: the one that the last shard's sidecar bears out, else the list's length.

    Nothing else is believed: a wrong number of samples could keep verification busy for ever.
    """
    totals, listed = manifest.get("totals"), manifest.get("pages", manifest.get("shardlist"))
    listed = listed if isinstance(listed, list) and all(isinstance(entry, dict) for entry in listed) else []
    counts = [entry.get("samples" if "pages" in manifest else "nsamples") for entry in listed]
    told = [sum(counts) if all(map(is_count, counts)) else 0, totals.get("samples") if isinstance(totals, dict) else 0]
    layouts = [Layout(samples, config.shard_size) for samples in told if is_count(samples) and samples]
    layouts.sort(key=lambda layout: -layout.samples)  # a list may have been cut
    for layout in layouts:
        last = layout.shards - 1
        if read_summary(folder, last, layout.count(last), config.hash):
            return layout
    for layout in layouts:
        if len(listed) == (layout.pages or layout.shards):
            return layout
    raise click.ClickException(
        f"{folder / 'manifest.json'}: says no number of samples that its shards bear out; "
        "run the same segloc-synth build again"
    )


def _verify(
    folder: Path, manifest: dict[str, Any], identity: str, layout: Layout, findings: list[Finding], workers: int
) -> Iterator[Finding]:
    yield from findings
    pages = manifest.get("pages", [])
    if bool(layout.pages) != ("pages" in manifest) or not isinstance(pages, list) or len(pages) != layout.pages:
        yield Finding("manifest.json", f"does not list the shards of {layout.samples} pairs")
        manifest = {**manifest, "shardlist": [], "pages": [{}] * layout.pages}

    def tasks() -> Iterator[tuple[int, int, dict[str, Any] | None]]:
        """Page by page, so that one list is held at a time, plus what is handed out ahead."""
        for page in range(max(1, layout.pages)):
            entries = _entries(folder, manifest, page)
            for number in layout.page(page):
                place = number - layout.page(page).start
                yield number, layout.count(number), entries[place] if place < len(entries) else None

    totals = []
    names: dict[int, str] = {}  # of classes, as the samples have them
    summaries: list[Summary] = []
    finished = run_local(
        partial(check_shard, folder=folder, identity=identity), tasks(), min(workers, max(1, layout.shards))
    )
    with closing(finished), closing(progress(finished, layout.shards, "verifying shards")) as results:
        for page in range(max(1, layout.pages)):
            whole = True
            summaries = []
            for _, checked in zip(layout.page(page), results, strict=False):
                yield from checked.findings
                names |= checked.names
                whole &= checked.summary is not None
                summaries += [checked.summary] if checked.summary else []
            if layout.pages:
                yield from _check_page(folder, manifest, identity, page, summaries if whole else None)
            totals.append(add_totals(summary.totals for summary in summaries) if whole else None)
        next(results, None)
    whole = None not in totals
    added = add_totals(cast(list[dict[str, Any]], totals)) if whole else None
    listed = [summary.entry for summary in summaries] if whole and not layout.pages else None
    for words in contradicted(manifest, names, added, listed):
        yield Finding("manifest.json", words)


def _entries(folder: Path, manifest: dict[str, Any], page: int) -> list[dict[str, Any]]:
    """A page's list, empty where it cannot be read: _check_page tells."""
    try:
        return list(read_page(folder, manifest, page))
    except (click.ClickException, KeyError, TypeError, ValueError, IndexError):
        return []


def _check_page(
    folder: Path, manifest: dict[str, Any], identity: str, page: int, summaries: list[Summary] | None
) -> Iterator[Finding]:
    path = page_path(folder, page)
    entries = _entries(folder, manifest, page)
    if not entries:
        yield Finding(path.name, "is missing" if not path.exists() else "was altered: its sha256 is not the manifest's")
        return
    try:
        marker = json.loads(path.with_suffix(".json").read_bytes())
    except (FileNotFoundError, ValueError):
        yield Finding(path.with_suffix(".json").name, "is missing or not valid JSON")
        return
    if summaries is not None:
        totals = add_totals(summary.totals for summary in summaries)
        named = {"format_version": FORMAT_VERSION, "page": path.name, "config_hash": identity}
        named["sha256"] = manifest["pages"][page]["sha256"]
        if marker != {**named, "totals": totals}:
            yield Finding(path.with_suffix(".json").name, "does not agree with the sidecars of its shards")


def check_shard(task: tuple[int, int, dict[str, Any] | None], folder: Path, identity: str) -> Checked:
    """Read shard `number` of `count` samples through, and compare it with its entry in the manifest and its sidecar.

    `task` is (number, count, entry), the entry None where the list that should hold it is damaged.
    """
    check_stop()
    number, count, entry = task
    path = shard_path(folder, number)
    side_name = sidecar_path(path).name
    problem, side_problem = "", ""
    side: Any = None
    try:
        side = json.loads(sidecar_path(path).read_bytes())
    except FileNotFoundError:
        side_problem = "is missing"
    except ValueError:
        side_problem = "is not valid JSON"
    try:
        found, names = _read_tar(path)
    except FileNotFoundError:
        return Checked([Finding(path.name, "is missing", number)], None)
    size, digest = found["bytes"], found["sha256"]
    if entry is not None and size != entry.get("filesize"):
        problem = f"has {size} bytes, the manifest says {entry.get('filesize')}"
    elif entry is not None and digest != entry.get("sha256"):
        problem = "was altered: its sha256 is not the manifest's"
    elif found["count"] != count or (
        entry is not None and (entry.get("url"), entry.get("nsamples")) != (path.name, count)
    ):
        problem = f"has {found['count']} samples, the manifest says {entry.get('nsamples') if entry else count}"
    if not side_problem:
        if not isinstance(side, dict) or side.get("config_hash") != identity:
            side_problem = "is of another config"
        elif {**side, **found} != side or side.get("shard") != path.name or "problems" not in side:
            side_problem = "does not agree with its shard"
    findings = [Finding(path.name, problem, number)] if problem else []
    findings += [Finding(side_name, side_problem, number)] if side_problem else []
    return Checked(findings, None if findings else Summary.of(side), names)


def _read_tar(path: Path) -> tuple[dict[str, Any], dict[int, str]]:
    """What a sidecar says of a shard, from the tar itself, read once, and names of classes by id; a damaged one gives
    what was found."""
    classes: list[int] = []
    names: dict[int, str] = {}
    offsets: list[list[int]] = []
    scans = ScanIndex()
    with path.open("rb") as file:
        hashed = Hashed(file)
        try:
            with tarfile.open(fileobj=cast(Any, hashed), mode="r|", format=tarfile.USTAR_FORMAT) as tar:
                for place, member in enumerate(tar):
                    if place % len(MEMBERS) == 0:
                        offsets.append([])
                        content = tar.extractfile(member)
                        meta = json.loads(content.read()) if content else {}
                        classes.append(meta["class_id"])
                        names[meta["class_id"]] = meta["class_name"]
                        scans.add(meta)
                    offsets[-1] += [member.offset_data, member.size]
        except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # the digest tells
        while hashed.read(CHUNK):
            pass
    found = {
        "format_version": FORMAT_VERSION,
        "count": len(offsets),
        "bytes": hashed.size,
        "sha256": hashed.digest.hexdigest(),
        "classes": classes,
        "scans": scans.as_dict(),
        "members": list(MEMBERS),
        "offsets": offsets,
    }
    return found, names
