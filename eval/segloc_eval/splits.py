"""Which scans are trained on: nested, stratified label sets, and a split that keeps near-identical scans together.

Pure functions of their arguments.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

SAME = 4  # bits of 64 in which the hashes of near-identical scans differ at most


def label_order(classes: list[set[int]], seed: int) -> list[int]:
    """An order of all scans (given as the classes that each holds) whose every prefix is stratified by class.

    Always next: a scan, at random, of the class that is furthest behind its share. Taking prefixes makes smaller
    sets lie inside larger ones.
    """
    shuffled = np.random.default_rng(seed).permutation(len(classes)).tolist()
    waiting = {c: [i for i in reversed(shuffled) if c in classes[i]] for c in sorted(set().union(*classes))}
    total = {c: len(queue) for c, queue in waiting.items()}
    taken = dict.fromkeys(waiting, 0)
    order: list[int] = []
    done = [False] * len(classes)
    while waiting:
        behind = min(waiting, key=lambda c: ((taken[c] + 1) / total[c], c))
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


def difference_hash(pixels: NDArray[np.uint8]) -> int:
    """64-bit dHash of RGB [H, W, 3]: is each cell of an 8 x 9 thumbnail darker than its right neighbour?"""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = (small[:, 1:] > small[:, :-1]).reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def split_apart(hashes: NDArray[np.uint64], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Cut the scans at random in two index lists, `share` of them first; near-identical ones stay on one side.

    Near-identical: linked by hashes (uint64 [N]) that differ in at most SAME bits. Both sides hold at least one
    group when there are two.
    """
    groups = _groups(hashes)
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    first: list[int] = []
    second: list[int] = []
    for position, index in enumerate(order):
        last = position == len(order) - 1 and not second
        room = len(first) + len(groups[index]) <= round(share * len(hashes))
        (first if not first or (room and not last) else second).extend(groups[index])
    return sorted(first), sorted(second)


def _groups(hashes: NDArray[np.uint64]) -> list[list[int]]:
    """Connected components of "differ in at most SAME bits", each sorted."""
    left = set(range(len(hashes)))
    groups = []
    for start in range(len(hashes)):
        if start not in left:
            continue
        left.discard(start)
        group, new = [start], [start]
        while new:
            near = np.bitwise_count(hashes ^ hashes[new.pop()]) <= SAME
            found = [int(i) for i in np.flatnonzero(near) if int(i) in left]
            left.difference_update(found)
            group += found
            new += found
        groups.append(sorted(group))
    return groups
