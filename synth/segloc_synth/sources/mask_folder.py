"""Data sets with one class-id picture per scan: pixel values are classes, 0 is background."""

import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PurePosixPath

import click

from segloc_synth.sources.labelled import (
    ClassIdPicture,
    ClassIds,
    LabelledSource,
    Scan,
    nothing_usable,
    refuse_test_folders,
)
from segloc_synth.sources.listing import Listed, fingerprint, is_image, list_files, stems
from segloc_synth.sources.problems import TEST_SPLIT, Problem

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "jpegimage")
MASK_FOLDERS = ("masks", "mask", "segmentationclass", "annotations", "annotation", "labels", "label", "gt")
NAME_FILES = ("classes.txt", "labelmap.txt", "labels.txt")
BACKGROUND = frozenset({"background", "_background_", "__background__", "bg"})
NUMBERED = re.compile(r"(\d{1,3})\s*[:=,\s]\s*(\S.*)")
VOID = 255  # the border around objects in VOC's masks, where it is no class


def mask_folders(path: Path) -> tuple[str, str] | None:
    """Names of the folders of pictures and of masks in `path`, None when they are not both there."""
    folders = {child.name.lower(): child.name for child in path.iterdir() if child.is_dir()}
    images = next((folders[name] for name in IMAGE_FOLDERS if name in folders), None)
    masks = next((folders[name] for name in MASK_FOLDERS if name in folders), None)
    return (images, masks) if images and masks else None


def read_mask_folder(path: Path, allow_test: bool) -> LabelledSource:
    """Read a folder with a folder of pictures and one of masks of the same stems. No picture is opened.

    Names of classes come from a classes.txt or labelmap.txt in it: one a line, from value 1 on (from 0 if the first is
    the background), or `value name`. Without one they are "class 1", "class 2", ...

    click.ClickException when stems do not meet, names are wrong or it is a test split.
    """
    found = mask_folders(path)
    assert found is not None, "to be asked for first"
    files = list_files(path)
    images, masks = (
        {_key(name, folder): (name, size) for name, size in files if name.startswith(f"{folder}/") and is_image(name)}
        for folder in found
    )
    both = sorted(images.keys() & masks.keys())
    if not both:
        raise click.ClickException(
            f"{path}: no picture in {found[0]}/ has a mask of the same name in {found[1]}/, as a class-id picture"
        )
    problems = [Problem("mask without an image", masks[key][0]) for key in sorted(masks.keys() - images.keys())]
    tests: set[str] = set() if allow_test else _test_stems(path, files)
    problems += [Problem(TEST_SPLIT, images[key][0]) for key in both if key in tests]
    names, void = _class_names(path, files)
    ids = ClassIds()
    class_of = {value: ids.id_of(name) for value, name in (names or _numbered()).items()}
    used = [key for key in both if key not in tests]
    scans = [
        Scan("", path / images[key][0], 0, 0, (), ClassIdPicture(path / masks[key][0], class_of, void)) for key in used
    ]
    if not scans:
        raise nothing_usable(path, problems)
    if not allow_test:
        refuse_test_folders(path, (scan.path.parent for scan in scans))
    short = stems(images[key][0].removeprefix(f"{found[0]}/") for key in used)
    named = [replace(scan, name=name) for scan, name in zip(scans, short, strict=True)]
    listed: Listed = sorted([images[key] for key in used] + [masks[key] for key in used])
    digest = sha256((fingerprint(listed) + repr(sorted(class_of.items())) + repr(ids.names)).encode())
    return LabelledSource(
        path,
        "masks",
        named,
        ids.names,
        digest.hexdigest(),
        problems=problems,
        others=[path / images[key][0] for key in both if key in tests],
        folders=[path / found[0]],
        unnamed=frozenset() if names else frozenset(ids.names),
    )


def _key(name: str, folder: str) -> str:
    return str(PurePosixPath(name.removeprefix(f"{folder}/")).with_suffix(""))


def _numbered() -> dict[int, str]:
    return {value: f"class {value}" for value in range(1, 256)}


def _class_names(path: Path, files: Listed) -> tuple[dict[int, str], frozenset[int]]:
    """Value -> name of the file that says so, empty without one, and the values to be ignored."""
    there = {name for name, _ in files}
    file = next((path / name for name in NAME_FILES if name in there), None)
    if file is None:
        return {}, frozenset()
    lines = [line.strip() for line in file.read_bytes().decode("utf-8-sig", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    matches = [NUMBERED.fullmatch(line) for line in lines]
    if lines and all(matches):
        named = {int(match[1]): match[2].strip() for match in matches if match}
    else:
        plain = [line.partition(":")[0].strip() for line in lines]  # CVAT's labelmap has colours behind a colon
        first = 0 if plain and plain[0].casefold() in BACKGROUND else 1
        named = dict(enumerate(plain, first))
    named = {value: name for value, name in named.items() if value and name.casefold() not in BACKGROUND}
    if not named or max(named) > 255 or len({name.casefold() for name in named.values()}) < len(named):
        raise click.ClickException(f"{file}: needs one class name a line, or `value name`, each name once, up to 255")
    return named, frozenset() if VOID in named else frozenset({VOID})


def _test_stems(path: Path, files: Listed) -> set[str]:
    """Stems that ImageSets/*/test.txt lists, as VOC has it."""
    lists = [name for name, _ in files if name.startswith("ImageSets/") and name.endswith("/test.txt")]
    return {line.strip() for name in lists for line in (path / name).read_text().splitlines()}
