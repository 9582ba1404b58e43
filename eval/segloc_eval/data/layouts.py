"""Labelled data sets of every usual layout: which splits they have, each to be read as a COCO data set.

    PIDray   annotations/xray_train.json, xray_test_easy.json, ... (or train.json, test.json); train/, easy/, ...
    COCO     a json; a folder with one; annotations/*train*.json, *val*.json, *test*.json; train/*.json, valid/*.json
    VOC      xml files beside or below their pictures; train/, val/, test/ of them; VOCdevkit's and SIXray's lists
    YOLO     images/train + labels/train, train/images + train/labels, or images + labels; a yaml's train, val and test
             (folders, or lists of pictures) come first; names of classes in it or a text

What is returned is as the files have it: `datasets` checks it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import click

from segloc_eval.data.data_yaml import class_names, stated_parts
from segloc_eval.data.label_files import LEVELS, LONE, SPLITS, TEST, TRAIN, VAL, by_split, split_name
from segloc_eval.data.voc import Listing, VocFolder
from segloc_eval.data.yolo import read_yolo, yolo_folders
from segloc_synth.files import read_json
from segloc_synth.sources.coco import PIDRAY_TRAIN, find_coco
from segloc_synth.sources.listing import is_image
from segloc_synth.sources.problems import Problem

ROBOFLOW = "_annotations.coco.json"
WHAT = (
    "no annotations; name a COCO json, a folder that holds one, PIDray's folder, or one of VOC xml or YOLO text files"
)


@dataclass(frozen=True)
class Split:
    """A split before it is read: `file` (a json, or a folder of labels) is for messages; its pictures lie in `folders`.

    `read` returns the COCO data set, unchecked, and a digest of the labels, and adds to the problems it is given.
    It raises click.ClickException when its json is none.
    """

    file: Path
    folders: list[Path]
    read: Callable[[list[Problem]], tuple[Any, str]]


@dataclass(frozen=True)
class Layout:
    """A data set below `root`: its splits by name, train and val first where there are any; LONE is the only one."""

    root: Path
    splits: dict[str, Split]


def find_layout(path: Path) -> Layout:
    """The layout of the data set at `path`: a folder, a json, a YOLO yaml or `labels` folder, a list folder of SIXray.

    Where a data set has a val but no test split, as COCO's has, that is the test split.

    click.ClickException when there is no such path, nothing known in it, or several things.
    """
    try:
        if not path.exists():
            raise click.ClickException(f"{path}: no such file or folder")
        layout = _find(path)
    except OSError as error:
        raise click.ClickException(f"{error.filename or path}: cannot be read ({error.strerror or error})") from None
    splits = dict(layout.splits)
    if VAL in splits and splits.keys() <= {TRAIN, VAL}:
        splits[TEST] = splits.pop(VAL)
    if splits.keys() == {TRAIN}:
        splits = {LONE: splits[TRAIN]}
    first = [name for name in (TRAIN, VAL) if name in splits]
    return Layout(layout.root, {name: splits[name] for name in dict.fromkeys((*first, *splits))})


def _find(path: Path) -> Layout:
    above = path.parent
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        return _yolo(above, path)
    if path.is_file():
        pidray = above.name == "annotations" and path.name in PIDRAY_TRAIN and (above.parent / "train").is_dir()
        return (_coco_folder(above.parent) if pidray else None) or _lone_json(path)
    if path.name == "labels" and LONE in yolo_folders(above):
        return _yolo(above)
    if above.name == "ImageSet":
        return _voc_lists(above.parent, sorted(path.glob("*.csv")))
    return _coco_folder(path) or _coco_parts(path) or _lone_in(path) or _voc(path) or _yolo(path)


def _jsons(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.json"))


def _lone_in(path: Path) -> Layout | None:
    """The only json of a folder, or of its annotations/."""
    inside = _jsons(path / "annotations")
    if _jsons(path) or not inside:
        return _lone_json(path) if _jsons(path) else None
    if len(inside) > 1:
        names = ", ".join(file.name for file in inside[:5])
        raise click.ClickException(f"{path / 'annotations'}: several json files ({names}); name the one to use")
    return _lone_json(inside[0])


def _lone_json(path: Path) -> Layout:
    file, folders, _ = find_coco(path)
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    return Layout(root, {LONE: _json_split(file, folders)})


def _json_split(file: Path, folders: list[Path]) -> Split:
    return Split(file, folders, partial(_read_json, file))


def _read_json(file: Path, problems: list[Problem]) -> tuple[Any, str]:
    data = read_json(file)
    if file.name == ROBOFLOW and isinstance(data, dict):
        data = _without_heading(data)
    return data, sha256(file.read_bytes()).hexdigest()


def _without_heading(data: dict[str, Any]) -> dict[str, Any]:
    """Without the category that Roboflow lists only as the heading of the others."""
    listed = [c for c in data.get("categories") or [] if isinstance(c, dict)]
    used = {str(a.get("category_id")) for a in data.get("annotations") or [] if isinstance(a, dict)}
    above = {c.get("supercategory") for c in listed if isinstance(c.get("supercategory"), str)}
    kept = [c for c in listed if c.get("name") not in above or c.get("id") != 0 or "0" in used]
    return {**data, "categories": kept} if listed else data


def _coco_folder(root: Path) -> Layout | None:
    """Several json files in annotations/ or the folder itself, told apart by train, val, test in their names."""
    for folder in (root / "annotations", root):
        files = _jsons(folder)
        pidray = folder != root and (root / "train").is_dir() and any(file.name in PIDRAY_TRAIN for file in files)
        files = [file for file in files if file.stem.startswith("instances")] or files
        splits: dict[str, Split] = {}
        for file in files:
            name = split_name(file.stem)
            if name in splits:
                raise click.ClickException(
                    f"{folder}: {splits[name].file.name} and {file.name} are both of the split {name}; keep one of them"
                )
            if name:
                splits[name] = _json_split(file, _picture_folders(file, root, name))
        if set(LEVELS) <= set(splits):  # test.json is these together
            splits.pop(TEST, None)
        if len(splits) > 1 or (folder != root and splits.keys() - {TRAIN, VAL}):
            return Layout(root, splits)
        if pidray:
            raise click.ClickException(
                f"{folder}: no test split; expected xray_test_easy.json and the like, or test.json"
            )
    return None


def _picture_folders(file: Path, root: Path, split: str) -> list[Path]:
    """Where the pictures of a split may lie: folders that its json or the split is named after come first."""
    below = [f for base in (root, root / "images") if base.is_dir() for f in sorted(base.iterdir()) if f.is_dir()]
    named = [f for f in below if f.name.lower() in file.stem.lower() or SPLITS.get(f.name.lower()) == split]
    return [*sorted(named, key=lambda folder: -len(folder.name)), root / "images", root]


def _coco_parts(root: Path) -> Layout | None:
    """A json in each of train/, valid/, test/, as Roboflow exports them."""
    files: dict[Path, Path] = {}
    for folder in sorted(root.iterdir()):
        inside = _jsons(folder) if folder.is_dir() else []
        inside = [file for file in inside if file.name == ROBOFLOW] or inside
        if len(inside) == 1:
            files[folder] = inside[0]
    parts = by_split(folder for folder in files if split_name(folder.name))
    splits = {split: _json_split(files[part], [part, part / "images"]) for split, part in parts.items()}
    return Layout(root, splits) if splits else None


def _yolo(root: Path, yaml: Path | None = None) -> Layout:
    parts = stated_parts(root, yaml) or yolo_folders(root)
    if not parts:
        raise click.ClickException(f"{root}: {WHAT}")
    names = class_names(root, yaml)
    folders = [part.pictures for part in parts.values()]
    if not all(folder.is_relative_to(root) for folder in folders):  # a yaml may lie anywhere
        root = Path(os.path.commonpath(folders))
    return Layout(
        root,
        {split: Split(part.labels, [part.pictures], partial(read_yolo, part, names)) for split, part in parts.items()},
    )


def _voc(root: Path) -> Layout | None:
    """VOC xml: with lists of the splits, in a folder per split, or without splits."""
    listed = [folder for folder in (root, *sorted(root.iterdir())) if folder.is_dir() and _lists(folder)]
    if listed:
        if len(listed) > 1:
            names = ", ".join(folder.name for folder in listed)
            raise click.ClickException(f"{root}: several data sets ({names}); name the one to use")
        return _voc_lists(listed[0], _lists(listed[0]))
    folder = VocFolder(root)
    parts = by_split(part for part in sorted(root.iterdir()) if part.is_dir() and folder.has(part.name))
    splits = {split: Split(part, [root], partial(folder.read, part.name + "/", None)) for split, part in parts.items()}
    if not splits and folder.has(""):
        splits = {LONE: Split(root, [root], partial(folder.read, "", None))}
    return Layout(root, splits) if splits else None


def _lists(folder: Path) -> list[Path]:
    """VOC's lists of the splits (ImageSets/Main/train.txt, ...), or SIXray's with the fewest benign scans."""
    voc = sorted((folder / "ImageSets" / "Main").glob("*.txt"))
    sets = sorted((f for f in (folder / "ImageSet").glob("*") if f.name.isdecimal()), key=lambda f: int(f.name))
    return [file for file in voc if file.stem in SPLITS] or (sorted(sets[0].glob("*.csv")) if sets else [])


def _voc_lists(root: Path, lists: list[Path]) -> Layout:
    files = {file.stem: file for file in lists if file.stem in SPLITS}
    if "train" in files or "val" in files:
        files.pop("trainval", None)  # train and val together
    if not files:
        raise click.ClickException(f"{root}: no list train or test in its ImageSet; {WHAT}")
    folder = VocFolder(root)
    return Layout(
        root,
        {SPLITS[name]: Split(file, [root], partial(folder.read, "", _read_list(file))) for name, file in files.items()},
    )


def _read_list(file: Path) -> Listing:
    """Names, or paths, a line each; in a csv followed by 1 or -1 per class."""
    lines = file.read_bytes().decode("utf-8-sig", "replace").splitlines()
    rows = [line.split("," if file.suffix == ".csv" else None) for line in lines if line.strip()]
    stems, benign = set[str](), set[str]()
    for first, *classes in rows:
        name = first.strip().strip('"')
        if name.lower() == "name" and file.suffix == ".csv":
            continue
        stem = PurePosixPath(name).stem if is_image(name) else PurePosixPath(name).name
        stems.add(stem)
        if classes and "1" not in [word.strip() for word in classes]:
            benign.add(stem)
    return Listing(frozenset(stems), frozenset(benign))
