"""The one type that labelled data of every layout is read into, with the marks of each record."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segloc_synth.sources.problems import Problem

# PIDray's categories in its own order, ids 1-12 (the json files of both releases).
PIDRAY_CLASSES = (
    "Baton",
    "Pliers",
    "Hammer",
    "Powerbank",
    "Scissors",
    "Wrench",
    "Gun",
    "Bullet",
    "Sprayer",
    "HandCuffs",
    "Knife",
    "Lighter",
)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shares:
    """Numbers of a record as YOLO has them, shares of the picture's width and height by turns.

    They are a box's centre, width and height, or a polygon's corners, and stand for a record's bbox or segmentation
    until the picture's size is known.
    """

    values: tuple[float, ...]


@dataclass(frozen=True)
class Annotation:
    """One labelled object.

    `id` is the data set's, for messages and names; `segmentation` a COCO segmentation as it stands there, not decoded,
    None where there is none; `box` (x, y, w, h) in pixels, cut to the picture, None where there is none to be used.
    `area` is what the data set states, in pixels, 0 where it states none. `crowd` and `difficult` (VOC's mark, COCO's
    "ignore") tell that scoring passes it over.
    """

    id: str
    class_id: int
    segmentation: Any = None
    box: Box | None = None
    area: float = 0.0
    crowd: bool = False
    difficult: bool = False

    @property
    def derived(self) -> bool:
        """The mask is not the data set's: it is to be found inside the box."""
        return self.segmentation is None


@dataclass(frozen=True)
class ClassIdPicture:
    """A picture whose pixel values are classes: value -> class id; 0 is background.

    `void` values are ignored, and so are those of classes that were `left_out`.
    """

    path: Path
    class_of: Mapping[int, int]
    void: frozenset[int] = frozenset()
    left_out: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Scan:
    """One labelled picture; `name` is what its data set calls it, with "/".

    `width` and `height` are those of the picture as labels see it, upright where only its EXIF tag makes it so; 0 where
    objects are in a class-id picture, `mask`, which is not opened before they are asked for. `id` is the data set's,
    `size_in_bytes` that of the file.
    """

    name: str
    path: Path
    width: int
    height: int
    annotations: tuple[Annotation, ...]
    mask: ClassIdPicture | None = None
    id: int | str = 0
    size_in_bytes: int = 0

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height), None where it is not known yet."""
        return (self.width, self.height) if self.width and self.height else None


@dataclass(frozen=True)
class Split:
    """A split before it is read.

    `file` (a json, a list or a folder of labels) is for messages; its pictures lie in `folders`. `load` returns a COCO
    data set as the files have it, unchecked, and the sha256 of the labels in hexadecimal, and adds to the problems it
    is given; it raises click.ClickException for labels that cannot be read. `listed`: names of its pictures, where a
    list of the data set tells them.
    """

    file: Path
    folders: list[Path]
    load: Callable[[list[Problem]], tuple[Any, str]]
    listed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A data set below `root`, of one `kind`: 'pidray', 'coco', 'masks', 'voc', 'opixray' or 'yolo'.

    Its splits by name, train and val first where there are any; LONE is the only one.
    """

    root: Path
    kind: str
    splits: dict[str, Split]


@dataclass(frozen=True)
class Records:
    """All that can be used of a split, in the order of its files: scans without an object too.

    `classes`: class id to name, as the data set has them. `unnamed`: ids of classes whose names are ours ("class 3").
    `digest`: sha256 of the labels, in hexadecimal.
    """

    scans: list[Scan]
    classes: dict[int, str]
    digest: str
    problems: list[Problem] = field(default_factory=list)
    unnamed: frozenset[int] = frozenset()


def data_set(
    pictures: Iterable[tuple[dict[str, Any], Iterable[dict[str, Any]]]],
    classes: Mapping[int, str],
    unnamed: bool = False,
) -> dict[str, Any]:
    """The COCO data set of pictures, numbered from 1 on: the entry of each, and those of its annotations."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for id, (image, own) in enumerate(pictures, 1):
        images.append({"id": id, **image})
        annotations += [{"image_id": id, **annotation} for annotation in own]
    categories = [{"id": id, "name": name, "unnamed": unnamed} for id, name in classes.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


class ClassIds:
    """Our class ids by name, case ignored: PIDray's where the name is known, further ids behind, in order met."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._by_name = {name.casefold(): (place, name) for place, name in enumerate(PIDRAY_CLASSES, 1)}
        self.names: dict[int, str] = {}
        for name in names:
            self.id_of(name)

    def id_of(self, name: str) -> int:
        """The id of a class, from 1 on; a new one where the name, without spaces around it, is not known yet."""
        name = name.strip()
        class_id, name = self._by_name.setdefault(name.casefold(), (len(self._by_name) + 1, name))
        self.names[class_id] = name
        return class_id
