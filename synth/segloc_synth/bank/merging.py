"""Several labelled sources together: classes merged by name, scans chosen by lists."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import click

from segloc_synth.bank.labelled import MIN_TRUST, LabelledSource, read_labelled, with_classes
from segloc_synth.files import absolute, read_json
from segloc_synth.sources.listing import reaching
from segloc_synth.sources.lists import in_common, parted
from segloc_synth.sources.records import ClassIds
from segloc_synth.sources.text import read_entries
from segloc_synth.sources.values import is_text


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
        names = read_entries(path, errors="surrogateescape")
    if not names:
        raise click.ClickException(f"{path}: names no scan")
    return names


def merge_classes(sources: Sequence[LabelledSource], mapping: Mapping[str, str | None] | None) -> list[LabelledSource]:
    """The sources with one set of class ids. `mapping` (their name -> our name, None leaves the class out) names
    classes anew; names that it lacks stay, but not the numbers that stand for names where two sources have such: they
    mean no class then. Scans that lose all annotations are left out.

    click.ClickException when a name in `mapping` is in no source, or when two sources have classes without names and
    it names none.
    """
    theirs = {name.casefold(): name for source in sources for name in source.classes.values()}
    ours = {name.strip().casefold(): new for name, new in (mapping or {}).items()}
    unknown = [name for name in mapping or {} if name.strip().casefold() not in theirs]
    if unknown:
        names = [name for source in sources for id, name in source.classes.items() if id not in source.unnamed]
        have = sorted({name.strip() for name in names}) or ["class 1, class 2, ... (no names are given)"]
        raise click.ClickException(f"--classes: no class {unknown[0]!r} in the sources, which have: {', '.join(have)}")
    nameless = [source for source in sources if source.unnamed]
    if len(nameless) > 1 and not any(s.classes[id].casefold() in ours for s in nameless for id in s.unnamed):
        raise click.ClickException(
            f"{nameless[0].path} and {nameless[1].path}: classes without names cannot be merged; "
            "add a classes.txt beside the masks, or name them with --classes"
        )
    ids = ClassIds()
    return [_renamed(source, ours, ids, numbers=len(nameless) < 2) for source in sources]


def _renamed(source: LabelledSource, ours: Mapping[str, str | None], ids: ClassIds, numbers: bool) -> LabelledSource:
    """`numbers`: classes without names keep theirs where `ours` names them not either."""
    new_id: dict[int, int | None] = {}
    for old, name in source.classes.items():
        if old in source.unnamed and not numbers and name.casefold() not in ours:
            continue
        new = ours.get(name.casefold(), name)
        new_id[old] = None if new is None else ids.id_of(new)
    classes = {new: ids.names[new] for new in new_id.values() if new is not None}
    if all(old == new for old, new in new_id.items()) and classes == source.classes:
        return source
    scans = [with_classes(scan, new_id) for scan in source.scans]
    return replace(
        source,
        scans=[scan for scan in scans if scan.annotations or (scan.mask and scan.mask.class_of)],
        classes=classes,
        fingerprint=source.changed([[old, new, classes.get(new or 0)] for old, new in new_id.items()]),
        unnamed=frozenset(),
    )


def prefixed(sources: Sequence[LabelledSource]) -> list[LabelledSource]:
    """The sources; where there are several, with scan names that begin with the source's folder: names stay unique.

    click.ClickException when a source is given twice.
    """
    if len(sources) == 1:
        return list(sources)
    made: list[LabelledSource] = []
    taken: set[str] = set()
    for place, source in enumerate(sources):
        if source.fingerprint in {earlier.fingerprint for earlier in sources[:place]}:
            raise click.ClickException(f"{source.path}: the same data are given twice as --objects")
        folder = source.path.parent if source.path.suffix.lower() == ".json" else source.path
        folder = folder.parent if folder.name == "annotations" else folder
        name = folder.name or "source"
        prefix = next(p for p in (name, *(f"{name}-{n}" for n in range(2, len(sources) + 2))) if p not in taken)
        taken.add(prefix)
        scans = [replace(scan, name=f"{prefix}/{scan.name}") for scan in source.scans]
        made.append(replace(source, scans=scans, fingerprint=source.changed(prefix)))
    return made


def limit_all(sources: Sequence[LabelledSource], names: Iterable[str]) -> list[LabelledSource]:
    """The sources with the objects of the named scans only; a source of which nothing is named is left out.

    A name is a scan's name, its stem, file name or path, relative or not: the shorter of the two must be the end of
    the longer, and where both have an extension it must be the same. All scans that fit are kept, of several sources
    those whose path it tells most of; a name may be that of a picture without objects.

    click.ClickException for the first name that fits no scan, and when no scan is left.
    """
    by_stem: dict[str, list[tuple[int, int, tuple[str, ...], str, Path]]] = {}
    for which, source in enumerate(sources):
        for place, scan in enumerate(source.scans):
            for parts, extension in {(PurePosixPath(scan.name).parts, ""), parted(scan.name)}:
                by_stem.setdefault(parts[-1], []).append((which, place, parts, extension, scan.path))
        for other in source.others:
            parts, _ = parted(str(other))
            by_stem.setdefault(parts[-1], []).append((which, -1, parts, "", other))
    kept: set[tuple[int, int]] = set()  # places of a source and of a scan in it
    for name in names:
        parts, extension = parted(name.replace("\\", "/"))
        fits = [
            (which, place, path)
            for which, place, own, its, path in by_stem.get(parts[-1] if parts else "", [])
            if in_common(own[::-1], parts[::-1]) == min(len(own), len(parts))
            and (not (its and extension) or its == extension)
        ]
        if not fits:
            raise click.ClickException(f"--images: no scan {name!r} in {', '.join(str(s.path) for s in sources)}")
        if len({which for which, _, _ in fits}) > 1:  # a path tells which source is meant
            shared = [in_common(parts[::-1], parted(str(absolute(path)))[0][::-1]) for _, _, path in fits]
            fits = [fit for fit, count in zip(fits, shared, strict=True) if count == max(shared)]
        kept |= {(which, place) for which, place, _ in fits}
    limited = []
    for which, source in enumerate(sources):
        scans = [scan for place, scan in enumerate(source.scans) if (which, place) in kept]
        if scans:
            limited.append(replace(source, scans=scans, fingerprint=source.changed([scan.name for scan in scans])))
    if not limited:
        raise click.ClickException("--images: none of the scans in the list has a labelled object")
    return limited
