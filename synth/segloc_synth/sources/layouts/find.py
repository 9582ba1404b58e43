"""Labelled data sets of every usual layout: which splits they have, each to be read by `rules`.

    PIDray   annotations/xray_train.json, xray_test_easy.json, ... (or train.json, test.json); train/, easy/, ...
    COCO     a json; a folder with one; annotations/*train*.json, *val*.json, *test*.json; train/*.json, valid/*.json;
             pictures beside, in images/, images/<subset>/ or data/ (Roboflow, CVAT, FiftyOne, Label Studio, ...)
    masks    images/ and masks/ (VOC's JPEGImages/ and SegmentationClass/ too) whose pixel values are class ids
    VOC      xml files beside or below their pictures; VOCdevkit's and SIXray's lists
    OPIXray  text files of lines `image_name class x1 y1 x2 y2`
    YOLO     images/train + labels/train, train/images + train/labels, or images + labels; a yaml's train, val and test
             (folders, or lists of pictures) come first; names of classes in it or a text

Splits of masks, VOC, OPIXray and YOLO are told by lists (ImageSets/), else by the names of folders.
"""

from dataclasses import replace
from pathlib import Path

import click

from segloc_synth.files import absolute
from segloc_synth.sources.layouts import data_yaml
from segloc_synth.sources.layouts.class_ids import class_id_layout
from segloc_synth.sources.layouts.coco import coco_layout
from segloc_synth.sources.layouts.splits import LONE, TRAIN, VAL
from segloc_synth.sources.layouts.voc import opixray_layout, voc_layout
from segloc_synth.sources.layouts.yolo import YOLO, yolo_parts, yolo_splits
from segloc_synth.sources.listing import list_files, reaching, subfolders
from segloc_synth.sources.records import Layout

WHAT = (
    "no annotations; name a COCO json, a folder that holds one, PIDray's folder, one of pictures and class-id masks, "
    "or one of VOC xml, OPIXray or YOLO text files"
)


def find_layout(path: Path) -> Layout:
    """The layout of the data set at `path`: a folder, a json, a YOLO yaml or `labels` folder, a list folder of SIXray.

    Label files are not read yet, pictures are not opened.

    click.ClickException when there is no such path, nothing known in it, or several things.
    """
    layout = find_layout_or_none(path)
    if layout is None:
        raise click.ClickException(f"{path}: {WHAT}")
    first = [name for name in (TRAIN, VAL) if name in layout.splits]
    return replace(layout, splits={name: layout.splits[name] for name in dict.fromkeys((*first, *layout.splits))})


def find_layout_or_none(path: Path) -> Layout | None:
    """As find_layout; None where a folder holds no labels, as one of benign scans does."""
    with reaching(path):
        if not path.exists():
            raise click.ClickException(f"{path}: no such file or folder")
        if path.is_file():
            return _yolo(path.parent, path) if path.suffix.lower() in data_yaml.YAML else coco_layout(path)
        if path.name.lower() == "labels" and LONE in yolo_parts(path.parent):
            return _yolo(path.parent)
        if path.parent.name.lower() == "imageset":
            return _sixray(path)
        return coco_layout(path) or _file_per_picture(_with_lists(path)) or _yolo(path)


def _with_lists(path: Path) -> Path:
    """The folder itself, or the one in it that has VOC's lists, as VOCdevkit has VOC2007; several are refused."""
    inside = [folder for folder in (path, *subfolders(path)) if _has_lists(folder)]
    if path not in inside and len(inside) > 1:
        raise click.ClickException(
            f"{path}: several data sets ({', '.join(folder.name for folder in inside)}); name the one to use"
        )
    return path if path in inside or not inside else inside[0]


def _has_lists(folder: Path) -> bool:
    return any(below.name.lower() in ("imagesets", "imageset") for below in subfolders(folder))


def _file_per_picture(root: Path) -> Layout | None:
    listed = list_files(root)
    names = [name for name, _ in listed]
    return class_id_layout(root, listed) or voc_layout(root, names) or opixray_layout(root, names)


def _sixray(lists: Path) -> Layout | None:
    """SIXray's ImageSet/100, say: its lists instead of those with the fewest benign scans."""
    root = lists.parent.parent
    names = [name for name, _ in list_files(root)]
    front = f"{lists.parent.name}/"
    return voc_layout(root, [n for n in names if not n.startswith(front) or n.startswith(f"{front}{lists.name}/")])


def _yolo(root: Path, yaml: Path | None = None) -> Layout | None:
    said = data_yaml.read_yamls(root, yaml)
    parts = data_yaml.stated_parts(root, said) or yolo_parts(root)
    if not parts:
        return None
    splits = yolo_splits(parts, data_yaml.class_names(root, said), data_yaml.holds_poses(said))
    above = data_yaml.common_folder(
        [absolute(folder) for folder in (root, *(part.pictures for part in parts.values()))]
    )
    return Layout(above, YOLO, splits)  # a yaml may lie anywhere
