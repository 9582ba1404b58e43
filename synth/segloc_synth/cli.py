"""The command line of segloc-synth."""

from pathlib import Path

import click

from segloc_synth import check, phantom, preview
from segloc_synth.cli_build import build_command
from segloc_synth.console import cores, run
from segloc_synth.files import PathOrUrl, json_bytes

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}
PATH = PathOrUrl()
WORKERS = click.option("--workers", type=click.IntRange(min=1), default=cores(), help="Processes.")


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="segloc", prog_name="segloc-synth", message="%(prog)s %(version)s")
def cli() -> None:
    """Make image pairs for contrastive pretraining: labelled segments projected onto benign X-ray scans."""


cli.add_command(build_command)


@cli.command("check")
@click.argument("path", type=PATH)
@click.option("--backgrounds", is_flag=True, help="Check a benign source, also where labels lie beside the pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, with every record.")
@click.option("--allow-test", is_flag=True, help="Check a test split too, which build refuses.")
@click.option("--masks-from-boxes", is_flag=True, help="Derive masks for objects with boxes only, as build would.")
@WORKERS
def check_command(
    path: Path, backgrounds: bool, as_json: bool, allow_test: bool, masks_from_boxes: bool, workers: int
) -> None:
    """List all that is wrong with the data set at PATH, by kind, with counts and the first records.

    PATH is what `build` takes as --objects or --backgrounds; which of them is found out. Every picture and mask is
    decoded. Records are "used" all the same, "skipped" by build, or just "noted". Exit code 0 when none is skipped,
    1 otherwise; crowds and scans that a data set gives to its test split are skipped by design and count as fine.
    """
    report = check.check(path, backgrounds, allow_test, masks_from_boxes, workers)
    if as_json:
        click.echo(json_bytes(report.as_dict()).decode(), nl=False)
    else:
        click.echo("\n".join(report.lines()))
    if not report.fine:
        raise click.exceptions.Exit(1)


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


def main() -> None:
    """Entry point of the console script."""
    run(cli)
