"""Writing of shards, in the format that `shards` tells and reads."""

import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segloc_synth.files import Hashed, atomic_write, json_bytes, write_json
from segloc_synth.shards.format import MEMBERS, Sample
from segloc_synth.shards.manifest import FORMAT_VERSION, Problems, Summary, sidecar_path

BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)  # of mode 644, mtime 0


class ScanIndex:
    """Which scans the segments of pairs come from: names as first met, and two positions in them for each pair."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._pairs: list[list[int]] = []

    def add(self, meta: dict[str, Any]) -> None:
        """Note the pair of this record; a segment's name is that of its scan, `#`, and its number."""
        scans = (meta[view]["segment"].rpartition("#") for view in ("key", "query"))
        self._pairs.append([self._names.setdefault(scan or name, len(self._names)) for scan, _, name in scans])

    def as_dict(self) -> dict[str, Any]:
        """{"names": [...], "pairs": [[key's, query's], ...]}, for a sidecar."""
        return {"names": list(self._names), "pairs": self._pairs}


def write_shard(path: Path, samples: Iterable[Sample], identity: str, problems: Problems) -> Summary:
    """Write a shard and then its sidecar, each atomically; returns the sidecar's summary.

    `identity` is the build's config hash; `problems` is read after the samples are drawn.
    """
    offsets: list[list[int]] = []
    classes: list[int] = []
    scans = ScanIndex()
    with atomic_write(path) as file:
        hashed = Hashed(file)
        for sample in samples:
            row: list[int] = []
            parts: list[bytes] = []
            offset = hashed.size
            payloads = (json_bytes(sample.meta, indent=None), sample.key, sample.query)
            for name, data in zip(MEMBERS, payloads, strict=True):
                row += [offset + tarfile.BLOCKSIZE, len(data)]
                parts += [_header(f"{sample.meta['index']:012d}.{name}", len(data)), data, _padding(len(data))]
                offset += sum(map(len, parts[-3:]))
            hashed.write(b"".join(parts))
            offsets.append(row)
            classes.append(sample.meta["class_id"])
            scans.add(sample.meta)
        hashed.write(bytes(2 * tarfile.BLOCKSIZE))
        hashed.write(_padding(hashed.size, tarfile.RECORDSIZE))
    sidecar = {
        "format_version": FORMAT_VERSION,
        "shard": path.name,
        "config_hash": identity,
        "count": len(offsets),
        "bytes": hashed.size,
        "sha256": hashed.digest.hexdigest(),
        "classes": classes,
        "scans": scans.as_dict(),
        "members": list(MEMBERS),
        "offsets": offsets,
        "problems": problems,
    }
    write_json(sidecar_path(path), sidecar, indent=None)
    return Summary.of(sidecar)


def _header(name: str, size: int) -> bytes:
    """A file's USTAR header as tarfile would write it, which takes ten times as long."""
    header = bytearray(BLANK)
    header[: len(name)] = name.encode()
    header[124:135] = b"%011o" % size
    header[148:156] = b" " * 8  # counts so in its own sum
    header[148:155] = b"%06o\0" % sum(header)
    return bytes(header)


def _padding(size: int, block: int = tarfile.BLOCKSIZE) -> bytes:
    return bytes(-size % block)
