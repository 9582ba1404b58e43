"""The command line of segloc-synth."""

import json
from pathlib import Path

import click

from segloc_synth import phantom, preview, probe
from segloc_synth.cli_build import build_command
from segloc_synth.console import cores, run
from segloc_synth.files import PathOrUrl

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}
PATH = PathOrUrl()
WORKERS = click.option("--workers", type=click.IntRange(min=1), default=cores(), help="Processes.")


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="segloc", prog_name="segloc-synth", message="%(prog)s %(version)s")
def cli() -> None:
    """Make image pairs for contrastive pretraining: labelled segments projected onto benign X-ray scans."""


cli.add_command(build_command)


@cli.command("preview")
@click.argument("folder", type=PATH)
@click.option("--out", type=PATH, help="PNG to write.  [default: FOLDER/preview.png]")
@click.option(
    "--pairs",
    type=click.IntRange(1, 300),
    default=preview.PAIRS,
    help="Pairs to draw, spread over the build.",
)
def preview_command(folder: Path, out: Path | None, pairs: int) -> None:
    """Draw a contact sheet of the pairs in FOLDER, with mask outlines, boxes and class names."""
    target = out or folder / "preview.png"
    preview.write_contact_sheet(folder, target, pairs)
    click.echo(str(target))


@cli.command("phantom")
@click.option("--out", type=PATH, required=True, help="New folder; gets pidray/ and sixray/.")
@click.option(
    "--images",
    type=click.IntRange(4, 99_999),
    default=1500,
    help="Labelled scans: 64 % train, 12 % each easy, hard, hidden.",
)
@click.option("--backgrounds", type=click.IntRange(2, 9_999_999), default=1000, help="Benign scans.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Same seed, same scans.")
@click.option("--size", type=click.IntRange(64, 2048), default=256, help="Longer side of a scan, in pixels.")
@WORKERS
def phantom_command(out: Path, images: int, backgrounds: int, seed: int, size: int, workers: int) -> None:
    """Simulate PhantomRay: labelled scans in PIDray's layout, benign ones in SIXray's, on two scanner models."""
    phantom.write_phantom(out, images, backgrounds, seed, size, workers)
    click.echo(f"{images} labelled scans in {out / 'pidray'}, {backgrounds} benign ones in {out / 'sixray'}", err=True)


@cli.command("probe")
@click.argument("folder", type=PATH)
@click.option(
    "--real",
    type=PATH,
    help="Labelled source with masks, of the backgrounds' scanner: its objects are really inside.",
)
@click.option("--limit", type=click.IntRange(20), default=1500, help="Most composites to look at.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def probe_command(folder: Path, real: Path | None, limit: int, as_json: bool) -> None:
    """Measure how well a linear model tells the composites of FOLDER from real scans: AUC, 0.5 is perfect.

    "which region" asks which of two boxes in one composite holds the object. Real objects can be found too: --real
    shows the same figure for real scans. With --real, composites are also told from real objects of the same classes
    and sizes, and real objects from each other, which must yield 0.5 within its interval.
    """
    results = probe.probe(folder, real, limit)
    for line in [json.dumps(probe.as_dict(results), indent=1)] if as_json else probe.table(results):
        click.echo(line)


def main() -> None:
    """Entry point of the console script."""
    run(cli)
