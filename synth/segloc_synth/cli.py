"""The command line of segloc-synth."""

import json
from pathlib import Path
from typing import Any

import click

from segloc_synth import check, phantom
from segloc_synth.builds import build, pipeline, verify
from segloc_synth.cli_build import TRUST, build_command, source_options
from segloc_synth.console import cores, run
from segloc_synth.files import PathOrUrl, json_bytes
from segloc_synth.look import export, gallery, preview
from segloc_synth.realism import probe

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
@TRUST
@WORKERS
def check_command(
    path: Path,
    backgrounds: bool,
    as_json: bool,
    allow_test: bool,
    masks_from_boxes: bool,
    min_trust: float,
    workers: int,
) -> None:
    """List all that is wrong with the data set at PATH, by kind, with counts and the first records.

    PATH is what `build` takes as --objects or --backgrounds; which of them is found out. Every picture and mask is
    decoded. Records are "used" all the same, "skipped" by build, or just "noted". Exit code 0 when none is skipped,
    1 otherwise; crowds, scans that a data set gives to its test split and masks of little trust are skipped by design
    and count as fine.
    """
    report = check.check(path, backgrounds, allow_test, masks_from_boxes, workers, min_trust)
    if as_json:
        click.echo(json_bytes(report.as_dict()).decode(), nl=False)
    else:
        click.echo("\n".join(report.lines()))
    if not report.fine:
        raise click.exceptions.Exit(1)


@cli.command("preview")
@click.argument("folder", type=PATH)
@click.option("--html", is_flag=True, help="A gallery with filters and the provenance of each picture, in one file.")
@click.option("--out", type=PATH, help="File to write.  [default: preview.png or gallery.html in FOLDER]")
@click.option(
    "--pairs",
    type=click.IntRange(1, 1000),
    help=f"Pairs to show, spread over the build.  [default: {preview.PAIRS}, in a gallery {gallery.PAIRS}]",
)
def preview_command(folder: Path, html: bool, out: Path | None, pairs: int | None) -> None:
    """Show pairs of the build in FOLDER with mask outlines, boxes and class names.

    Draws a contact sheet as PNG, or with --html a gallery that opens from disk in any browser.
    """
    target = out or folder / ("gallery.html" if html else "preview.png")
    if html:
        gallery.write_gallery(folder, target, pairs or gallery.PAIRS)
    else:
        preview.write_contact_sheet(folder, target, pairs or preview.PAIRS)
    click.echo(str(target))


@cli.command("verify")
@click.argument("folder", type=PATH)
@click.option("--repair", is_flag=True, help="Make what is wrong anew, from the sources of the build.")
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@WORKERS
def verify_command(folder: Path, repair: bool, as_json: bool, workers: int, **source: Any) -> None:
    """Read all of the finished build in FOLDER and name every missing, short or altered shard, and every sidecar, page
    or manifest that does not agree. Exit 0 if nothing is wrong or --repair mended it, else 1."""
    config, layout, about, found = verify.verify(folder, workers)
    findings = []
    for finding in found:
        findings.append(finding)
        if not as_json:
            click.echo(f"{folder / finding.file}: {finding.problem}")
    if repair and findings:
        if build.outgrown(folder, layout):
            raise click.ClickException(
                f"{folder}: a larger build was begun in it; run the same segloc-synth build again with its larger --n"
            )
        needed = (
            "--repair needs the --objects, --backgrounds, --classes, --images, --masks-from-boxes and --min-trust "
            "of the build"
        )
        if not source["objects"] and "--objects" in about["command"]:  # before minutes of simulation
            raise click.ClickException(f"{folder}: was made by {about['command']}; {needed}")
        sources = pipeline.read_sources(**source, workers=workers)
        for mine, theirs, path in (
            (sources.objects, config.objects, sources.labelled[0].path),
            (sources.backgrounds, config.backgrounds, sources.benign.path),
        ):
            if mine != theirs:
                raise click.ClickException(
                    f"{path}: is not the source that {folder} was built from, or has changed since; {needed}"
                )
        verify.forget(folder, config, layout, findings)
        pipeline.make(config, sources, folder, layout.samples, workers, **about)
    if as_json:
        wrong = [finding.as_dict() for finding in findings]
        click.echo(json_bytes({"shards": layout.shards, "samples": layout.samples, "wrong": wrong}).decode(), nl=False)
    else:
        anew = "made anew" if repair else "--repair makes them anew from the build's sources"
        remedy = f"; {anew}" if findings else ""
        click.echo(f"{folder}: {layout.shards} shards read, {len(findings)} findings{remedy}", err=True)
    if findings and not repair:
        click.get_current_context().exit(1)


@cli.command("export")
@click.argument("folder", type=PATH)
@click.option(
    "--coco",
    type=PATH,
    required=True,
    help="New folder on a local disk; gets images/ and annotations.json.",
)
@click.option(
    "--view",
    type=click.Choice([*export.VIEWS, "both"]),
    default="both",
    help="Which picture of each pair. Both show the same object: keep them on one side of a split.",
)
@click.option("--n", type=click.IntRange(min=1), help="Only the first pairs.  [default: all]")
def export_command(folder: Path, coco: Path, view: str, n: int | None) -> None:
    """Write the composites of the build in FOLDER as a COCO detection data set, with all objects, boxes and masks.

    The pictures are the shards' own JPEG files. Each image record names its background scan and segment, so that
    a split can keep scans of one bag together.
    """
    if "://" in str(coco):
        raise click.BadParameter("takes a local folder; copy it to the store afterwards", param_hint="--coco")
    views = export.VIEWS if view == "both" else (view,)
    count = export.export_coco(folder, coco, views, n)
    click.echo(f"{count} images in {coco / 'images'}, their objects in {coco / 'annotations.json'}", err=True)


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
