"""The command `segloc-synth build`."""

from pathlib import Path

import click

from segloc_synth import bank, build, card, phantom, preview
from segloc_synth.backgrounds import read_benign
from segloc_synth.config import BLENDS, Blend, Config
from segloc_synth.console import Finite, cores
from segloc_synth.files import PathOrUrl, write_json
from segloc_synth.labelled import join
from segloc_synth.problems import Problem, describe, refuse
from segloc_synth.sources import read_labelled_all, read_mapping, read_names

PATH = PathOrUrl()


@click.command(
    "build",
    epilog="""\b
Examples:
  segloc-synth build --n 5000 --out pairs                  (simulated scans, nothing to download)
  segloc-synth build --objects pidray --backgrounds SIXray/JPEGImage --out pairs
""",
)
@click.option(
    "--n",
    type=click.IntRange(min=1),
    default=200_000,
    help="Pairs to make; a later build with more extends.",
)
@click.option(
    "--objects",
    "objects_paths",
    type=PATH,
    multiple=True,
    help="Labelled source: PIDray's folder (either release), a COCO json or a folder that holds one, or a folder with "
    "images/ and masks/ whose pixel values are class ids. VOC xml and OPIXray text files hold boxes only: they need "
    "--masks-from-boxes. May be given several times; classes are merged by name.  [default: PhantomRay]",
)
@click.option(
    "--backgrounds",
    "backgrounds_path",
    type=PATH,
    help="Benign source: a folder of scans, searched through (SIXray's P*.jpg positives are left out), an ImageSet csv "
    "of SIXray (rows without a positive label), or a text list of pictures beside it.  [default: PhantomRay]",
)
@click.option(
    "--classes",
    "classes_path",
    type=PATH,
    help='JSON file that names classes of --objects anew: {"their name": "our name", or null to leave the class out}. '
    "Classes that it does not name keep their names.",
)
@click.option(
    "--images",
    "images_path",
    type=PATH,
    help="Text file of scan names (file names, stems or paths, one a line): only their objects are used.",
)
@click.option(
    "--masks-from-boxes",
    is_flag=True,
    help="Where an object has a box and no mask, take the dark thing inside the box that stands out from its "
    "surroundings; objects that do not are left out. Names of such segments end in ~box.",
)
@click.option(
    "--allow-test",
    is_flag=True,
    help="Take sources that look like a test split: a json or list named test, folders easy, hard, hidden or test. "
    "Without it they are refused, since scores on scans that fed pretraining mean nothing.",
)
@click.option(
    "--out",
    type=PATH,
    required=True,
    help="Folder for shards, manifest, data card and contact sheet.",
)
@click.option(
    "--size",
    type=click.IntRange(32, 4096),
    default=256,
    help="Side of the square pictures, in pixels.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Same seed and sources, same bytes.")
@click.option("--workers", type=click.IntRange(min=1), default=cores(), help="Processes.")
@click.option("--shard-size", type=click.IntRange(1, 1_000_000), default=1000, help="Pairs in a shard.")
@click.option(
    "--blend",
    type=click.Choice(BLENDS),
    default="alpha",
    help="hard: replace. alpha: c * segment + (1 - c) * background. multiply: transmissions multiply.",
)
@click.option(
    "--coefficient",
    type=Finite(0, 1, min_open=True),
    nargs=2,
    default=(0.6, 0.95),
    metavar="LO HI",
    help="Range of the composition coefficient c, within (0, 1]; unused by hard.",
)
@click.option(
    "--scale",
    type=Finite(0.1, 10),
    nargs=2,
    default=(0.7, 1.4),
    metavar="LO HI",
    help="Range of the object's size relative to its own scan fitted to the canvas; at most 0.9 of the canvas.",
)
@click.option("--strict", is_flag=True, help="Stop at bad records in a source instead of leaving them out.")
def build_command(
    n: int,
    objects_paths: tuple[Path, ...],
    backgrounds_path: Path | None,
    classes_path: Path | None,
    images_path: Path | None,
    masks_from_boxes: bool,
    allow_test: bool,
    out: Path,
    size: int,
    seed: int,
    workers: int,
    shard_size: int,
    blend: Blend,
    coefficient: tuple[float, float],
    scale: tuple[float, float],
    strict: bool,
) -> None:
    """Build WebDataset shards of pairs; goes on where an earlier run of the same build stopped."""
    for name, (low, high) in (("--coefficient", coefficient), ("--scale", scale)):
        if low > high:
            raise click.BadParameter("LO must not exceed HI", param_hint=name)
    if bool(objects_paths) != (backgrounds_path is not None):
        raise click.UsageError("give both --objects and --backgrounds, or neither for simulated scans")
    if backgrounds_path is None:
        simulated = phantom.default_phantom(workers=workers)
        objects_paths, backgrounds_path = (simulated / "pidray",), simulated / "sixray"
    labelled = join(
        read_labelled_all(
            objects_paths,
            read_mapping(classes_path) if classes_path else None,
            read_names(images_path) if images_path else None,
            masks_from_boxes,
            allow_test,
        )
    )
    benign = read_benign(backgrounds_path, allow_test)
    objects_path = labelled.path
    if strict:
        refuse(labelled.problems, str(objects_path))
    config = Config(
        objects={"kind": labelled.kind, "fingerprint": labelled.fingerprint},
        backgrounds={"kind": "folder", "fingerprint": benign.fingerprint},
        size=size,
        seed=seed,
        shard_size=shard_size,
        blend=blend,
        coefficient=(1.0, 1.0) if blend == "hard" else coefficient,
        scale=scale,
    )
    build.check_output(out, config, n)  # before hours of preparation
    objects_bank, objects = bank.prepare_objects(labelled, size, workers)
    backgrounds_bank, backgrounds = bank.prepare_backgrounds(benign, size, workers)
    if strict:
        refuse(objects.problems, str(objects_path))
        refuse(backgrounds.problems, str(backgrounds_path))
    manifest = build.build(config, objects_bank, backgrounds_bank, out, n, workers)
    preview.write_contact_sheet(out, out / "preview.png")
    card.write_card(out, manifest)
    found = {"objects": labelled.problems + objects.problems, "backgrounds": benign.problems + backgrounds.problems}
    write_json(out / "problems.json", {of: [problem.as_dict() for problem in found[of]] for of in found})
    _report(objects_path, found["objects"])
    _report(backgrounds_path, found["backgrounds"])
    for kind, count in manifest["totals"]["problems"].items():
        click.echo(f"{out}: {count} views: {kind}", err=True)
    click.echo(
        f"{n} pairs of {len(manifest['classes'])} classes, from {len(objects)} segments and {len(backgrounds)} "
        f"benign scans, in {out}; look at {out / 'preview.png'}",
        err=True,
    )


def _report(source: Path, problems: list[Problem]) -> None:
    """The problems by kind, with the first few records; all of them stand in problems.json."""
    for line in describe(problems):
        click.echo(f"{source}: {line}", err=True)
