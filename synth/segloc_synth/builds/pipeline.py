"""Everything a build does, from its sources to the finished folder: bank, shards, contact sheet, data card."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from segloc_synth import phantom
from segloc_synth.bank import prepare
from segloc_synth.bank.labelled import LabelledSource
from segloc_synth.bank.merging import read_labelled_all, read_mapping, read_names
from segloc_synth.builds import build
from segloc_synth.config import Config
from segloc_synth.files import write_json
from segloc_synth.look import card, preview
from segloc_synth.sources.backgrounds import BenignSource, read_benign
from segloc_synth.sources.problems import describe, refuse


@dataclass(frozen=True)
class Sources:
    """What a build is made from: labelled sources, whose classes are merged, and one benign source."""

    labelled: list[LabelledSource]
    benign: BenignSource

    @property
    def objects(self) -> dict[str, str]:
        """Kind and fingerprint of the labelled sources together."""
        if len(self.labelled) == 1:
            return {"kind": self.labelled[0].kind, "fingerprint": self.labelled[0].fingerprint}
        prints = "".join(source.fingerprint for source in self.labelled)
        kinds = " + ".join(source.kind for source in self.labelled)
        return {"kind": kinds, "fingerprint": hashlib.sha256(prints.encode()).hexdigest()}

    @property
    def backgrounds(self) -> dict[str, str]:
        """Kind and fingerprint of the benign source."""
        return {"kind": "folder", "fingerprint": self.benign.fingerprint}


def read_sources(
    objects: Sequence[Path],
    backgrounds: Path | None,
    classes: Path | None,
    images: Path | None,
    masks_from_boxes: bool,
    min_trust: float,
    allow_test: bool,
    workers: int,
) -> Sources:
    """The sources that a command line names, PhantomRay's where it names none; see the options' help."""
    if bool(objects) != (backgrounds is not None):
        raise click.UsageError("give both --objects and --backgrounds, or neither for simulated scans")
    if backgrounds is None:
        simulated = phantom.default_phantom(workers=workers)
        objects, backgrounds = (simulated / "pidray",), simulated / "sixray"
    mapping, names = read_mapping(classes) if classes else None, read_names(images) if images else None
    labelled = read_labelled_all(objects, mapping, names, masks_from_boxes, allow_test, min_trust)
    return Sources(labelled, read_benign(backgrounds, allow_test))


def make(
    config: Config,
    sources: Sources,
    out: Path,
    n: int,
    workers: int,
    command: str,
    licences: Sequence[str] = (),
    engine: build.Engine = "local",
    part: tuple[int, int] = (1, 1),
    strict: bool = False,
) -> None:
    """Build samples 0..n-1 of a config into `out`, and what goes with them.

    command, licences: noted in the manifest and the data card. strict: bad records in the sources stop the build.
    """
    noted = [problem for source in sources.labelled for problem in source.problems] + sources.benign.problems
    if strict:
        for source in sources.labelled:
            refuse(source.problems, str(source.path))
        refuse(sources.benign.problems, str(sources.benign.path))
    build.check_output(out, config, n)  # before minutes of preparation
    objects_bank, objects = prepare.prepare_objects(sources.labelled, config.size, workers)
    if strict:
        for source, found in zip(sources.labelled, objects.found, strict=True):
            refuse(found, str(source.path))
    benign = sources.benign
    backgrounds_bank, backgrounds = prepare.prepare_backgrounds(benign, config.size, config.bank, workers)
    look_alikes = None
    if config.distractors:
        look_alikes, cut = prepare.prepare_distractors(benign, config.size, workers)
        if not len(cut):
            click.echo(f"{benign.path}: nothing in its scans stands out as a look-alike; there are none", err=True)
    job = build.Job(config, objects_bank, backgrounds_bank, benign.path, look_alikes, out, strict)
    about: dict[str, Any] = {"command": command, "licences": list(licences)}
    manifest = build.build(job, n, workers, about, engine, part)
    if manifest is None:
        there = build.missing(out, config, n)
        click.echo(f"{out}: part {part[0]}/{part[1]} is done; {there}, run the other parts", err=True)
        return
    problems = noted + objects.problems
    with build.resumable(out, range(1), workers):
        preview.write_contact_sheet(out, out / "preview.png")
        card.write_card(out, manifest)
        write_json(out / "problems.json", [problem.as_dict() for problem in problems])
    for line in describe(problems):
        click.echo(line, err=True)
    for kind, met in manifest["totals"]["problems"].items():
        click.echo(f"{out}: {met['count']} views: {kind}: {', '.join(met['first'])}", err=True)
    click.echo(
        f"{n} pairs of {len(manifest['classes'])} classes, from {len(objects)} segments and {len(backgrounds)} "
        f"benign scans, in {out}; look at {out / 'preview.png'}",
        err=True,
    )
