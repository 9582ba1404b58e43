"""The yaml of a YOLO data set: the names of its classes, and where its splits lie."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from segloc_eval.data.label_files import SPLITS, TEST, TRAIN, VAL
from segloc_eval.data.yolo import Part, yolo_folders
from segloc_synth.console import log
from segloc_synth.files import absolute
from segloc_synth.sources.listing import list_images

LARGEST = 1_000_000  # bytes


def class_names(root: Path, file: Path | None = None) -> dict[int, str]:
    """Class number -> name, from a yaml's `names` (`file`, or any in the folder) or a classes.txt; a name a line.

    click.ClickException when there are none: numbers alone would not say whether two data sets mean the same.
    """
    for _, about in _yamls(root, file):
        names = about.get("names")
        pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ()
        found = {number: str(name) for number, name in pairs if type(number) is int and type(name) in (str, int)}
        if found:
            return found
    for path in (root / "classes.txt", root / "labels" / "classes.txt", *sorted(root.glob("[!.]*.names"))):
        if path.is_file():
            lines = path.read_bytes().decode("utf-8-sig", "replace").splitlines()
            return {number: line.strip() for number, line in enumerate(lines) if line.strip()}
    raise click.ClickException(
        f"{root}: YOLO labels, but no names of their classes; "
        "add a classes.txt with a name a line, or a data.yaml with `names`"
    )


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
        parts = {split: _part(path, split, there) for split, there in places.items() if there}
        named = yolo_folders(root) if stated.keys() - parts.keys() else {}
        parts |= {split: named[split] for split in stated.keys() - parts.keys() if split in named}
        lost = {split: " ".join(entries) for split, entries in stated.items() if split not in parts}
        if lost:
            said = f"{path}: {', '.join(f'{split}: {entries}' for split, entries in lost.items())}: is not there"
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
    for path in [file] if file else sorted([*root.glob("[!.]*.yaml"), *root.glob("[!.]*.yml")]):
        try:
            about = yaml.safe_load(path.read_bytes()) if path.stat().st_size <= LARGEST else None
        except (yaml.YAMLError, RecursionError, ValueError):
            raise click.ClickException(f"{path}: not valid YAML") from None
        if isinstance(about, dict):
            yield path, about


def _listed(entry: Any) -> list[str]:
    return [str(one) for one in (entry if isinstance(entry, list) else [entry]) if isinstance(one, str)]


def _places(file: Path, about: dict[str, Any], entries: list[str]) -> list[Path]:
    """The folders and lists that a split's entries name; none where one is not there."""
    said = about.get("path")
    bases = [file.parent / said, file.parent] if isinstance(said, str) else [file.parent]
    found = []
    for entry in entries:
        choices = [*(base / entry for base in bases), file.parent / entry.removeprefix("../")]
        place = next((choice for choice in choices if choice.exists()), None)
        if place is None:
            return []
        found.append(absolute(place))
    return found


def _part(file: Path, split: str, places: list[Path]) -> Part:
    """The pictures in these folders and lists; of a list they may be missing."""
    if len(places) == 1 and places[0].is_dir():
        return Part(places[0], _labels_of(places[0]))
    pictures = [picture for place in places for picture in _pictures(place, file.parent)]
    above, *more = {next((p for p in picture.parents if p.name == "images"), None) for picture in pictures} or {None}
    if more or not pictures:
        what = "its pictures lie in several folders named images, or some in none; put them below one"
        raise click.ClickException(f"{file}: {split}: {what if more else 'names no picture'}")
    base = above or Path(os.path.commonpath([picture.parent for picture in pictures]))
    return Part(base, _labels_of(base), frozenset(picture.relative_to(base).as_posix() for picture in pictures))


def _pictures(place: Path, root: Path) -> list[Path]:
    """Those in a folder, or those that a text lists, relative to itself or to `root`."""
    if place.is_dir():
        return [place / name for name, _ in list_images(place)]
    lines = (line.strip() for line in place.read_bytes().decode("utf-8-sig", "replace").splitlines())
    found = []
    for line in filter(None, lines):
        near = place.parent / line
        found.append(absolute(near if near.exists() else root / line))
    return found


def _labels_of(pictures: Path) -> Path:
    """Where YOLO looks for the labels of pictures in a folder: labels/ for the path's last images/, else beside."""
    parts = pictures.parts
    if "images" not in parts:
        return pictures
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])
