"""COCO json files of any tool, PIDray's among them: which there are, of which split, and where their pictures lie."""

from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from segloc_synth.files import read_json
from segloc_synth.sources.layouts.splits import LEVELS, LONE, TEST, TRAIN, VAL, by_split, split_name
from segloc_synth.sources.listing import child, files_in, subfolders
from segloc_synth.sources.problems import Problem
from segloc_synth.sources.records import Layout, Split

COCO, PIDRAY = "coco", "pidray"
# Name of the training json below annotations/, for the ICCV and the journal release.
PIDRAY_TRAIN = ("xray_train.json", "train.json")
ROBOFLOW = "_annotations.coco.json"
PICTURES = ("images", "data", "JPEGImages")  # folders that tools put pictures in


def coco_layout(path: Path) -> Layout | None:
    """The data set of COCO json files in a folder, or of the json `path`; None where a folder holds none.

    click.ClickException for several json files of which names tell no splits.
    """
    if path.is_file():
        above = path.parent
        pidray = above.name == "annotations" and path.name in PIDRAY_TRAIN and (above.parent / "train").is_dir()
        return (_splits_by_name(above.parent) if pidray else None) or _lone(path)
    return _splits_by_name(path) or _splits_by_folder(path) or _lone_in(path)


def _split(file: Path, folders: list[Path]) -> Split:
    return Split(file, list(dict.fromkeys(folder for folder in folders if folder.is_dir())), partial(_load, file))


def _load(file: Path, _problems: list[Problem]) -> tuple[Any, str]:
    data = read_json(file)
    if file.name == ROBOFLOW and isinstance(data, dict):
        data = _without_heading(data)
    return data, sha256(file.read_bytes()).hexdigest()


def _without_heading(data: dict[str, Any]) -> dict[str, Any]:
    """Without the category that Roboflow lists only as the heading of the others."""
    listed, annotations = (
        [one for one in found if isinstance(one, dict)] if isinstance(found := data.get(key), list) else []
        for key in ("categories", "annotations")
    )
    used = {str(annotation.get("category_id")) for annotation in annotations}
    above = {c.get("supercategory") for c in listed if isinstance(c.get("supercategory"), str)}
    kept = [c for c in listed if not (c.get("id") == 0 and "0" not in used and str(c.get("name")) in above)]
    return {**data, "categories": kept} if listed else data


def _lone_in(path: Path) -> Layout | None:
    """The only json of a folder, or of its annotations/."""
    for folder in (path, path / "annotations"):
        found = files_in(folder, ".json")
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:5])
            raise click.ClickException(f"{folder}: several json files ({names}); name the one to use")
        if found:
            return _lone(found[0])
    return None


def _lone(file: Path) -> Layout:
    """A json by itself: its pictures lie beside it, or in the folders where tools put them."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    beside = [file.parent, *(child(file.parent, name) for name in PICTURES)]
    return Layout(root, COCO, {LONE: _split(file, [*beside, *_places(file, root)])})


def _places(file: Path, root: Path) -> list[Path]:
    """Where the pictures of a json may lie: folders that it or its split is named after come first.

    annotations/xray_test_easy.json + easy/, instances_train2017.json + images/train2017/, instances_default.json +
    images/default/.
    """
    below = [folder for base in (root, child(root, "images")) for folder in subfolders(base)]
    split = split_name(file.stem) or None
    named = [f for f in below if f.name.lower() in file.stem.lower() or split_name(f.name) == split]
    return [*sorted(named, key=lambda folder: -len(folder.name)), *(child(root, name) for name in PICTURES), root]


def _splits_by_name(root: Path) -> Layout | None:
    """Several json files in annotations/ or the folder itself, told apart by train, val, test in their names."""
    for folder in (root / "annotations", root):
        files = files_in(folder, ".json")
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
                places = _places(file, root)
                splits[name] = _split(file, [root / "train", *places] if pidray and name == TRAIN else places)
        if set(LEVELS) <= set(splits):  # test.json is these together
            splits.pop(TEST, None)
        if len(splits) > 1 or (folder != root and splits.keys() - {TRAIN, VAL}) or (pidray and splits):
            return Layout(root, PIDRAY if pidray else COCO, splits)
    return None


def _splits_by_folder(root: Path) -> Layout | None:
    """A json in each of train/, valid/, test/, as Roboflow exports them."""
    files: dict[str, Path] = {}
    for folder in subfolders(root):
        inside = files_in(folder, ".json")
        inside = [file for file in inside if file.name == ROBOFLOW] or inside
        if len(inside) == 1 and split_name(folder.name):
            files[folder.name] = inside[0]
    splits = {}
    for split, name in by_split(files, str(root)).items():
        folder = files[name].parent
        splits[split] = _split(files[name], [folder, *(child(folder, pictures) for pictures in PICTURES)])
    return Layout(root, COCO, splits) if splits else None
