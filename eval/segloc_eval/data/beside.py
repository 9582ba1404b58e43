"""What is to be learnt beside labelled scans, looked at before anything slow is imported; benign scans cut in two."""

import hashlib
from pathlib import Path

import click
import numpy as np

from segloc_eval.config import Beside
from segloc_eval.data.splits import Album, Looks, looks
from segloc_synth.console import log, progress
from segloc_synth.files import absolute, atomic_write, is_local
from segloc_synth.shards.format import ShardReader
from segloc_synth.sources.backgrounds import NEIGHBOURS, numbered, read_benign
from segloc_synth.sources.images import BadImage, read_image
from segloc_synth.sources.problems import Problem

LEARN_SHARE = 2 / 3  # of benign scans; the others are to count false alarms on
BLOCK, BLOCKS = 30, 24  # scans of a block at least, and blocks at most: what follows each other may show one bag
LISTS = ("benign-learn.txt", "benign-judge.txt")


def resolve_beside(mix: Path | None, share: float, paste: bool, benign: Path | None) -> Beside | None:
    """What --mix, --copy-paste and --benign ask for; click.ClickException where nothing fit lies there."""
    if mix is None and benign is None and not paste:
        return None
    build = ShardReader(mix).manifest["config_hash"] if mix else ""
    scans = read_benign(benign).fingerprint if benign else ""
    share = share if mix else 0.0
    digest = hashlib.sha256(f"{build} {share} {scans} {paste}".encode()).hexdigest()
    return Beside(str(absolute(mix)) if mix else "", share, str(absolute(benign)) if benign else "", digest, paste)


def fingerprint_judged(path: Path) -> str:
    """Of benign scans to count false alarms on, of whatever split; click.ClickException as read_benign."""
    return read_benign(path, allow_test=True).fingerprint


def cut_benign(path: Path, out: Path, seed: int) -> list[Problem]:
    """Write lists of benign scans to learn from and to count false alarms on: full paths, a line each.

    They are cut in blocks by the numbers in their names; of those to judge by, what looks like one to learn from, or is
    its neighbour by number, is left out of both. Returns the problems; click.ClickException where nothing is left.
    """
    if not is_local(path):
        raise click.ClickException(f"{path}: lists name files of this machine; copy the scans to it")
    source = read_benign(path)
    problems, usable, seen = list(source.problems), [], []
    for place in progress(range(len(source.relative)), len(source.relative), "looking at benign scans"):
        try:
            pixels, kinds = read_image(source.open_path(place))
        except BadImage as reason:
            problems.append(Problem(str(reason), source.relative[place]))
            continue
        problems += [Problem(kind, source.relative[place]) for kind in kinds]
        usable.append(place)
        seen.append(looks(pixels))
    parts = _blocks([source.relative[place] for place in usable], seen, seed)
    if min(map(len, parts)) < 2:
        raise click.ClickException(
            f"{path}: its {len(usable)} usable scans are too few, or too much alike, to be cut in two"
        )
    left = len(usable) - len(parts[0]) - len(parts[1])
    told = f"{len(parts[0])} scans to learn from, {len(parts[1])} to judge by"
    log.info("%s: %s; %d are in no list, as they are like one to learn from, or next to it", path, told, left)
    for name, part in zip(LISTS, parts, strict=True):
        with atomic_write(out / name) as file:
            text = "".join(f"{absolute(source.open_path(usable[place]))}\n" for place in part)
            file.write(text.encode(errors="surrogateescape"))
    return problems


def _blocks(names: list[str], seen: list[Looks], seed: int) -> tuple[list[int], list[int]]:
    """Places to learn from, and to judge by, in order."""
    keys = [numbered(name) for name in names]
    order = sorted(range(len(names)), key=lambda place: (keys[place], names[place]))
    count = min(len(order), max(3, min(BLOCKS, len(order) // BLOCK)))
    blocks = [block.tolist() for block in np.array_split(np.array(order, np.int64), max(1, count))]
    drawn = np.random.default_rng([seed, 3]).permutation(len(blocks))
    cut = round(LEARN_SHARE * len(blocks))
    learn = sorted(place for block in drawn[:cut] for place in blocks[block])
    album, taken = Album([seen[place] for place in learn]), {keys[place] for place in learn}
    judge = sorted(place for block in drawn[cut:] for place in blocks[block])
    near = range(-NEIGHBOURS, NEIGHBOURS + 1)
    return learn, [
        place
        for place in judge
        if not any((keys[place][0], keys[place][1] + step) in taken for step in near) and not album.copies(seen[place])
    ]
