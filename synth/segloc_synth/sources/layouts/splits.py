"""Which scans belong to which split: by the words of names, by folders, and by a data set's own lists."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import click

from segloc_synth.sources.lists import LISTS, Part, Pictures, read_listing

TRAIN, VAL, TEST = "train", "val", "test"
LEVELS = ("easy", "hard", "hidden")  # PIDray's test splits
SPLITS = {  # words of names that tell a split
    **dict.fromkeys(("train", "training", "trainval"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}
PLAIN = ("annotations", "annotation", "coco", "image", "images", "instances", "labels", "masks")  # that tell none
# Folders of test splits: PIDray's, and the usual one with its pictures in OPIXray's.
TEST_FOLDERS = frozenset({*LEVELS, "test", "test_image"})
LONE = ""  # the split of a data set that has only one
LIST_FOLDERS = ("imagesets", "imageset", "splits", "split", "lists")


def split_name(name: str) -> str:
    """The split that a folder's or json's name tells: train, val, test, or what follows `test`; '' when it tells none.

    xray_test_easy, easy_test -> easy; instances_val2017 -> val; hidden -> hidden (a level of PIDray's); scans -> ''.
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word and word not in PLAIN]
    known = [SPLITS[word] for word in words if word in SPLITS]
    if known and known[0] != TEST:
        return known[0]
    place = next((i for i, word in enumerate(words) if word in SPLITS), len(words))
    rest = words[place + 1 :] or [word for word in words if word in LEVELS]
    return "-".join(rest) or (TEST if known else "")


def named_test(name: str) -> bool:
    """Whether a file's name tells of a test split: a word in it begins with test, as none in labels_latest does."""
    return re.search(r"(?<![a-z])test", name.lower()) is not None


def refused_test(path: Path, reason: str) -> click.ClickException:
    """The error for a source that is a test split, in one line with the remedy."""
    return click.ClickException(
        f"{path}: {reason}, which must not feed synthesis; name the training split, or give --allow-test"
    )


def refuse_test_folders(root: Path, folders: Iterable[Path]) -> None:
    """click.ClickException when one of the `folders` of pictures of the source in `root` is a test split's, or lies in
    one; `root` itself is looked at, what it lies in is not."""
    above = len(root.absolute().parts) - 1
    for folder in sorted(set(folders), key=str):
        if TEST_FOLDERS & {part.lower() for part in folder.absolute().parts[above:]}:
            raise refused_test(root, f"images lie in {folder}, the folder of a test split")


def by_split(names: Iterable[str], holder: str) -> dict[str, str]:
    """Split -> the folder, of those given by name, that is named after it; `trainval` only without train and val.

    click.ClickException where two folders are of one split, or some are of one and others would go unread; `holder`
    is what they lie in.
    """
    names = sorted(names)
    named = {name: split for name in names if (split := split_name(name))}
    unread = [name for name in names if name not in named]
    if named and unread:
        raise click.ClickException(
            f"{holder}/{unread[0]}: holds labels, but its name tells no split, as {next(iter(named))} does; "
            "name it train, val or test, or move it away"
        )
    parts = {name: split for name, split in named.items() if "trainval" not in name.lower()}
    whole = not {TRAIN, VAL} & set(parts.values())
    found: dict[str, str] = {}
    for name, split in (named if whole else parts).items():
        if split in found:
            raise click.ClickException(
                f"{holder}/{name}: is of the split {split}, as is {found[split]}; keep one of them"
            )
        found[split] = name
    return found


def split_pictures(
    root: Path, files: Sequence[str], pictures: Sequence[str], labels: Mapping[str, str], lists: str = "Main"
) -> dict[str, Part]:
    """Split -> its pictures: by the data set's lists, else by folders; LONE where neither tells any.

    `files`, the pictures and their label files, `labels`, are paths below `root` with "/", as its listing has them;
    `lists` is the folder in ImageSets/ whose lists come first.
    """
    return by_lists(root, files, pictures, labels, lists) or _by_folders(root, labels)


def _by_folders(root: Path, labels: Mapping[str, str]) -> dict[str, Part]:
    """By the first level of folders among the labels' paths at which a name tells a split."""
    paths = {picture: PurePosixPath(label).parts[:-1] for picture, label in labels.items()}
    for level in range(max(map(len, paths.values()), default=0)):
        names = {parts[level] for parts in paths.values() if len(parts) > level}
        if any(map(split_name, names)):
            found = by_split(names, str(root))
            return {
                split: Part(tuple(p for p, parts in paths.items() if len(parts) > level and parts[level] == name))
                for split, name in found.items()
            }
    return {LONE: Part(tuple(labels))} if labels else {}


def by_lists(
    root: Path, files: Sequence[str], pictures: Sequence[str], labels: Collection[str], first: str = "Main"
) -> dict[str, Part]:
    """By the data set's own lists, as `split_pictures`; empty where it has none. `labels`: the pictures that have some.

    What any of its test lists names is of the test split, whatever others say: the Segmentation lists of VOC beside
    those of Main, SIXray's of each folder, those of single classes, and texts in the top folder whose names say test.
    Without a training list the rest is to learn from.
    """
    texts = [name for name in files if PurePosixPath(name).suffix.lower() in LISTS]
    lists = [name for name in texts if _is_list(name)]
    chosen, tests = _chosen(lists, first), [name for name in lists if named_test(PurePosixPath(name).stem)]
    odd = [name for name in texts if "/" not in name and name not in lists and named_test(PurePosixPath(name).stem)]
    if not chosen and not tests and not odd:
        return {}
    known = Pictures(pictures)
    read = {name: read_listing(root / name, known) for name in dict.fromkeys((*chosen.values(), *tests))}
    for name in odd:  # test_list.txt names scans, test_notes.txt does not
        with suppress(click.ClickException):
            read[name] = read_listing(root / name, known)
            tests.append(name)
    if not read:
        return {}
    held = {picture for name in tests for picture in read[name].pictures}
    parts: dict[str, Part] = {}
    for split, name in chosen.items():
        mine = tuple(p for p in read[name].pictures if split == TEST or p not in held)
        parts[split] = replace(read[name], pictures=mine)
    if TEST not in parts and held:
        parts[TEST] = Part(tuple(p for p in pictures if p in held), root / tests[0])
    if TRAIN not in parts:
        taken = {picture for part in parts.values() for picture in part.pictures} | held
        rest = tuple(p for p in pictures if p in labels and p not in taken)
        parts |= {TRAIN: Part(rest)} if rest else {}
    return parts


def _is_list(name: str) -> bool:
    """Whether a text is where lists lie: in ImageSets/ and the like, or in the top folder under a split's name."""
    folder, _, below = name.partition("/")
    return folder.lower() in LIST_FOLDERS if below else PurePosixPath(name).stem.lower() in SPLITS


def _chosen(lists: Iterable[str], first: str) -> dict[str, str]:
    """Split -> its list: of the folder with lists under the splits' plain names that comes first.

    That is the one named `first`; of SIXray's numbers the lowest, with the fewest benign scans.
    """
    folders: dict[str, dict[str, str]] = {}
    for name in lists:
        path = PurePosixPath(name)
        if path.stem.lower() in SPLITS:
            folders.setdefault(str(path.parent), {})[path.stem.lower()] = name

    def order(folder: str) -> tuple[bool, int, str]:
        last = PurePosixPath(folder).name
        return last.lower() != first.lower(), int(last) if last.isdecimal() else 0, folder

    files = folders[min(folders, key=order)] if folders else {}
    if {"train", "val"} & files.keys():
        files.pop("trainval", None)  # train and val together
    return {SPLITS[word]: name for word, name in sorted(files.items())}
