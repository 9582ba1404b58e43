"""Everything a build does, from its sources to the finished folder: bank, shards, contact sheet, data card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from segloc_synth import bank, build, card, phantom, preview
from segloc_synth.backgrounds import BenignSource, read_benign
from segloc_synth.coco import LabelledSource, read_labelled
from segloc_synth.config import Config
from segloc_synth.files import write_json
from segloc_synth.problems import describe, refuse


def read_sources(
    objects_path: Path | None, backgrounds_path: Path | None, workers: int
) -> tuple[LabelledSource, BenignSource]:
    """The labelled and the benign source of a command line, PhantomRay's where it names none."""
    if (objects_path is None) != (backgrounds_path is None):
        raise click.UsageError("give both --objects and --backgrounds, or neither for simulated scans")
    if objects_path is None or backgrounds_path is None:
        simulated = phantom.default_phantom(workers=workers)
        objects_path, backgrounds_path = simulated / "pidray", simulated / "sixray"
    return read_labelled(objects_path), read_benign(backgrounds_path)


def make(
    config: Config,
    labelled: LabelledSource,
    benign: BenignSource,
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
    if strict:
        refuse(labelled.problems, str(labelled.path))
    build.check_output(out, config, n)  # before minutes of preparation
    objects_bank, objects = bank.prepare_objects(labelled, config.size, workers)
    if strict:
        refuse(objects.problems, str(labelled.path))
    backgrounds_bank, backgrounds = bank.prepare_backgrounds(benign, config.size, config.bank, workers)
    look_alikes = bank.prepare_distractors(benign, config.size, workers)[0] if config.distractors else None
    job = build.Job(config, objects_bank, backgrounds_bank, benign.path, look_alikes, out, strict)
    about: dict[str, Any] = {"command": command, "licences": list(licences)}
    manifest = build.build(job, n, workers, about, engine, part)
    if manifest is None:
        there = build.missing(out, config, n)
        click.echo(f"{out}: part {part[0]}/{part[1]} is done; {there}, run the other parts", err=True)
        return
    found = labelled.problems + objects.problems
    with build.resumable(out, range(1), workers):
        preview.write_contact_sheet(out, out / "preview.png")
        card.write_card(out, manifest)
        write_json(out / "problems.json", {"objects": [problem.as_dict() for problem in found]})
    for line in describe(found):
        click.echo(f"{labelled.path}: {line}", err=True)
    for kind, met in manifest["totals"]["problems"].items():
        click.echo(f"{out}: {met['count']} views: {kind}: {', '.join(met['first'])}", err=True)
    click.echo(
        f"{n} pairs of {len(manifest['classes'])} classes, from {len(objects)} segments and {len(backgrounds)} "
        f"benign scans, in {out}; look at {out / 'preview.png'}",
        err=True,
    )
