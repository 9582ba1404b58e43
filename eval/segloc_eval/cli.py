"""`segloc-eval`: options in, one call of `protocol.evaluate`, the report's path out."""

from pathlib import Path
from typing import NoReturn

import click

from segloc_eval.config import WIDTHS, Config, resolve_arms
from segloc_synth import console

EXAMPLES = """\b
Examples:
  segloc-eval --ckpt runs/a --ckpt random --data pidray --out eval --labels 200
  segloc-eval --ckpt runs/a/backbone.safetensors --ckpt imagenet --data scans.json --out eval
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="segloc", prog_name="segloc-eval")
@click.option(
    "--ckpt",
    "checkpoints",
    multiple=True,
    required=True,
    help="An arm: run folder of segloc-train, its backbone.pth or .safetensors, random, or imagenet. Repeat it.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="PIDray's folder, a COCO json, or a folder that holds one. Default: simulated scans (PhantomRay).",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for results and report.")
@click.option("--labels", default="200", help="Training scans, stratified by class and nested; or all.")
@click.option("--epochs", default=12, type=click.IntRange(1), help="Passes over the training scans.")
@click.option("--batch-size", default=8, type=click.IntRange(2, 1024), help="Scans per step.")
@click.option("--lr", default=5e-4, type=console.Finite(0, min_open=True), help="Peak learning rate (AdamW, cosine).")
@click.option("--size", default=128, type=click.IntRange(64, 2048), help="Longer side of a scan, in pixels.")
@click.option("--seed", default=0, type=click.IntRange(0, 2**32 - 1), help="Decides heads, scans, order and flips.")
@click.option("--arch", help="resnet18, 34, 50 or 101, where no checkpoint tells; else resnet18.")
@click.option(
    "--width", type=click.IntRange(*WIDTHS), help="Channels of the pyramid, where no checkpoint tells; else 64."
)
@click.option("--strict", is_flag=True, help="Stop at bad records in the data instead of leaving them out.")
@click.option(
    "--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), help="auto: a GPU where there is one."
)
def command(
    checkpoints: tuple[str, ...],
    data: Path | None,
    out: Path,
    labels: str,
    epochs: int,
    batch_size: int,
    lr: float,
    size: int,
    seed: int,
    arch: str | None,
    width: int | None,
    strict: bool,
    device: str,
) -> None:
    """Fine-tune a Cascade Mask R-CNN from each checkpoint under one recipe; compare COCO AP and AR.

    Boxes and masks are scored on every test split, and on all of them together; OUT/report.html shows the arms
    side by side. Data without masks are trained and scored with boxes only. Run again with the same options, it
    keeps the arms that are done.
    """
    if labels != "all" and not (labels.isascii() and labels.isdigit() and int(labels) > 0):
        raise click.UsageError(f"--labels {labels!r}: a number of scans above 0, or all")
    arms, arch, width = resolve_arms(checkpoints, arch, width)
    try:  # behind the checks, for these imports take seconds
        import torch

        from segloc_eval.protocol import evaluate
        from segloc_train.backbone import ARCHS
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed; pip install 'segloc[eval]'") from None
    if arch not in ARCHS:
        raise click.ClickException(f"arch {arch!r} is none of {', '.join(ARCHS)}")
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise click.ClickException("--device cuda: no CUDA device is available; use --device cpu")
    if data is None:
        from segloc_synth.phantom import default_phantom

        data = default_phantom(workers=console.cores()) / "pidray"
    config = Config(
        arms=arms,
        data=str(data.resolve()),
        labels=None if labels == "all" else int(labels),
        epochs=epochs,
        seed=seed,
        size=size,
        batch_size=batch_size,
        lr=lr,
        arch=arch,
        width=width,
    )
    report, problems = evaluate(config, out, torch.device("cuda" if cuda and device != "cpu" else "cpu"), strict)
    click.echo(report)
    for line in problems:
        click.echo(f"{config.data}: {line}", err=True)


def main() -> NoReturn:
    """Entry point of the console script."""
    console.run(command)
