"""Command line of segloc-train."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from segloc_synth import console
from segloc_synth.files import output_dir, write_json
from segloc_train.data.cache import LIMIT
from segloc_train.flags import TYPES

EPILOG = """\b
Examples:
  segloc-train --shards pairs --out run --arch resnet50 --epochs 30
  segloc-train --shards pairs --out run --arch resnet18 --width 64 --batch-size 64 --epochs 10
  segloc-train --shards 'pairs/segloc-{00000000..00000049}.tar' --shards s3://bucket/more --out run --method moco
  torchrun --standalone --nproc-per-node 8 -m segloc_train --shards pairs --out run
  segloc-train --resume run"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True}, epilog=EPILOG)
@click.option(
    "--shards",
    multiple=True,
    metavar="SHARDS",
    help="Folder that segloc-synth build wrote, some of its shards as a brace pattern, or its URL. Repeatable.",
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    type=TYPES["weights"],
    help="Of each --shards in turn: how often its pairs are drawn.  [default: by their number]",
)
@click.option("--out", type=console.LocalPath(), help="Run folder to make.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on with this run, with its own settings, from where it stopped.",
)
@click.option(
    "--method",
    type=TYPES["method"],
    default="segloc",
    help="What is contrasted with what; docs/METHODS.md compares them.",
)
@click.option(
    "--arch",
    type=TYPES["arch"],
    default="resnet101",
    metavar="NAME",
    help="Trunk of SDANet: a ResNet (the paper's is resnet101), or a feature pyramid or plain ViT of timm.",
)
@click.option(
    "--width",
    type=TYPES["width"],
    default="256",
    help="Channels of the feature pyramid: 256 as published, 64 for CPUs.",
)
@click.option(
    "--init",
    default="random",
    metavar="random|imagenet|PATH",
    help="Start weights: a run folder, a backbone file of ours, or the trunk's from torchvision or timm.",
)
@click.option("--epochs", type=TYPES["epochs"], default=30, help="Passes over the pairs.")
@click.option(
    "--batch-size", type=TYPES["batch_size"], default=256, help="Pairs per step on all ranks, best a multiple of 16."
)
@click.option(
    "--queue-size",
    type=TYPES["queue_size"],
    show_default="a batch where m is 0; else at most 65536, a quarter of the pairs and of m's time constant",
    help="K: negatives of each query.",
)
@click.option(
    "--optimizer",
    type=TYPES["optimizer"],
    default="adamw",
    help="sgd: MoCo's, momentum 0.9; learns far less in short runs.",
)
@click.option(
    "--lr",
    type=TYPES["lr"],
    show_default="0.004 for adamw, 0.03 for sgd",
    help="Peak learning rate for a batch of 256; others scale it, sgd's linearly, adamw's by the root. "
    "0 freezes the weights (a control).",
)
@click.option(
    "--momentum-key",
    type=TYPES["momentum_key"],
    show_default="0",
    help="m of the key network per 256 samples; MoCo's is 0.999, for millions of samples.",
)
@click.option(
    "--temperature",
    type=TYPES["temperature"],
    default=0.2,
    help="Divides the cosine similarities.",
)
@click.option(
    "--augment",
    type=TYPES["augment"],
    default="mild",
    help="mild: flips, crops that keep the box, gain, noise. moco: MoCo-v2's, with colours and blur.",
)
@click.option(
    "--crop",
    type=TYPES["crop"],
    show_default="0.5, 1 for --augment none",
    help="Side of what the network sees around an object, as a share of the picture's; all of it takes twice the time.",
)
@click.option(
    "--bn-group",
    type=TYPES["bn_group"],
    show_default="at most 32, half a batch",
    help="Samples per batch statistic, at least 8.",
)
@click.option("--seed", type=TYPES["seed"], default=0, help="Decides weights, order and draws.")
@click.option(
    "--stream",
    is_flag=True,
    help="Read shards from end to end, shuffled in a buffer: for sets larger than any cache. Resumes at epochs.",
)
@click.option(
    "--cache-limit",
    type=TYPES["cache_limit"],
    default=LIMIT / 1e9,
    metavar="GB",
    help="Disk that copies of remote shards may take.",
)
@click.option(
    "--on-bad-shard",
    type=TYPES["on_bad_shard"],
    default="stop",
    help="A damaged shard or sample: end with its name, or leave it out and say so.",
)
@click.option(
    "--decode",
    type=TYPES["decode"],
    default="workers",
    help="Where JPEGs are decoded: device helps a GPU with few CPU cores.",
)
@click.option(
    "--workers",
    type=TYPES["workers"],
    default=lambda: min(8, max(1, console.cores() // 2)),
    show_default="half the cores, at most 8",
    help="Processes that read and decode, per rank; 0: none beside the main one.",
)
@click.option(
    "--device",
    type=TYPES["device"],
    default="auto",
    help="auto: a GPU where there is one.",
)
@click.option(
    "--precision",
    type=TYPES["precision"],
    default="auto",
    help="Of convolutions and products. auto: bfloat16 on CUDA, float32 on a CPU. float32 is TF32 on CUDA. Recent CPUs "
    "(avx512_bf16 or amx_bf16 in /proc/cpuinfo) are faster in bfloat16.",
)
@click.option("--compile", is_flag=True, help="Run the backbone through torch.compile.")
@click.option(
    "--save-every",
    type=TYPES["save_every"],
    default=0,
    help="Also keep the backbone as epoch_NNN.pt every so many epochs; 0: never.",
)
@click.option("--summary", is_flag=True, help="Print parameters, steps, m, K, memory and expected time, and stop.")
@click.version_option(package_name="segloc", prog_name="segloc-train", message="%(prog)s %(version)s")
@click.pass_context
def command(
    context: click.Context,
    out: Path | None,
    resume: Path | None,
    summary: bool,
    **options: Any,
) -> int:
    """Pretrain an SDANet backbone on the image pairs of SHARDS.

    Writes into OUT: config.json, pretrained.json (what --init named), log.jsonl, TensorBoard events, projector/ and
    projector_config.pbtxt for its projector, last.pt (to resume), embeddings_NNN.png, and at the end the weights:
    backbone.pth and .safetensors (SDANet), trunk.pth and .safetensors (timm) or resnet.pth (torchvision), of ResNets
    also detector_init.pth (mmdet), and meta.json. Ctrl-C finishes the step, saves (--stream: keeps the last epoch),
    and leaves a run that --resume continues, on a CPU to the bit.
    """
    options["width"] = int(options["width"])
    options["shards"] = [absolute(path) for path in options["shards"]]
    options["weights"] = list(options["weights"])
    if options["init"] not in ("random", "imagenet") and Path(options["init"]).exists():
        options["init"] = absolute(options["init"])
    given = {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if resume is None and not options["shards"]:
        raise click.UsageError("--shards is missing: the folder that segloc-synth build wrote")
    if resume is None and out is None and not summary:
        raise click.UsageError("--out is missing: the run folder to make")
    if resume is not None and out is not None and out.resolve() != resume.resolve():
        raise click.ClickException(f"--out {out} contradicts --resume {resume}; a resumed run stays in its folder")

    from segloc_train.config import as_json, check_share
    from segloc_train.dist import joined, local_device, mark_launch, restarted
    from segloc_train.model.start import check_source, origin
    from segloc_train.run.feed import Feed, open_new, open_stored, stored_config
    from segloc_train.run.loop import ORIGIN, train

    device = local_device(options["device"] if resume is None or "device" in given else stored_device(resume))
    with joined(device) as world:
        config, sources = open_new(options) if resume is None else open_stored(resume, given)
        if resume is None and out is not None and restarted(out) and config == stored_config(out):
            resume = out  # torchrun repeats the command that began the run
        check_share(config, world.size)
        world.agree("the shards that they can read", sources.identity)
        feed = Feed(sources, config, world, device)
        if world.first:
            feed.warn()
            from segloc_train.summary import summary as describe

            for line in describe(config, len(sources.classes), sources.image_size, device, world.size):
                click.echo(line, err=not summary)
        if summary:
            return 0
        folder = resume
        if folder is None:
            assert out is not None
            folder = out
            if world.first:
                check_source(config.arch, config.width, config.init)
                folder = output_dir(out, f"continue its run with --resume {out}, or name another folder")
                write_json(folder / "config.json", as_json(config))
                if known := origin(config.arch, config.init):
                    write_json(folder / ORIGIN, known)
                mark_launch(folder)
            world.wait()  # no rank may take an older run's state for this one's
        return train(config, folder, feed, world, device)


def stored_device(run: Path) -> str:
    """--device of the run that goes on; click.ClickException where there is no such run."""
    from segloc_train.run.feed import stored_config

    return stored_config(run).device


def absolute(path: str) -> str:
    """A local path made absolute, so that a run can be resumed from anywhere; URLs as they are."""
    return path if "://" in path else str(Path(path).resolve())


def main() -> None:
    """Entry point of the console script."""
    console.run(command)
