"""Data sets with one class-id picture per scan: pixel values are classes, 0 is background."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import click

from segloc_synth.sources.layouts.splits import LONE, TRAIN, split_pictures
from segloc_synth.sources.listing import Listed, fingerprint, is_image
from segloc_synth.sources.lists import Part, stem_path
from segloc_synth.sources.problems import Problem
from segloc_synth.sources.records import ClassIdPicture, ClassIds, Layout, Split, data_set
from segloc_synth.sources.text import read_entries
from segloc_synth.sources.values import is_text

MASKS = "masks"
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "jpegimage")
MASK_FOLDERS = ("masks", "mask", "segmentationclass", "annotations", "annotation", "labels", "label", "gt")
NAME_FILES = ("classes.txt", "labelmap.txt", "labels.txt")
BACKGROUND = frozenset({"background", "_background_", "__background__", "bg"})
NUMBERED = re.compile(r"(\d{1,3})\s*[:=,\s]\s*(\S.*)")
VOID = 255  # the border around objects in VOC's masks, where it is no class
ORPHAN = "mask without an image"
NO_MASK = "listed image without a mask"


def class_id_layout(root: Path, listed: Listed) -> Layout | None:
    """The data set of pictures and class-id masks of the same stems among the files below `root`, None without masks.

    They lie in two folders, images/ and masks/ say, in `root` or in each of train/, val/ and test/; names of classes in
    a classes.txt or labelmap.txt beside: one a line, from value 1 on (from 0 if the first is the background), or `value
    name`. Without one they are "class 1", "class 2", ...

    click.ClickException when the names are wrong, or no stem of the one folder is in the other.
    """
    sizes = dict(listed)
    names = list(sizes)
    pairs, orphans, folders = _pairs(names)
    if not pairs and not orphans:
        return None
    if not pairs:
        images, masks = folders[0]
        raise click.ClickException(
            f"{root}: no picture in {images}/ has a mask of the same name in {masks}/, as a class-id picture"
        )
    pictures = [name for name in names if is_image(name) and any(_in(name, images) for images, _ in folders)]
    named, void = _class_names(root, names)
    ids = ClassIds()
    class_of = {value: ids.id_of(name) for value, name in (named or {n: f"class {n}" for n in range(1, 256)}).items()}
    masks_of = _Masks(root, pairs, sizes, class_of, void, ids.names, unnamed=not named)
    splits = {}
    for name, part in split_pictures(root, names, pictures, pairs, "Segmentation").items():
        told = [Problem(ORPHAN, mask) for mask in orphans] if name in (LONE, TRAIN) else []
        front = next((images for images, _ in folders if all(_in(p, images) for p in part.pictures)), "")
        labelled = tuple(p.removeprefix(f"{front}/") for p in part.pictures if p in pairs)
        splits[name] = Split(part.listing or root, [root / front], partial(masks_of.load, front, part, told), labelled)
    return Layout(root, MASKS, splits)


@dataclass(frozen=True)
class _Masks:
    """Pictures and their masks, the bytes of both, and what the values of these mean; `unnamed`: the names are ours."""

    root: Path
    mask_of: Mapping[str, str]
    sizes: Mapping[str, int]
    class_of: Mapping[int, int]
    void: frozenset[int]
    classes: Mapping[int, str]
    unnamed: bool

    def load(
        self, front: str, part: Part, told: Sequence[Problem], problems: list[Problem]
    ) -> tuple[dict[str, Any], str]:
        """The COCO data set of a part's pictures, each with its class-id picture instead of annotations, and a digest.

        Names are those below the folder `front`.
        """
        problems += [*told, *part.missing()]
        used = [name for name in part.pictures if name in self.mask_of]
        problems += [Problem(NO_MASK, name) for name in part.pictures if name not in self.mask_of]
        listed = sorted([(name, self.sizes[name]) for picture in used for name in (picture, self.mask_of[picture])])
        meaning = repr(sorted(self.class_of.items())) + repr(dict(self.classes))
        digest = sha256((fingerprint(listed) + meaning).encode()).hexdigest()
        entries = (({"file_name": name.removeprefix(f"{front}/"), "mask": self._mask(name)}, ()) for name in used)
        return data_set(entries, self.classes, self.unnamed), digest

    def _mask(self, picture: str) -> ClassIdPicture:
        return ClassIdPicture(self.root / self.mask_of[picture], self.class_of, self.void)


def _in(name: str, folder: str) -> bool:
    return name.startswith(f"{folder}/")


def _pairs(names: Sequence[str]) -> tuple[dict[str, str], list[str], list[tuple[str, str]]]:
    """Picture -> mask, masks without a picture, and the pairs of folders in which they are looked for."""
    above = {PurePosixPath(name).parent for name in names}
    tops = {PurePosixPath(*path.parts[:depth]) for path in above for depth in (1, 2) if depth <= len(path.parts)}
    folders = []
    for holder in sorted({top.parent for top in tops}):
        inside = {top.name.lower(): top.as_posix() for top in tops if top.parent == holder}
        images = next((inside[name] for name in IMAGE_FOLDERS if name in inside), None)
        masks = next((inside[name] for name in MASK_FOLDERS if name in inside), None)
        if images and masks:
            folders.append((images, masks))
    pairs, orphans = {}, []
    for images, masks in folders:
        picture_of = {
            stem_path(name.removeprefix(images)): name for name in names if _in(name, images) and is_image(name)
        }
        for name in (name for name in names if _in(name, masks) and is_image(name)):
            picture = picture_of.get(stem_path(name.removeprefix(masks)))
            if picture is None:
                orphans.append(name)
            else:
                pairs[picture] = name
    return dict(sorted(pairs.items())), sorted(orphans), folders


def _class_names(root: Path, files: Sequence[str]) -> tuple[dict[int, str], frozenset[int]]:
    """Value -> name of the file that says so, empty without one, and the values to be ignored."""
    file = next((root / name for name in NAME_FILES if name in files), None)
    if file is None:
        return {}, frozenset()
    lines = read_entries(file)
    matches = [NUMBERED.fullmatch(line) for line in lines]
    if lines and all(matches):
        named = {int(match[1]): match[2].strip() for match in matches if match}
    else:
        plain = [line.partition(":")[0].strip() for line in lines]  # CVAT's labelmap has colours behind a colon
        first = 0 if plain and plain[0].casefold() in BACKGROUND else 1
        named = dict(enumerate(plain, first))
    named = {value: name for value, name in named.items() if value and name.casefold() not in BACKGROUND}
    once = len({name.casefold() for name in named.values()}) == len(named)
    if not named or max(named) > 255 or not once or not all(map(is_text, named.values())):
        raise click.ClickException(f"{file}: needs one class name a line, or `value name`, each name once, up to 255")
    return named, frozenset() if VOID in named else frozenset({VOID})
