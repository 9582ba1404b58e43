"""Which composites are compared with which real objects, and how they are parted for cross-validation."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CALIPER = 0.25  # largest difference in log area between an object and its match: 12 % in length
FOLDS = 2  # the more, the longer the training, but the fewer crops are independent of it
ENOUGH = 150  # comparisons for which no object need be used twice


@dataclass(frozen=True)
class Found:
    """An object on a canvas: where its picture is to be had, and what must match. `keys` name its bag and its scan."""

    source: Any
    class_name: str
    area: int
    keys: tuple[str, ...]
    mask: dict[str, Any]
    others: tuple[dict[str, Any], ...]


def match(pool: list[Found], objects: list[Found], limit: int) -> tuple[list[Found], list[Found], NDArray[np.int64]]:
    """Composites and real objects alike in class and area, pair by pair, and the group of each pair.

    No bag and no object is used twice where that leaves ENOUGH pairs; otherwise objects and real bags recur, and
    groups are those of the bags alone.
    """
    by_class: dict[str, list[Found]] = {}
    for item in pool:
        by_class.setdefault(item.class_name, []).append(item)
    logs = {name: np.log([item.area for item in items]) for name, items in by_class.items()}
    pairs: list[tuple[Found, Found]] = []
    for strict in (True, False):
        pairs, used = [], set[str]()
        for thing in objects:
            near = np.abs(logs.get(thing.class_name, np.empty(0)) - np.log(thing.area))
            for place in np.argsort(near, kind="stable"):
                one = by_class[thing.class_name][place]
                keys = set(_bags(one, thing, strict))
                if near[place] > CALIPER or len(pairs) == limit:
                    break
                if not keys & used:
                    pairs.append((one, thing))
                    used |= keys if strict else {one.keys[0]}
                    break
        if len(pairs) >= min(ENOUGH, limit):
            break
    groups = group([_bags(one, thing, strict) for one, thing in pairs])
    return [one for one, _ in pairs], [thing for _, thing in pairs], groups


def _bags(one: Found, thing: Found, strict: bool) -> tuple[str, ...]:
    return one.keys + thing.keys if strict else one.keys[:1] + thing.keys


def unique(pool: list[Found], limit: int) -> tuple[list[Found], NDArray[np.int64]]:
    """Composites of which no two share a bag or an object, or only no bag where that leaves too few; their groups."""
    chosen: list[Found] = []
    for keys in (2, 1):
        chosen, used = [], set[str]()
        for item in pool:
            if not used & set(item.keys[:keys]) and len(chosen) < limit:
                chosen.append(item)
                used |= set(item.keys[:keys])
        if len(chosen) >= min(ENOUGH, limit):
            break
    return chosen, group([item.keys[:keys] for item in chosen])


def group(keys: Iterable[tuple[str, ...]]) -> NDArray[np.int64]:
    """A number for each entry, 0 on, the same for all that share a key, directly or by way of others (union-find)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    entries = list(keys)
    for first, *rest in entries:
        for other in rest:
            parent[root(other)] = root(first)
    number: dict[str, int] = {}
    return np.array([number.setdefault(root(first), len(number)) for first, *_ in entries], np.int64)


def fold(groups: NDArray[np.int64], rng: np.random.Generator, folds: int = FOLDS) -> NDArray[np.int64]:
    """The fold of each entry: whole groups, the largest first, each to the fold that has the fewest entries."""
    names, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    filled, fold_of = np.zeros(folds, np.int64), np.empty(len(names), np.int64)
    for name in sorted(rng.permutation(len(names)), key=lambda name: -sizes[name]):
        fold_of[name] = filled.argmin()
        filled[fold_of[name]] += sizes[name]
    return fold_of[place]
