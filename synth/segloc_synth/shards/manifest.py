"""The manifest of a build and its pages, put together from the sidecars of the shards without holding them all.

Up to MAX_LISTED shards stand in manifest.json itself. Above, each MAX_LISTED of them have a page `shards-%04d.jsonl`
and beside it `shards-%04d.json` with the page's totals: written last, it marks the page as done, as a sidecar does
for a shard. The manifest then needs one small file a page, however many shards there are.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from segloc_synth.console import faults_of
from segloc_synth.files import Hashed, atomic_write, in_threads, is_local, json_bytes, read_json, write_json

FORMAT_VERSION = 2  # 2: sidecars tell the scans that segments come from
MAX_LISTED = 10_000  # more shards than this go to pages, so that the manifest stays small
SHARD_NAME, PAGE_NAME = re.compile(r"segloc-\d{8}\.tar"), re.compile(r"shards-\d{4,}\.jsonl")
SHA256 = re.compile(r"[0-9a-f]{64}")
NAMED = 5  # samples or files named for a kind of problem

Problems = dict[str, dict[str, Any]]  # kind: {"count": int, "first": up to NAMED names}


def shard_path(folder: Path, number: int) -> Path:
    """Path of shard `number` (0-based)."""
    return folder / f"segloc-{number:08d}.tar"


def sidecar_path(shard: Path) -> Path:
    """Path of a shard's sidecar."""
    return shard.with_suffix(".json")


def page_path(folder: Path, page: int) -> Path:
    """Path of page `page` (0-based) of the list of shards."""
    return folder / f"shards-{page:04d}.jsonl"


@dataclass(frozen=True)
class Layout:
    """How a build of `samples` is cut into shards of `shard_size` and pages of MAX_LISTED shards.

    Attributes:
        shards: number of shards.
        pages: number of pages, 0 where the manifest lists the shards itself.
    """

    samples: int
    shard_size: int

    @property
    def shards(self) -> int:
        return -(-self.samples // self.shard_size)

    @property
    def pages(self) -> int:
        return -(-self.shards // MAX_LISTED) if self.shards > MAX_LISTED else 0

    def count(self, number: int) -> int:
        """Samples in shard `number`."""
        return min(self.shard_size, self.samples - number * self.shard_size)

    def page(self, page: int) -> range:
        """The shards of a page; of all there are where there are no pages."""
        return range(page * MAX_LISTED, min((page + 1) * MAX_LISTED, self.shards))

    def page_samples(self, page: int) -> int:
        """Samples in a page."""
        return min(MAX_LISTED * self.shard_size, self.samples - page * MAX_LISTED * self.shard_size)

    def share(self, part: int, parts: int) -> range:
        """Shards of part 1..parts: contiguous, whole pages where there are at least as many pages as parts."""
        unit = MAX_LISTED if self.pages >= parts else 1
        units = -(-self.shards // unit)
        first, end = (units * number // parts * unit for number in (part - 1, part))
        return range(first, min(end, self.shards))


def note(problems: Problems, kind: str, name: str, count: int = 1) -> None:
    """Count a problem met in `name`; the first few different names are kept."""
    entry = problems.setdefault(kind, {"count": 0, "first": []})
    entry["count"] += count
    if len(entry["first"]) < NAMED and name not in entry["first"]:
        entry["first"].append(name)


def add_totals(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The sum of `totals` of shards or pages, the same however they are grouped as long as they come in order.

    {"samples", "bytes", "shards", "per_class": {class id: samples}, "problems": Problems}; classes ascending, problems
    as first met.
    """
    total = {"samples": 0, "bytes": 0, "shards": 0}
    per_class: dict[int, int] = {}
    problems: Problems = {}
    for part in parts:
        for name in total:
            total[name] += part[name]
        for class_id, count in part["per_class"].items():
            per_class[int(class_id)] = per_class.get(int(class_id), 0) + count
        for kind, entry in part["problems"].items():
            for name in entry["first"]:
                note(problems, kind, name, 0)
            problems.setdefault(kind, {"count": 0, "first": []})["count"] += entry["count"]
    ascending = {str(class_id): per_class[class_id] for class_id in sorted(per_class)}
    return {**total, "per_class": ascending, "problems": problems}


@dataclass(frozen=True)
class Summary:
    """What the list of shards and the totals need of a sidecar: a few hundred bytes, whatever the shard's size.

    `totals` as add_totals gives them.
    """

    entry: dict[str, Any]
    totals: dict[str, Any]

    @classmethod
    def of(cls, side: dict[str, Any]) -> "Summary":
        """The summary of a sidecar's content."""
        entry = {"url": side["shard"], "nsamples": side["count"], "filesize": side["bytes"], "sha256": side["sha256"]}
        ids, counts = np.unique(np.asarray(side["classes"], np.int64), return_counts=True)
        per_class = dict(zip(map(str, ids.tolist()), counts.tolist(), strict=True))
        totals = {"samples": side["count"], "bytes": side["bytes"], "shards": 1, "per_class": per_class}
        return cls(entry, {**totals, "problems": side["problems"]})


def read_summary(folder: Path, number: int, count: int, identity: str) -> Summary | None:
    """The summary of shard `number`; None unless its sidecar is there, of `count` samples of this very config."""
    path = sidecar_path(shard_path(folder, number))
    try:
        side = json.loads(path.read_bytes())
        ours = (side["format_version"], side["count"], side["config_hash"]) == (FORMAT_VERSION, count, identity)
        return Summary.of(side) if ours else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # damaged is as good as absent


def read_summaries(folder: Path, layout: Layout, numbers: range, identity: str) -> Iterator[Summary | None]:
    """read_summary of each of `numbers`, in order."""
    return in_threads(
        lambda number: read_summary(folder, number, layout.count(number), identity), numbers, is_local(folder)
    )


def read_page_totals(folder: Path, layout: Layout, page: int, identity: str) -> dict[str, Any] | None:
    """Content of a page's done-marker; None unless the page is complete for this very build."""
    try:
        done = json.loads(page_path(folder, page).with_suffix(".json").read_bytes())
        told = (done["format_version"], done["totals"]["samples"], done["config_hash"])
        ours = told == (FORMAT_VERSION, layout.page_samples(page), identity)
        return done if ours else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_page(folder: Path, page: int, identity: str, summaries: list[Summary]) -> None:
    """Write a page and then its done-marker, each atomically."""
    path = page_path(folder, page)
    with atomic_write(path) as file:
        hashed = Hashed(file)
        for summary in summaries:
            hashed.write(json_bytes(summary.entry, None))
    done = {
        "format_version": FORMAT_VERSION,
        "page": path.name,
        "config_hash": identity,
        "sha256": hashed.digest.hexdigest(),
        "totals": add_totals(summary.totals for summary in summaries),
    }
    write_json(path.with_suffix(".json"), done)


def write_manifest(
    folder: Path, head: dict[str, Any], layout: Layout, summaries: list[Summary] | None = None
) -> dict[str, Any] | None:
    """Assemble manifest.json and return it; None, and nothing written, while a page or shard is missing.

    `head` holds config, config_hash, sources and classes ([{"id", "name"}]); `summaries`, of all shards, spare
    reading the sidecars where there are no pages.
    """
    identity = head["config_hash"]
    listed: dict[str, Any]
    if layout.pages:
        found = in_threads(
            lambda page: read_page_totals(folder, layout, page, identity), range(layout.pages), is_local(folder)
        )
        pages = [page for page in found if page is not None]
        if len(pages) < layout.pages:
            return None
        parts = [page["totals"] for page in pages]
        listed = {
            "pages": [
                {"url": page["page"], "sha256": page["sha256"]}
                | {key: page["totals"][key] for key in ("shards", "samples", "bytes")}
                for page in pages
            ]
        }
    else:
        if summaries is None:
            read = read_summaries(folder, layout, range(layout.shards), identity)
            summaries = [summary for summary in read if summary is not None]
        if len(summaries) < layout.shards:
            return None
        parts = [summary.totals for summary in summaries]
        listed = {"shardlist": [summary.entry for summary in summaries]}
    totals = add_totals(parts)
    classes = [str(entry["id"]) for entry in head["classes"]]
    totals["per_class"] = {class_id: totals["per_class"].get(class_id, 0) for class_id in classes}
    manifest = {"format_version": FORMAT_VERSION, **head, "totals": totals, "wids_version": 1, **listed}
    write_json(folder / "manifest.json", manifest)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of manifest.json; click.ClickException when `folder` holds no finished build."""
    local = is_local(folder)  # elsewhere there may be no folders to ask for, as on a plain web server
    if local and not folder.is_dir():
        raise click.ClickException(f"{folder}: no such folder of shards; make one with segloc-synth build")
    if not ((folder / "manifest.json").is_file() if local else _there(folder)):
        raise click.ClickException(
            f"{folder}: no manifest.json, so no finished build; run segloc-synth build --out {folder}"
        )
    again = "run the same segloc-synth build again, which makes it anew"
    try:
        manifest = read_json(folder / "manifest.json")
    except click.ClickException as error:
        if isinstance(error.__context__, OSError):  # it may be sound
            raise click.ClickException(f"{error.message}; make it readable") from None
        raise click.ClickException(f"{error.message}; {again}") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version is None:
        raise click.ClickException(f"{folder / 'manifest.json'}: is no manifest; {again}")
    if version != FORMAT_VERSION:
        raise click.ClickException(
            f"{folder / 'manifest.json'}: shard format {version}, this program reads {FORMAT_VERSION}; "
            + (again if version == 1 else "take the version of segloc that wrote it")
        )
    return manifest


def _there(folder: Path) -> bool:
    """Is a manifest in this folder of a store? Opened to see: fsspec's exists() also says no where nobody answers."""
    with faults_of(folder):
        try:
            (folder / "manifest.json").open("rb").close()
        except FileNotFoundError as error:
            if isinstance(error.__cause__, OSError):  # fsspec says so of any failure over HTTP: the cause knows better
                raise error.__cause__ from None
            return False
        return True


def is_count(value: Any) -> bool:
    """A number of samples, shards or bytes."""
    return type(value) is int and 0 <= value < 2**63


def is_entry(value: Any) -> bool:
    """An entry of the list of shards that names a file beside it, not one elsewhere, with numbers where they belong."""
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), str) for name in ("url", "sha256"))
        and bool(SHARD_NAME.fullmatch(value["url"]) and SHA256.fullmatch(value["sha256"]))
        and is_count(value.get("nsamples"))
        and is_count(value.get("filesize"))
    )


def _checked(path: Path, entries: Any) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or not all(map(is_entry, entries)):
        raise click.ClickException(f"{path}: is no list of shards; {mend(path.parent)}")
    return entries


def read_page(folder: Path, manifest: dict[str, Any], page: int) -> list[dict[str, Any]]:
    """The entries {"url", "nsamples", "filesize", "sha256"} of a page, or all where the manifest lists them itself.

    click.ClickException when the page is missing or not the one that the manifest names.
    """
    if "pages" not in manifest:
        return _checked(folder / "manifest.json", manifest.get("shardlist"))
    named = manifest["pages"][page]
    if not PAGE_NAME.fullmatch(named["url"]):
        raise click.ClickException(f"{folder / 'manifest.json'}: {named['url']} is no page's name; {mend(folder)}")
    try:
        with (folder / named["url"]).open("rb") as file:
            hashed = Hashed(file)
            data = hashed.read()
    except FileNotFoundError:
        raise click.ClickException(f"{folder / named['url']}: is missing; {mend(folder)}") from None
    if hashed.digest.hexdigest() != named["sha256"]:
        raise click.ClickException(f"{folder / named['url']}: does not match the manifest; {mend(folder)}")
    return _checked(folder / named["url"], [json.loads(line) for line in data.splitlines()])


def page_count(manifest: dict[str, Any]) -> int:
    """Pages to ask read_page for: 1 where the manifest lists the shards itself."""
    return len(manifest["pages"]) if "pages" in manifest else 1


def mend(folder: Path) -> str:
    """The remedy for damage."""
    return f"run segloc-synth verify {folder} --repair"
