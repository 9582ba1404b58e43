"""The yaml of a YOLO data set: the names of its classes, and where its splits lie."""

import reprlib
from pathlib import Path
from typing import Any

import click
import yaml

from segloc_synth.console import log
from segloc_synth.files import absolute
from segloc_synth.sources.layouts.splits import SPLITS, TEST, TRAIN, VAL
from segloc_synth.sources.layouts.yolo import Part, labels_of, yolo_parts
from segloc_synth.sources.listing import child, files_in, is_there, list_images
from segloc_synth.sources.problems import short
from segloc_synth.sources.text import read_text
from segloc_synth.sources.values import identity, name_of

LARGEST = 1_000_000  # bytes
shown = reprlib.Repr()
shown.maxlevel = 2  # anchors within anchors make of a short yaml a value without end
YAML = (".yaml", ".yml")


Yamls = dict[Path, dict[str, Any]]  # what each says


def read_yamls(root: Path, file: Path | None = None) -> Yamls:
    """What the yaml files in a folder say, or `file` alone; click.ClickException for one that cannot be read."""
    found = {}
    for path in [file] if file else files_in(root, *YAML):
        try:
            about = yaml.safe_load(read_text(path)) if path.stat().st_size <= LARGEST else None
        except (yaml.YAMLError, RecursionError, ValueError, TypeError):
            raise click.ClickException(f"{path}: not valid YAML") from None
        if isinstance(about, dict):
            found[path] = about
    return found


def class_names(root: Path, yamls: Yamls) -> dict[int, str]:
    """Class number -> name, from the `names` of the first yaml that has some, or a classes.txt; a name a line.

    click.ClickException when there are none: numbers alone would not say whether two data sets mean the same.
    """
    for path, about in yamls.items():
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


def holds_poses(yamls: Yamls) -> bool:
    """Whether a yaml says that the labels hold points of poses."""
    return any("kpt_shape" in about for about in yamls.values())


def stated_parts(root: Path, yamls: Yamls) -> dict[str, Part]:
    """The splits that the first yaml names that names any; empty where none does.

    Its train, val and test are folders or text files that list pictures, one or several, relative to its `path` or to
    itself, also where they begin with `../` as Roboflow's do. What is not there is looked for among the folders that
    are named after splits. A split that repeats another is left out, as where both train and val are the same scans.

    click.ClickException when scans to train or to score on are stated and not there, or a split's labels lie in
    several folders.
    """
    for path, about in yamls.items():
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
        first_of = {parts[split]: split for split in (TEST, VAL, TRAIN) if split in parts}
        return {split: part for part, split in reversed(first_of.items())}
    return {}


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
        found.append(absolute(place))
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
    named = [_pictures(place, file.parent) for place in places]
    pictures = [picture for found, _ in named for picture in found]
    lost = [line for _, missing in named for line in missing]
    if lost and not pictures:
        return None
    above, *more = {next((p for p in picture.parents if p.name == "images"), None) for picture in pictures} or {None}
    if more or not pictures:
        what = "its pictures lie in several folders named images, or some in none; put them below one"
        raise click.ClickException(f"{file}: {split}: {what if more else 'names no picture'}")
    base = above or common_folder([picture.parent for picture in pictures])
    only = frozenset(picture.relative_to(base).as_posix() for picture in pictures)
    return Part(base, labels_of(base), only, frozenset(lost))


def common_folder(folders: list[Path]) -> Path:
    """The lowest folder, one of them or above, that all of the absolute `folders` are or lie in."""
    above = (folders[0], *folders[0].parents)
    return next(base for base in above if all(folder.is_relative_to(base) for folder in folders))


def _pictures(place: Path, root: Path) -> tuple[list[Path], list[str]]:
    """Those in a folder, or those that a text lists, relative to itself or to `root`; lines that mean no file."""
    if place.is_dir():
        return [place / name for name, _ in list_images(place)], []
    lines = [line.strip().replace("\\", "/") for line in read_text(place).splitlines() if line.strip()]
    paths = [next(filter(is_there, (place.parent / line, root / line)), None) for line in lines]
    lost = [line for line, path in zip(lines, paths, strict=True) if path is None]
    return [absolute(path) for path in paths if path], lost
