"""`segloc-eval`: options in, one call of the module that does the work, a path out."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from segloc_eval.config import Config, resolve_arms, resolve_given
from segloc_eval.options import DEVICE, ON, OUT, changed_recipe, recipe_options
from segloc_synth import console
from segloc_synth.files import PathOrUrl, absolute, read_json

EXAMPLES = """\b
Examples:
  segloc-eval --ckpt runs/a --ckpt random --data pidray --out eval --labels 1% --labels 10%
  segloc-eval --ckpt runs/a/backbone.safetensors --ckpt imagenet --data scans.json --out eval --recipe paper
  segloc-eval --eval-only --ckpt eval/a/200/seed-0/detector.pth --data others.json --out scores
  segloc-eval predict --ckpt eval/a/200/seed-0 scans/ --out found
  segloc-eval pretrain pairs --out first --samples 24000
  segloc-eval export eval/a/200/seed-0 --onnx detector.onnx
  segloc-eval report eval other_eval --out both
"""


@contextmanager
def installed() -> Iterator[None]:
    """For imports of what the eval extra holds: one line where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed; pip install 'segloc[eval]'") from None


def tell(source: str | Path, lines: Iterable[str]) -> None:
    """What is wrong with the records of `source`, on stderr."""
    for line in lines:
        click.echo(f"{source}: {line}", err=True)


def show(report: Path) -> None:
    """What an evaluation found, on stderr, and on stdout where its report lies."""
    from segloc_eval.report import screen
    from segloc_eval.report.view import View

    screen.show(View(read_json(report.with_name("metrics.json"))), sys.stderr)
    click.echo(report)


class Main(click.Group):
    """A group whose command `run` needs no name: `segloc-eval --ckpt ...` is `segloc-eval run --ckpt ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        of_run = args and args[0].startswith("-") and args[0] not in ("-h", "--help", "--version")
        return super().parse_args(ctx, ["run", *args] if of_run else args)


@click.group(cls=Main, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="segloc", prog_name="segloc-eval", message="%(prog)s %(version)s")
def command() -> None:
    """Fine-tune detectors from several initialisations under one recipe, score them, and say which start pays.

    Without the name of a command, `run` is meant: segloc-eval --ckpt ... (its options: segloc-eval run --help).
    """


@command.command("run", short_help="Fine-tune from each checkpoint, compare, report.")
@click.option(
    "--ckpt",
    "checkpoints",
    multiple=True,
    required=True,
    help="An arm: run folder of segloc-train, its backbone.pth or .safetensors, a trunk's weights from torchvision or "
    "timm, a detector.pth of segloc-eval or a folder with one (of pretrain, say), random, or imagenet. Repeat it.",
)
@click.option(
    "--data",
    type=PathOrUrl(),
    help="A folder of PIDray, COCO, class-id masks, VOC, OPIXray or YOLO, a COCO json or a YOLO yaml. Default: "
    "simulated scans (PhantomRay).",
)
@OUT
@click.option(
    "--labels",
    multiple=True,
    default=["200"],
    help="Labelled scans to train on: a number, a share such as 10%, or all. Stratified by class, smaller sets lie "
    "inside larger ones. Repeat it for a curve.",
)
@click.option("--seeds", default=3, type=click.IntRange(1, 100), help="Fine-tunings per arm and label set.")
@click.option(
    "--seed",
    default=0,
    type=click.IntRange(0, 2**31 - 1),
    help="First of the fine-tunings' seeds (heads, order, flips); also decides which scans are labelled.",
)
@ON
@click.option(
    "--mix",
    type=PathOrUrl(),
    help="A folder of segloc-synth: its composites are a part of every batch. The arms are then others than those "
    "without, and may join these in the same --out.",
)
@click.option("--mix-share", type=console.Finite(0, 1, min_open=True), help="How large a part; half without it.")
@click.option(
    "--copy-paste", is_flag=True, help="Paste up to three objects of other labelled scans onto each labelled scan."
)
@click.option(
    "--benign",
    type=PathOrUrl(),
    help="Scans that hold no object, as segloc-synth's --backgrounds takes them: an eighth of every batch.",
)
@click.option(
    "--judge-benign",
    type=PathOrUrl(),
    help="Others of that kind, to count false alarms on; `segloc-eval labels --benign` cuts them apart.",
)
@recipe_options
@click.option(
    "--eval-only",
    is_flag=True,
    help="Train nothing: each --ckpt is a fine-tuned detector.pth, a folder of one or of results, or a results json. "
    "Data without splits are scored whole.",
)
@click.option("--strict", is_flag=True, help="Stop at bad records in the data instead of leaving them out.")
@DEVICE
def run(
    checkpoints: tuple[str, ...],
    data: Path | None,
    out: Path,
    labels: tuple[str, ...],
    seeds: int,
    seed: int,
    on: Literal["test", "val"],
    mix: Path | None,
    mix_share: float | None,
    copy_paste: bool,
    benign: Path | None,
    judge_benign: Path | None,
    detector: str,
    recipe: str,
    arch: str | None,
    width: int | None,
    eval_only: bool,
    strict: bool,
    device: str,
    **changes: Any,
) -> int:
    """Fine-tune a detector from each checkpoint under one recipe; compare COCO AP and AR, with intervals.

    Every test split is scored alone, and overall both ways: as mean of the splits and pooled. OUT/report.html says
    which start pays. Run again with the same options, it keeps what is done and goes on with what was interrupted.
    """
    told: dict[str, Any] = {}
    from segloc_eval.data.beside import fingerprint_judged, resolve_beside

    judged = fingerprint_judged(judge_benign) if judge_benign else ""
    if eval_only:
        if mix or benign or copy_paste:
            raise click.UsageError("--eval-only trains nothing, so --mix, --copy-paste and --benign have no use")
        arms, labels, seeds = resolve_given(checkpoints), (), 1
    else:
        if mix_share is not None and mix is None:
            raise click.UsageError("--mix-share is of --mix; name the composites")
        beside = resolve_beside(mix, 0.5 if mix_share is None else mix_share, copy_paste, benign)
        arms, told = resolve_arms(checkpoints, arch, width, beside)
    with installed():  # behind the checks, for these imports take seconds
        from segloc_eval.data.splits import label_slug
        from segloc_eval.run.joining import accept_out
        from segloc_eval.run.protocol import evaluate
        from segloc_train.dist import joined, local_device

        chosen = changed_recipe(recipe, told, changes)
    where = local_device(device)
    accept_out(out)
    for text in labels:
        label_slug(text)
    if data is None:  # behind the checks too, for simulating takes minutes
        from segloc_synth.phantom import default_phantom

        data = default_phantom(workers=console.cores()) / "pidray"
    config = Config(
        arms=arms,
        data=str(absolute(data)),
        labels=tuple(dict.fromkeys(labels)),
        on=on,
        detector=detector,
        seed=seed,
        seeds=seeds,
        judge=str(absolute(judge_benign)) if judge_benign else "",
        judged=judged,
        given=eval_only,
        recipe=chosen,
    )
    with joined(where) as world:
        report, problems, failed = evaluate(config, out, where, world, strict)
        if world.first:
            show(report)
            tell(config.data, problems)
            if failed:
                click.echo(f"{failed} fine-tuning(s) failed, see above; the same command tries them again", err=True)
    return 3 if failed else 0


@command.command("pretrain", short_help="Learn to detect on a build's composites.")
@click.argument("pairs", type=PathOrUrl())
@OUT
@click.option("--ckpt", default="random", help="What to start from, as for run.")
@click.option("--seed", default=0, type=click.IntRange(0, 2**31 - 1), help="Of heads, order and flips.")
@recipe_options
@DEVICE
def pretrain(
    pairs: Path,
    out: Path,
    ckpt: str,
    seed: int,
    detector: str,
    recipe: str,
    arch: str | None,
    width: int | None,
    device: str,
    **changes: Any,
) -> None:
    """Learn to detect on the composites of PAIRS, a folder of segloc-synth: both pictures of every pair.

    OUT is then a start: segloc-eval --ckpt OUT --data DATA fine-tunes the whole detector, heads included, on labelled
    scans. Run again with the same options, it goes on with what was interrupted. Without --samples or --epochs it sees
    every composite once. The pictures that it learns from lie in OUT/composites, and may be deleted when it is done.
    """
    if changes["samples"] is None:
        changes["epochs"] = changes["epochs"] or 1
    (arm,), told = resolve_arms((ckpt,), arch, width)
    with installed():
        from segloc_eval.data.preflight import describe
        from segloc_eval.run.composites import learn_composites
        from segloc_train.dist import joined, local_device

        chosen = changed_recipe(recipe, told, changes)
    where = local_device(device)
    with joined(where) as world:
        problems = learn_composites(pairs, arm, chosen, detector, seed, out, world, where)
        if world.first:
            click.echo(out)
            tell(pairs, describe(problems))


@command.command("predict", short_help="Find objects in any scans.")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--ckpt", required=True, type=click.Path(path_type=Path), help="A detector.pth, or the folder it is in.")
@OUT
@DEVICE
def predict(images: tuple[Path, ...], ckpt: Path, out: Path, device: str) -> int:
    """Find objects in any scans: IMAGES are files, or folders with them.

    Writes COCO results (results.bbox.json and the like), images.json (which id is which file) and, in pictures/, every
    scan with what was found in it. The exit code is 3 where a picture is left out.
    """
    with installed():
        from segloc_eval.run.detect import predict_folder
        from segloc_synth.sources.problems import describe, faults
        from segloc_train.dist import local_device
    problems = predict_folder(ckpt, images, out, local_device(device))
    click.echo(out)
    for line in describe(problems):
        click.echo(line, err=True)
    return 3 if faults(problems) else 0


@command.command("export", short_help="Write a detector for onnxruntime.")
@click.argument("detector", type=click.Path(path_type=Path))
@click.option("--onnx", "file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
def export(detector: Path, file: Path) -> None:
    """Write DETECTOR, a detector.pth or its folder, as one ONNX graph: docs/ONNX.md shows how to run it.

    Resizing, and nothing else, is left to who runs it; neither torch nor mmdet is needed there.
    """
    with installed():
        from segloc_eval.mm.export import write_onnx
    write_onnx(detector, file)
    click.echo(file)


@command.command("report", short_help="Merge evaluations in one report.")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@OUT
def report(folders: tuple[Path, ...], out: Path) -> None:
    """Merge evaluations of the same data, recipe and --seed in one report: of other arms, label sets or --seeds."""
    with installed():
        from segloc_eval.run import merged
    show(merged.report(folders, out))


@command.command("convert", short_help="Write a data set of any layout as COCO.")
@click.argument("data", type=PathOrUrl())
@OUT
def convert(data: Path, out: Path) -> None:
    """Write a data set of any layout as COCO, a json per split; pictures stay where they are."""
    with installed():
        from segloc_eval.data import datasets, preflight
    problems = datasets.convert(absolute(data), out)
    click.echo(out)
    tell(data, preflight.describe(problems))


@command.command("labels", short_help="List the scans that `run` would train on.")
@click.argument("data", type=PathOrUrl())
@click.option("--labels", multiple=True, default=["200"], help="As for run. Repeat it.")
@click.option("--seed", default=0, type=click.IntRange(0, 2**31 - 1), help="As for run.")
@ON
@click.option(
    "--benign",
    type=PathOrUrl(),
    help="Benign scans, as segloc-synth's --backgrounds takes them, to be cut too: benign-learn.txt for synthesis and "
    "--benign, benign-judge.txt for --judge-benign.",
)
@OUT
def labels_(
    data: Path, labels: tuple[str, ...], seed: int, on: Literal["test", "val"], benign: Path | None, out: Path
) -> None:
    """List the scans that `run` would train on, a file per label set, for `segloc-synth build --images`.

    So synthesis and pretraining use no label that fine-tuning does not have.
    """
    with installed():
        from segloc_eval.data.beside import cut_benign
        from segloc_eval.data.datasets import load_data, write_lists
        from segloc_eval.data.preflight import describe
    found = load_data(absolute(data), labels, seed, on)
    out.mkdir(parents=True, exist_ok=True)
    write_lists(found, out)
    cut = cut_benign(benign, out, seed) if benign else []
    click.echo(out)
    tell(data, describe(found.problems))
    tell(benign or "", describe(cut))


def main() -> NoReturn:
    """Entry point of the console script."""
    console.run(command)
