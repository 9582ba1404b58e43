"""Command line of segloc-train."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from segloc_synth import console
from segloc_synth.console import Finite
from segloc_synth.files import output_dir, write_json

EPILOG = """\b
Examples:
  segloc-train --shards pairs --out run --arch resnet50 --epochs 30
  segloc-train --shards pairs --out run --arch resnet18 --width 64 --batch-size 32 --epochs 10
  segloc-train --resume run"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True}, epilog=EPILOG)
@click.option(
    "--shards",
    type=click.Path(path_type=Path),
    help="Folder that segloc-synth build wrote.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder to make.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on with this run, with its own settings, from where it stopped.",
)
@click.option(
    "--arch",
    type=click.Choice(["resnet18", "resnet34", "resnet50", "resnet101"]),
    default="resnet101",
    help="ResNet inside SDANet; the paper's is resnet101.",
)
@click.option(
    "--width",
    type=click.Choice(["256", "64"]),
    default="256",
    help="Channels of the feature pyramid: 256 as published, 64 for CPUs.",
)
@click.option("--epochs", type=click.IntRange(1), default=30, help="Passes over the pairs.")
@click.option("--batch-size", type=click.IntRange(1, 2**16), default=256, help="Pairs per step, a multiple of 16.")
@click.option(
    "--queue-size",
    type=click.IntRange(1, 2**22),
    show_default="a quarter of the pairs, at most 65536",
    help="K: negatives of each class's queue.",
)
@click.option(
    "--lr",
    type=Finite(0),
    default=0.03,
    help="Peak learning rate per 256 samples, scaled by batch size; 0 freezes the weights (a control).",
)
@click.option(
    "--momentum-key",
    type=Finite(0, 1),
    show_default="0.999, less for runs under 5.1 million samples",
    help="m of the key network per 256 samples.",
)
@click.option(
    "--temperature",
    type=Finite(0, min_open=True),
    default=0.2,
    help="Divides the cosine similarities.",
)
@click.option(
    "--augment",
    type=click.Choice(["mild", "none"]),
    default="mild",
    help="mild: flips, crops that keep the box, gain, noise.",
)
@click.option(
    "--bn-group",
    type=click.IntRange(1),
    show_default="at most 32, half a batch",
    help="Samples per batch statistic, at least 8.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Decides weights, order and draws.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=lambda: min(8, max(1, console.cores() // 2)),
    show_default="half the cores, at most 8",
    help="Processes that read and decode; 0: none beside the main one.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="auto: a GPU where there is one.",
)
@click.option(
    "--save-every",
    type=click.IntRange(0),
    default=0,
    help="Also keep the backbone as epoch_NNN.pt every so many epochs; 0: never.",
)
@click.option("--summary", is_flag=True, help="Print parameters, steps, m, K and memory, and stop.")
@click.version_option(package_name="segloc", prog_name="segloc-train")
@click.pass_context
def command(
    context: click.Context,
    out: Path | None,
    resume: Path | None,
    summary: bool,
    **options: Any,
) -> int:
    """Pretrain an SDANet backbone on the image pairs of SHARDS.

    Writes into OUT: config.json, log.jsonl, TensorBoard events, last.pt (to resume), and at the end the
    weights: backbone.pth and .safetensors (SDANet), resnet.pth (torchvision), detector_init.pth (mmdet),
    meta.json. Ctrl-C finishes the step, saves, and leaves a run that --resume continues exactly.
    """
    options["width"] = int(options["width"])
    if options["shards"] is not None:
        options["shards"] = str(options["shards"].resolve())
    given = {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if resume is None and options["shards"] is None:
        raise click.UsageError("--shards is missing: the folder that segloc-synth build wrote")
    if resume is None and out is None and not summary:
        raise click.UsageError("--out is missing: the run folder to make")
    if resume is not None and out is not None and out.resolve() != resume.resolve():
        raise click.ClickException(f"--out {out} contradicts --resume {resume}; a resumed run stays in its folder")

    from segloc_synth.shards import ShardReader
    from segloc_train import config as settings

    if resume is not None:
        if not resume.is_dir():
            raise click.ClickException(f"{resume}: no such run folder")
        config = settings.stored(resume / "config.json")
        config = settings.resumed(config, given, resume)
        reader = ShardReader(Path(config.shards))
        found = (len(reader), reader.manifest["config_hash"])
        if found != (config.samples, config.shards_hash):
            raise click.ClickException(
                f"{config.shards}: holds another build than {resume} began with "
                f"({found[0]} pairs, config {found[1][:12]}; then {config.samples}, {config.shards_hash[:12]})"
            )
    else:
        reader = ShardReader(Path(options["shards"]))
        config = settings.resolve(options, len(reader), reader.manifest["config_hash"])

    from segloc_train.data import image_size
    from segloc_train.summary import summary as describe

    for line in describe(config, len(reader.classes), image_size(reader)):
        click.echo(line, err=not summary)
    if summary:
        return 0

    from segloc_train.loop import pick_device, train

    pick_device(config.device)
    if resume is not None:
        folder = resume
    else:
        assert out is not None
        folder = output_dir(out, f"continue its run with --resume {out}, or name another folder")
        write_json(folder / "config.json", settings.as_json(config))
    return train(config, folder, reader)


def main() -> None:
    """Entry point of the console script."""
    console.run(command)
