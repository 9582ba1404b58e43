"""Labelled sources of every layout: which one a path holds, and several at once."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import click

from segloc_synth.files import read_json
from segloc_synth.sources.coco import PIDRAY_TRAIN, read_coco
from segloc_synth.sources.labelled import (
    MIN_TRUST,
    LabelledSource,
    is_text,
    limit_all,
    merge_classes,
    prefixed,
    trusting,
)
from segloc_synth.sources.listing import is_image, list_files, reaching
from segloc_synth.sources.mask_folder import mask_folders, read_mask_folder
from segloc_synth.sources.voc import OPIXRAY, VOC, is_opixray_line, read_boxes

LOOKED_INTO = 20  # text files that are read to tell OPIXray's labels from other text


def read_labelled(
    path: Path, masks_from_boxes: bool = False, allow_test: bool = False, min_trust: float = MIN_TRUST
) -> LabelledSource:
    """Read a labelled source; records that cannot be used are left out and listed in its `problems`.

    A path may be PIDray's folder (either release), a COCO json or a folder with one, a folder of pictures and
    class-id masks, of VOC xml files or of OPIXray's text files. A folder that is none of these but has train/ stands
    for that. Label files are read, pictures are not opened. Masks derived from boxes are to be used from a trust of
    `min_trust` (0 to 1) on.

    click.ClickException when it is none of these, cannot be read, is a test split (unless `allow_test`), has boxes
    only (unless `masks_from_boxes`), or holds nothing usable.
    """
    return trusting(_read(path, masks_from_boxes, allow_test), min_trust)


def _read(path: Path, masks_from_boxes: bool, allow_test: bool) -> LabelledSource:
    with reaching(path):
        if path.is_file() or not path.exists():
            return read_coco(path, masks_from_boxes, allow_test)
        for folder in (path, path / "train"):
            if not folder.is_dir():
                continue
            layout = layout_of(folder)
            if layout == "coco":
                return read_coco(folder, masks_from_boxes, allow_test)
            if layout == "masks":
                return read_mask_folder(folder, allow_test)
            if layout:
                return read_boxes(folder, layout, masks_from_boxes, allow_test)
        raise click.ClickException(
            f"{path}: no annotations; name a COCO json, a folder that holds one, PIDray's folder, a folder of images "
            "and class-id masks, or one of VOC xml or OPIXray text files"
        )


def layout_of(folder: Path) -> str:
    """'coco' (PIDray's too), 'masks', 'voc', 'opixray', or '' when the folder holds none of these."""
    pidray = any((folder / "annotations" / name).is_file() for name in PIDRAY_TRAIN) and (folder / "train").is_dir()
    if pidray or any(not file.name.startswith(".") for file in folder.glob("*.json")):
        return "coco"
    if (folder / "train").is_dir():
        return ""
    names = [name for name, _ in list_files(folder)]
    found = mask_folders(folder)
    if found and any(name.startswith(f"{found[1]}/") and is_image(name) for name in names):
        return "masks"  # also where VOC has boxes in xml files beside its masks
    if any(name.endswith(".xml") for name in names):
        return VOC
    texts = (folder / name for name in names if name.endswith(".txt"))
    if any(is_opixray_line(_first_line(file)) for file in islice(texts, LOOKED_INTO)):
        return OPIXRAY
    return "masks" if found else ""


def _first_line(file: Path) -> str:
    with file.open("rb") as opened:
        return opened.readline(1000).decode("utf-8", "replace")


def read_labelled_all(
    paths: Sequence[Path],
    mapping: Mapping[str, str | None] | None = None,
    images: Sequence[str] | None = None,
    masks_from_boxes: bool = False,
    allow_test: bool = False,
    min_trust: float = MIN_TRUST,
) -> list[LabelledSource]:
    """Read several sources, their classes merged by name or by `mapping` (see merge_classes), scan names unique.

    `images` limits them to the named scans, see limit_all. click.ClickException as in read_labelled.
    """
    sources = [read_labelled(path, masks_from_boxes, allow_test, min_trust) for path in paths]
    if images is not None:
        sources = limit_all(sources, images)
    merged = [source for source in merge_classes(prefixed(sources), mapping) if source.scans]
    if not merged:
        raise click.ClickException("--classes leaves no class")
    return merged


def read_mapping(path: Path) -> dict[str, str | None]:
    """A --classes file: JSON {"their name": "our name", or null to leave the class out}."""
    mapping = read_json(path)
    if not isinstance(mapping, dict) or not mapping:
        raise click.ClickException(f'{path}: needs a JSON object such as {{"pistol": "Gun", "laptop": null}}')
    for name, ours in mapping.items():
        if ours is not None and not is_text(ours):
            raise click.ClickException(f"{path}: {name!r} must be mapped to a line of text, or to null to leave it out")
    return mapping


def read_names(path: Path) -> list[str]:
    """A --images file: names of scans, one a line; empty lines and lines that begin with # are passed over."""
    with reaching(path):
        try:
            lines = path.read_bytes().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise click.ClickException(f"{path}: is no text in UTF-8") from None
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise click.ClickException(f"{path}: names no scan")
    return names
