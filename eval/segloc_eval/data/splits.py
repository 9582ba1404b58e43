"""Which scans are trained on: nested, stratified label sets, and a split that keeps near-identical scans together.

Pure functions of their arguments.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import click
import cv2
import numpy as np
from numpy.typing import NDArray

ALL = "all"  # of `--labels`: every training scan
SAME = 12  # bits of 64 in which the hashes of near-identical scans differ at most
ALIKE = 0.99  # correlation of the thumbnails of near-identical scans, at least
NOTHING = -(2**32)  # stands for a class in scans without an object; no class has this id
VAL_SHARE, VAL_MOST = 0.1, 2000  # of the training scans; scans


def label_slug(text: str) -> str:
    """The name of a label set in folders and files: "1%" -> "1pct", "200" -> "200", "all" -> "all".

    click.UsageError when `text` is no percentage above 0 and up to 100, no number of scans above 0, and not all.
    """
    word = text.strip().lower()
    number = word.removesuffix("%").strip()
    if word == ALL:
        return ALL
    if word == number and number.isascii() and number.isdecimal() and len(number) < 18 and int(number) > 0:
        return str(int(number))
    if word != number and number.isascii() and number.replace(".", "", 1).isdecimal() and 0 < float(number) <= 100:
        return f"{float(number):g}pct"
    raise click.UsageError(f"--labels {text!r}: a share such as 1%, a number of scans above 0, or all")


def label_count(slug: str, scans: int) -> int:
    """How many of `scans` training scans the label set takes: at least one, at most all of them."""
    if slug == ALL:
        return scans
    wanted = math.floor(float(slug[:-3]) / 100 * scans + 0.5) if slug.endswith("pct") else int(slug)
    return min(max(wanted, 1), scans)


def label_order(classes: Sequence[set[int]], seed: int | Sequence[int]) -> list[int]:
    """An order of all scans (given as the classes that each holds) whose every prefix is stratified by class.

    Always next: a scan, at random, of the class that is furthest behind its share, by the method of Sainte-Laguë,
    which favours neither common nor rare classes. Taking prefixes makes smaller sets lie inside larger ones.
    """
    shuffled = np.random.default_rng(seed).permutation(len(classes)).tolist()
    waiting = {c: [i for i in reversed(shuffled) if c in classes[i]] for c in sorted(set().union(*classes))}
    total = {c: len(queue) for c, queue in waiting.items()}
    taken = dict.fromkeys(waiting, 0)
    order: list[int] = []
    done = [False] * len(classes)
    while waiting:
        behind = min(waiting, key=lambda c: ((taken[c] + 0.5) / total[c], c))
        while waiting[behind] and done[waiting[behind][-1]]:
            waiting[behind].pop()
        if not waiting[behind]:
            del waiting[behind]
            continue
        scan = waiting[behind].pop()
        done[scan] = True
        order.append(scan)
        for c in classes[scan]:
            taken[c] += 1
    return order + [i for i in shuffled if not classes[i]]


def carve(classes: Sequence[set[int]], seed: int) -> list[int]:
    """The scans, given as the classes that each holds, that are validated on: a tenth, at most 2,000, stratified."""
    scans = min(VAL_MOST, int(VAL_SHARE * len(classes)))
    return sorted(label_order(classes, (seed, 1))[:scans])  # another stream than that of the label sets


class Looks(NamedTuple):
    """What tells copies of a scan: sha256 of its pixels, 64-bit hash, and grey thumbnail, uint8 [16, 16]."""

    digest: bytes
    hash: int
    thumbnail: NDArray[np.uint8]


def looks(pixels: NDArray[np.uint8]) -> Looks:
    """The looks of a scan, RGB uint8 [H, W, 3]."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    thumbnail = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)
    return Looks(digest.digest(), _difference_hash(grey), np.asarray(thumbnail, np.uint8))


def _difference_hash(grey: NDArray[np.uint8]) -> int:
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = (small[:, 1:] > small[:, :-1]).reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class Album:
    """Scans among which copies of others are looked for.

    Near-identical are scans of the same pixels, or whose hashes differ in at most SAME bits and whose thumbnails
    correlate. The hash alone takes small bags on a white belt for one another; the thumbnail alone costs too much
    for all pairs.
    """

    def __init__(self, scans: Sequence[Looks]) -> None:
        self._digests = [scan.digest for scan in scans]
        self._hashes = np.array([scan.hash for scan in scans], np.uint64)
        self._thumbnails = _centred(np.array([scan.thumbnail for scan in scans], np.float32).reshape(-1, 256))

    def copies(self, scan: Looks) -> list[int]:
        """Places of the scans near-identical to `scan`, ascending."""
        near = np.flatnonzero(np.bitwise_count(self._hashes ^ np.uint64(scan.hash)) <= SAME)
        alike = self._thumbnails[near] @ _centred(scan.thumbnail.reshape(1, 256).astype(np.float32))[0] >= ALIKE
        return [int(i) for i, same in zip(near, alike, strict=True) if same or self._digests[i] == scan.digest]


def _centred(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    """Thumbnails [N, 256] without their mean, of length 1; flat ones are 0 and so like none."""
    centred = thumbnails - thumbnails.mean(1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1), np.float32)


def split_apart(
    scans: Sequence[Looks], classes: Sequence[set[int]], share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Cut the scans in two index lists, `share` of them first, stratified by the classes that each holds.

    Near-identical scans, also those linked by others, stay on one side. Both sides hold at least one such group when
    there are two.
    """
    groups = _groups(scans)
    held = [set[int]().union(*(classes[i] for i in group)) for group in groups]
    order = label_order([some or {NOTHING} for some in held], (seed, 2))
    first: list[int] = []
    second: list[int] = []
    for position, index in enumerate(order):
        last = position == len(order) - 1 and not second
        room = len(first) + len(groups[index]) <= round(share * len(scans))
        (first if not first or (room and not last) else second).extend(groups[index])
    return sorted(first), sorted(second)


def _groups(scans: Sequence[Looks]) -> list[list[int]]:
    """Connected components of "near-identical", each sorted."""
    album = Album(scans)
    left = set(range(len(scans)))
    groups = []
    for start in range(len(scans)):
        if start not in left:
            continue
        left.discard(start)
        group, new = [start], [start]
        while new:
            found = [i for i in album.copies(scans[new.pop()]) if i in left]
            left.difference_update(found)
            group += found
            new += found
        groups.append(sorted(group))
    return groups
