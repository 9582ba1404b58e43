"""The shard format: tars of image pairs, a sidecar beside each, one manifest. Owner of reading and writing it.

A shard `segloc-%08d.tar` holds samples of three members, `KEY.json`, `KEY.key.jpg`, `KEY.query.jpg`, KEY the
12-digit index. Its sidecar `segloc-%08d.json` is written last and so marks the shard as done. `manifest.json`
is assembled from the sidecars; its top level is also a wids-v1 index.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from segloc_synth.files import atomic_write, json_bytes, read_json, write_json

FORMAT_VERSION = 1
MEMBERS = ("json", "key.jpg", "query.jpg")
MAX_LISTED = 10_000  # more shards than this go to pages, so that the manifest stays small


def shard_path(folder: Path, number: int) -> Path:
    """Path of shard `number` (0-based)."""
    return folder / f"segloc-{number:08d}.tar"


def sidecar_path(shard: Path) -> Path:
    """Path of a shard's sidecar."""
    return shard.with_suffix(".json")


def config_hash(config: dict[str, Any]) -> str:
    """sha256 of a config's canonical JSON, keys sorted: the identity of a build."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Sample:
    """One encoded pair: `meta` as documented in the data card, and two JPEG files."""

    meta: dict[str, Any]
    key: bytes
    query: bytes


def write_shard(path: Path, samples: Iterable[Sample], identity: str, problems: dict[str, int]) -> None:
    """Write a shard and then its sidecar, each atomically.

    `identity` is the build's config hash; `problems` counts by kind and is read after the samples are drawn.
    """
    offsets: list[list[int]] = []
    classes: list[int] = []
    with atomic_write(path) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                row: list[int] = []
                payloads = (json_bytes(sample.meta, indent=None), sample.key, sample.query)
                for name, data in zip(MEMBERS, payloads, strict=True):
                    info = tarfile.TarInfo(f"{sample.meta['index']:012d}.{name}")
                    info.size, info.mtime, info.mode = len(data), 0, 0o644
                    row += [tar.offset + tarfile.BLOCKSIZE, len(data)]
                    tar.addfile(info, io.BytesIO(data))
                offsets.append(row)
                classes.append(sample.meta["class_id"])
        size = file.tell()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    sidecar = {
        "shard": path.name,
        "config_hash": identity,
        "count": len(offsets),
        "bytes": size,
        "sha256": digest,
        "classes": classes,
        "members": list(MEMBERS),
        "offsets": offsets,
        "problems": problems,
    }
    write_json(sidecar_path(path), sidecar, indent=None)


def write_manifest(folder: Path, head: dict[str, Any], shard_count: int) -> dict[str, Any]:
    """Assemble manifest.json from the sidecars of shards 0..shard_count-1 and return it.

    `head` holds config, config_hash, sources and classes ([{"id", "name"}]).
    """
    shardlist: list[dict[str, Any]] = []
    problems: dict[str, int] = {}
    per_class = dict.fromkeys((entry["id"] for entry in head["classes"]), 0)
    for number in range(shard_count):
        side = read_json(sidecar_path(shard_path(folder, number)))
        shardlist.append(
            {
                "url": side["shard"],
                "nsamples": side["count"],
                "filesize": side["bytes"],
                "sha256": side["sha256"],
            }
        )
        for class_id, count in zip(*np.unique(side["classes"], return_counts=True), strict=True):
            per_class[int(class_id)] += int(count)
        for kind, count in side["problems"].items():
            problems[kind] = problems.get(kind, 0) + count
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        **head,
        "totals": {
            "samples": sum(shard["nsamples"] for shard in shardlist),
            "bytes": sum(shard["filesize"] for shard in shardlist),
            "shards": len(shardlist),
            "per_class": {str(class_id): count for class_id, count in per_class.items()},
            "problems": problems,
        },
        "wids_version": 1,
    }
    if len(shardlist) <= MAX_LISTED:
        manifest["shardlist"] = shardlist
    else:
        manifest["pages"] = []
        for page in range(0, len(shardlist), MAX_LISTED):
            name = f"shards-{page // MAX_LISTED:04d}.jsonl"
            with atomic_write(folder / name) as file:
                file.writelines(json_bytes(row, None) for row in shardlist[page : page + MAX_LISTED])
            manifest["pages"].append(name)
    write_json(folder / "manifest.json", manifest)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest with its full shardlist; click.ClickException when `folder` holds no finished build."""
    if not folder.is_dir():
        raise click.ClickException(f"{folder}: no such folder of shards; make one with segloc-synth build")
    if not (folder / "manifest.json").is_file():
        raise click.ClickException(
            f"{folder}: no manifest.json, so no finished build; run segloc-synth build --out {folder}"
        )
    manifest = read_json(folder / "manifest.json")
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise click.ClickException(
            f"{folder / 'manifest.json'}: shard format {version}, this program reads {FORMAT_VERSION}"
        )
    if "pages" in manifest:
        lines = [line for page in manifest["pages"] for line in (folder / page).open()]
        manifest["shardlist"] = [json.loads(line) for line in lines]
    return manifest


class ShardReader:
    """Random access to the samples of a finished build, by stored offset.

    Counts and sizes come from the manifest and are checked when it is opened (a tar cut at a member boundary
    reads short in silence); file descriptors open on first use, so a reader may be pickled to workers.

    Attributes:
        manifest: the whole manifest.
        classes: list of {"id", "name"} in the trainer's order.
        labels: int64 [N], position of each sample's class in `classes`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.classes: list[dict[str, Any]] = self.manifest["classes"]
        position = {entry["id"]: place for place, entry in enumerate(self.classes)}
        labels, offsets, shard_of = [], [], []
        for number, entry in enumerate(self.manifest["shardlist"]):
            path = folder / entry["url"]
            size = path.stat().st_size if path.is_file() else None
            if size != entry["filesize"]:
                found = "is missing" if size is None else f"has {size} bytes"
                raise click.ClickException(
                    f"{path}: {found}, the manifest says {entry['filesize']}; "
                    "delete its sidecar and run the same segloc-synth build again"
                )
            side = read_json(sidecar_path(path))
            if side["count"] != entry["nsamples"] or side["sha256"] != entry["sha256"]:
                raise click.ClickException(f"{sidecar_path(path)}: does not match the manifest")
            labels += [position[class_id] for class_id in side["classes"]]
            offsets += side["offsets"]
            shard_of += [number] * side["count"]
        self.labels = np.asarray(labels, np.int64)
        self._offsets = np.asarray(offsets, np.int64).reshape(-1, len(MEMBERS), 2)
        self._shard_of = np.asarray(shard_of, np.int32)
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> Sample:
        number = int(self._shard_of[place])
        path = self.folder / self.manifest["shardlist"][number]["url"]
        if number not in self._files:
            self._files[number] = os.open(path, os.O_RDONLY)
        parts = []
        for offset, size in self._offsets[place]:
            data = os.pread(self._files[number], int(size), int(offset))
            if len(data) != size:
                raise click.ClickException(f"{path}: ends inside sample {place}; build it anew")
            parts.append(data)
        try:
            meta = json.loads(parts[0])
        except ValueError:
            raise click.ClickException(f"{path}: sample {place} is damaged; build it anew") from None
        return Sample(meta, parts[1], parts[2])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}
