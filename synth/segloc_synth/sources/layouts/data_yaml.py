"""The yaml of a YOLO data set: the names of its classes, and where its splits lie."""

import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from segloc_synth.console import log
from segloc_synth.files import absolute, is_local
from segloc_synth.sources.layouts.splits import SPLITS, TEST, TRAIN, VAL
from segloc_synth.sources.layouts.yolo import Part, labels_of, yolo_parts
from segloc_synth.sources.listing import child, files_in, is_there, list_images
from segloc_synth.sources.problems import short
from segloc_synth.sources.text import BadLabel, decoded, read_text
from segloc_synth.sources.values import identity, name_of

LARGEST = 1_000_000  # bytes
shown = reprlib.Repr()
shown.maxlevel = 2  # anchors within anchors make of a short yaml a value without end
YAML = (".yaml", ".yml")


def class_names(root: Path, file: Path | None = None) -> dict[int, str]:
    """Class number -> name, from a yaml's `names` (`file`, or any in the folder) or a classes.txt; a name a line.

    click.ClickException when there are none: numbers alone would not say whether two data sets mean the same.
    """
    for path, about in _yamls(root, file):
        names = about.get("names")
        pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ()
        found = {}
        for number, name in pairs:
            place, text = identity(number), name_of(name)
            if type(place) is not int or text is None:  # `no` is a boolean in YAML
                entry = f"{shown.repr(number)}: {shown.repr(name)}"
                raise click.ClickException(f"{path}: names: {entry} is no name; put it in quotes")
            found[place] = text
        if found:
            return found
    for path in (root / "classes.txt", child(root, "labels") / "classes.txt", *files_in(root, ".names")):
        if path.is_file():
            return {number: line.strip() for number, line in enumerate(read_text(path).splitlines()) if line.strip()}
    raise click.ClickException(
        f"{root}: YOLO labels, but no names of their classes; "
        "add a classes.txt with a name a line, or a data.yaml with `names`"
    )


def holds_poses(root: Path, file: Path | None = None) -> bool:
    """Whether a yaml says that the labels hold points of poses."""
    return any("kpt_shape" in about for _, about in _yamls(root, file))


def stated_parts(root: Path, file: Path | None = None) -> dict[str, Part]:
    """The splits that a yaml (`file`, or the first in the folder that does) names; empty where none is stated.

    Its train, val and test are folders or text files that list pictures, one or several, relative to its `path` or to
    itself, also where they begin with `../` as Roboflow's do. What is not there is looked for among the folders that
    are named after splits. A split that repeats another is left out, as where both train and val are the same scans.

    click.ClickException when scans to train or to score on are stated and not there, or a split's labels lie in
    several folders.
    """
    for path, about in _yamls(root, file):
        stated = {SPLITS[key]: _listed(about[key]) for key in SPLITS if about.get(key)}
        if not any(stated.values()):
            continue
        places = {split: _places(path, about, entries) for split, entries in stated.items()}
        found = {split: _part(path, split, there) for split, there in places.items() if there}
        parts = {split: part for split, part in found.items() if part}
        named = yolo_parts(root) if not all(places.values()) else {}
        parts |= {split: named[split] for split, there in places.items() if split in named and not there}
        lost = {split: short(" ".join(entries)) for split, entries in stated.items() if split not in parts}
        if lost:
            what = (f"{s}: {'any picture of ' if places[s] else ''}{entries}" for s, entries in lost.items())
            said = f"{path}: {', '.join(what)}: is not there"
            if TRAIN in lost or not {VAL, TEST} & parts.keys():
                raise click.ClickException(f"{said}; mend it, or delete all splits in it to have the scans cut in two")
            log.warning("%s; left out", said)
        order = sorted(parts, key=[TRAIN, VAL, TEST].index)
        return {
            split: parts[split]
            for place, split in enumerate(order)
            if parts[split] not in map(parts.get, order[:place])
        }
    return {}


def _yamls(root: Path, file: Path | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """`file`, or all yaml files in the folder, and what they say."""
    for path in [file] if file else files_in(root, *YAML):
        try:
            about = yaml.safe_load(decoded(path.read_bytes())) if path.stat().st_size <= LARGEST else None
        except BadLabel:
            raise click.ClickException(f"{path}: is no text in UTF-8; save it in that encoding") from None
        except (yaml.YAMLError, RecursionError, ValueError, TypeError):
            raise click.ClickException(f"{path}: not valid YAML") from None
        if isinstance(about, dict):
            yield path, about


def _listed(entry: Any) -> list[str]:
    return [one.replace("\\", "/") for one in (entry if isinstance(entry, list) else [entry]) if isinstance(one, str)]


def _places(file: Path, about: dict[str, Any], entries: list[str]) -> list[Path]:
    """The folders and lists that a split's entries name; none where one is not there."""
    said = about.get("path")
    bases = [file.parent / said, file.parent] if isinstance(said, str) else [file.parent]
    found = []
    for entry in entries:
        choices = [*(base / entry for base in bases), file.parent / entry.removeprefix("../")]
        place = next(filter(_may_be_read, map(_in_any_case, choices)), None)
        if place is None:
            return []
        found.append(absolute(place) if is_local(place) else place)
    return found


def _may_be_read(path: Path) -> bool:
    """Whether a path is a text, or a folder other than all of a disk; a device would be read without end."""
    return is_there(path) and (path.is_file() or (path.is_dir() and path.resolve() != Path(path.anchor)))


def _in_any_case(path: Path) -> Path:
    """A path whose last two folders may be written in another case than they have: Images/train for images/train."""
    if is_there(path) or path.parent == path:
        return path
    return child(child(path.parent.parent, path.parent.name), path.name)


def _part(file: Path, split: str, places: list[Path]) -> Part | None:
    """The pictures in these folders and lists; of a list some may be missing, None where all are."""
    if len(places) == 1 and places[0].is_dir():
        return Part(places[0], labels_of(places[0]))
    pictures: list[Path] = []
    lost: list[str] = []
    for place in places:
        found, missing = _pictures(place, file.parent)
        pictures, lost = pictures + found, lost + missing
    if lost and not pictures:
        return None
    above, *more = {next((p for p in picture.parents if p.name == "images"), None) for picture in pictures} or {None}
    if more or not pictures:
        what = "its pictures lie in several folders named images, or some in none; put them below one"
        raise click.ClickException(f"{file}: {split}: {what if more else 'names no picture'}")
    base = above or _common([picture.parent for picture in pictures])
    only = frozenset(picture.relative_to(base).as_posix() for picture in pictures)
    return Part(base, labels_of(base), only, frozenset(lost))


def _common(folders: list[Path]) -> Path:
    if all(map(is_local, folders)):
        return Path(os.path.commonpath(folders))
    base = folders[0]
    while not all(folder == base or base in folder.parents for folder in folders):
        base = base.parent
    return base


def _pictures(place: Path, root: Path) -> tuple[list[Path], list[str]]:
    """Those in a folder, or those that a text lists, relative to itself or to `root`; lines that mean no file."""
    if place.is_dir():
        return [place / name for name, _ in list_images(place)], []
    found: list[Path] = []
    lost: list[str] = []
    for line in filter(None, (line.strip().replace("\\", "/") for line in read_text(place).splitlines())):
        path = next(filter(is_there, (place.parent / line, root / line)), None)
        if path is None:
            lost.append(line)
        else:
            found.append(absolute(path) if is_local(path) else path)
    return found, lost
