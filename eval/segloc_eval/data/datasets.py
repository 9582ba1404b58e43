"""Labelled data for evaluation: read from any layout, checked before any training, and split."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import click

from segloc_eval.config import BENIGN
from segloc_eval.data import preflight
from segloc_eval.data.records import Reader
from segloc_eval.data.scans import Scan, classes_of, name_below
from segloc_eval.data.splits import carve, label_count, label_order, label_slug, split_apart
from segloc_eval.numbers.score import MEAN, POOLED
from segloc_synth.files import atomic_write, output_dir, write_json
from segloc_synth.sources.layouts import find
from segloc_synth.sources.layouts.coco import PIDRAY
from segloc_synth.sources.layouts.splits import LONE, TEST, TRAIN, VAL
from segloc_synth.sources.problems import SHORT, Problem, faults
from segloc_synth.sources.records import Layout

TRAIN_SHARE = 0.6  # of data that have no splits


@dataclass(frozen=True)
class Data:
    """What is trained and scored on, below `root`.

    `classes`: category id to name. `masks`: objects have masks. `train`: in the order of the nested label sets, as
    many scans as the largest needs; `sizes`: slug of a label set to the number of its scans, the first of `train`.
    `val`: set apart from training, its pictures decoded only where it is scored. `tests`: the splits to score by
    name, `val` among them. `fingerprint`: of all labels and pictures that were looked at, but for those of scans
    without any object: `benign` are learnt from too, on `judged` false alarms are counted.
    """

    root: Path
    fingerprint: str
    classes: dict[int, str]
    masks: bool
    train: list[Scan]
    sizes: dict[str, int]
    val: list[Scan]
    tests: dict[str, list[Scan]]
    problems: list[Problem] = field(default_factory=list)
    benign: list[Scan] = field(default_factory=list)
    judged: list[Scan] = field(default_factory=list)

    @property
    def scored(self) -> dict[str, list[Scan]]:
        """All that detectors look at: the test splits, and with them the benign scans that are judged by."""
        return self.tests | ({BENIGN: self.judged} if self.judged else {})


def load_data(
    path: Path,
    labels: Sequence[str],
    seed: int,
    on: Literal["test", "val"] = "test",
    eval_only: bool = False,
    boxes: bool = False,
    benign: Path | None = None,
    judge: Path | None = None,
) -> Data:
    """Read and check a data set of any layout (see sources.layouts.find); choose the scans to train and to score on.

    A tenth of the training scans, at most 2,000, is set apart by `seed` to validate on, unless the data set has a
    val split of its own; `on` says whether that or the test splits are scored. Each of `labels` ("1%", "200", "all")
    takes the first so many of one stratified order of the other training scans, so smaller sets lie inside larger
    ones. Data without splits are cut 60/40, stratified too. `eval_only`: nothing is trained, and data without splits
    are one test split. `boxes`: objects without a mask among others with masks are learnt and scored too. `benign`:
    scans without any object to learn from, as sources.backgrounds.read_benign takes them; `judge`: others, to count
    false alarms on.

    No scan is learnt from that is near-identical to a scored one. Training scans without a usable object are left
    out, as mmdet does. Every picture that is used was decoded once, so none fails later; no other one is. Records that
    cannot be used, or only after a conversion, are in `problems`. Ids of scored scans do not depend on `eval_only`.

    click.ClickException when the path or its labels are unusable, or nothing to train or score on is left.
    """
    slugs = list(dict.fromkeys(label_slug(text) for text in labels))
    layout = find_layout(path)
    reader = Reader(layout.root, str(path))
    if LONE in layout.splits:
        train, val, tests = _cut(layout, reader, seed, on, eval_only, boxes)
    else:
        train, val, tests = _read_splits(layout, reader, on, eval_only, boxes)
    pool = [scan for scan in train if classes_of(scan)]
    if VAL not in layout.splits:
        apart = set(carve([classes_of(scan) for scan in pool], seed))
        val = [scan for i, scan in enumerate(pool) if i in apart]
        pool = [scan for i, scan in enumerate(pool) if i not in apart]
    tests = {name: list(reader.check(scans)) for name, scans in ({VAL: val} if on == VAL else tests).items()}
    judged = reader.read_benign(judge, tests, allow_test=True) if judge else []
    wanted = {} if eval_only else {slug: label_count(slug, len(pool)) for slug in slugs}
    order = label_order([classes_of(scan) for scan in pool], seed)
    scored = tests | {BENIGN: judged}
    learnt = reader.apart(reader.check(pool[i] for i in order), scored)
    chosen = list(islice(learnt, max(wanted.values(), default=0)))
    nothing = reader.read_benign(benign, scored | {TRAIN: chosen}) if benign else []
    val = tests.get(VAL, val)
    sizes = {slug: min(count, len(chosen)) for slug, count in wanted.items()}
    short = [f"--labels {slug}" for slug in sizes if slug.isdigit() and int(slug) > sizes[slug]]
    reader.note(SHORT, *short, file=TRAIN)
    if not eval_only and not chosen:
        reader.fail(preflight.NO_SCAN, TRAIN)
    if on == VAL and not val:
        reader.fail(preflight.NO_VAL, VAL)
    for name, scans in tests.items():
        if not any(map(classes_of, scans)) and (scans or on == TEST):
            reader.fail(preflight.NO_OBJECT, name)
    reader.stop()
    reader.note_empty_classes(TRAIN, pool)
    reader.note_empty_classes(on, [scan for scans in tests.values() for scan in scans])
    about = layout.root, reader.fingerprint(), reader.classes, reader.masks
    return Data(*about, chosen, sizes, [] if eval_only else val, tests, reader.problems, nothing, judged)


def load_training(path: Path, name: str) -> Data:
    """Read and check a data set to train on all of it, as the label set `name`, and score nothing.

    click.ClickException as in load_data.
    """
    layout = find_layout(path)
    reader = Reader(layout.root, str(path))
    groups = reader.masked([reader.read(split) for split in layout.splits.values()])
    reader.stop()
    reader.keep_classes_met()
    chosen = [scan for scans in groups for scan in reader.check(scans) if classes_of(scan)]
    if not chosen:
        reader.fail(preflight.NO_SCAN, TRAIN)
    reader.stop()
    about = layout.root, reader.fingerprint(), reader.classes, reader.masks
    return Data(*about, chosen, {name: len(chosen)}, [], {}, reader.problems)


def find_layout(path: Path) -> Layout:
    """The layout of the data set at `path`, as it is learnt and scored: see sources.layouts.find.find_layout.

    Where a data set has a val but no test split, as COCO's has, that is the test split; one with a training split
    alone has no splits.
    """
    layout = find.find_layout(path)
    splits = dict(layout.splits)
    if VAL in splits and splits.keys() <= {TRAIN, VAL}:
        splits[TEST] = splits.pop(VAL)
    if splits.keys() == {TRAIN} and layout.kind == PIDRAY:
        raise click.ClickException(
            f"{layout.root}: no test split; expected xray_test_easy.json and the like, or test.json"
        )
    if splits.keys() == {TRAIN}:
        splits = {LONE: splits[TRAIN]}
    named = {f"{TEST}-{name}" if name in (MEAN, POOLED, BENIGN) else name: split for name, split in splits.items()}
    return replace(layout, splits=named)


Splits = tuple[list[Scan], list[Scan], dict[str, list[Scan]]]  # train, val, tests


def _cut(layout: Layout, reader: Reader, seed: int, on: str, eval_only: bool, boxes: bool) -> Splits:
    """Data without splits: cut in two, near-identical scans on one side; one test split where that is all."""
    whole = reader.masked([reader.read(layout.splits[LONE])], boxes)[0]
    reader.stop()
    reader.keep_classes_met()
    if eval_only and on == TEST:
        return [], [], {TEST: whole}
    usable = list(reader.check(whole))
    held = [classes_of(scan) for scan in usable]
    first, second = split_apart([reader.looks[scan.id] for scan in usable], held, TRAIN_SHARE, seed)
    return [usable[i] for i in first], [], {TEST: [usable[i] for i in second]}


def _read_splits(layout: Layout, reader: Reader, on: str, eval_only: bool, boxes: bool) -> Splits:
    """The splits of the data set that are needed. Those to score are read first: their ids hang on nothing else."""
    splits = layout.splits
    tests = {name: reader.read(splits[name]) for name in splits if on == TEST and name not in (TRAIN, VAL)}
    val = reader.read(splits[VAL]) if VAL in splits and (on == VAL or not eval_only) else []
    needed = not eval_only or (on == VAL and VAL not in splits)
    if needed and TRAIN not in splits:
        reader.fail(preflight.NO_TRAINING, layout.root.name)
    train = reader.read(splits[TRAIN]) if needed and TRAIN in splits else []
    reader.stop()
    reader.meet_classes(layout)
    train, val, *rest = reader.masked([train, val, *tests.values()], boxes)
    return train, val, dict(zip(tests, rest, strict=True))


def write_lists(data: Data, folder: Path) -> None:
    """Write labels-<slug>.txt and val.txt: names of scans, a line each, as `segloc-synth build --images` takes them."""
    lists = {f"labels-{slug}.txt": data.train[:size] for slug, size in data.sizes.items()}
    for name, scans in {**lists, "val.txt": data.val}.items():
        with atomic_write(folder / name) as file:
            text = "".join(f"./{name_below(scan.path, data.root)}\n" for scan in scans)
            file.write(text.encode(errors="surrogateescape"))  # names of files are bytes, in any encoding


def convert(path: Path, out: Path) -> list[Problem]:
    """Write every split of a data set of any layout as a COCO json: OUT/annotations/<split>.json; return the problems.

    Only usable records are written, under new ids; pictures are not decoded. file_name is the path below the data
    set's folder, and OUT/images a link to that, so that OUT is a data set for this program and others.

    click.ClickException when the path or its labels are unusable, or `out` holds anything.
    """
    layout = find_layout(path)
    reader = Reader(layout.root, str(path))
    splits = {name: reader.read(split) for name, split in layout.splits.items()}
    if faults(reader.problems) and not any(scan.objects for scans in splits.values() for scan in scans):
        reader.fail(preflight.NOTHING, str(layout.root.name))
    reader.stop()
    reader.keep_classes_met()
    output_dir(out, "name another --out")
    (out / "annotations").mkdir()
    for name, scans in splits.items():
        file = name if name in (TRAIN, VAL, TEST) else f"test_{name}" if name != LONE else "scans"
        write_json(out / "annotations" / f"{file}.json", truth(scans, reader.classes, layout.root), indent=None)
    try:
        (out / "images").symlink_to(layout.root.resolve(), target_is_directory=True)
    except OSError as error:
        raise click.ClickException(
            f"{out / 'images'}: cannot be made a link ({error.strerror}); copy the pictures of {layout.root} there"
        ) from None
    return reader.problems


def truth(scans: Iterable[Scan], classes: dict[int, str], root: Path | None = None) -> dict[str, Any]:
    """The scans as a COCO data set (a dict) under their unique ids; file names are paths below `root`, if given."""
    scans = list(scans)
    objects = [(scan.id, thing) for scan in scans for thing in scan.objects]
    return {
        "images": [
            {"id": scan.id, "width": scan.width, "height": scan.height, "file_name": name_below(scan.path, root)}
            for scan in scans
        ],
        "categories": [{"id": id, "name": name} for id, name in classes.items()],
        "annotations": [
            {
                **{"id": number, "image_id": image, "category_id": thing.category_id},
                **{"bbox": list(thing.box), "area": thing.area, "iscrowd": int(thing.crowd)},
                **({"ignore": 1} if thing.difficult else {}),
                **({"segmentation": thing.mask} if thing.mask else {}),
            }
            for number, (image, thing) in enumerate(objects, 1)
        ],
    }
