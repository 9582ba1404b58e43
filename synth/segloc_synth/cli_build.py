"""The command `segloc-synth build`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from segloc_synth.bank import prepare
from segloc_synth.bank.labelled import MIN_TRUST
from segloc_synth.builds import build, pipeline
from segloc_synth.config import BALANCES, BLENDS, COEFFICIENTS, POSITIVES, Balance, Blend, Config, Positives
from segloc_synth.console import Finite, cores
from segloc_synth.files import PathOrUrl
from segloc_synth.look import card

PATH = PathOrUrl()
TRUST = click.option(
    "--min-trust",
    type=Finite(0, 1),
    default=MIN_TRUST,
    metavar="T",
    help="With --masks-from-boxes, leave out masks whose trust, the overlap with the object to be expected, is less.",
)


class Part(click.ParamType):
    """A share I/N of a job on the command line, as (I, N) with 1 <= I <= N."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        part, _, parts = value.partition("/")
        if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
            self.fail(f"{value} is not a share such as 3/8: I from 1 to N", param, ctx)
        return int(part), int(parts)


class Manual(click.Command):
    """A command whose help lists its options under headings."""

    def __init__(self, *args: Any, sections: dict[str, tuple[str, ...]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rest = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        for heading, names in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([record for name in names if (record := rest.pop(name))])
        with formatter.section("Other"):
            formatter.write_dl([record for record in rest.values() if record])


SECTIONS = {
    "Sources": ("objects", "backgrounds", "classes", "images", "masks_from_boxes", "min_trust", "allow_test", "strict"),
    "Output": ("n", "out", "size", "seed", "shard_size", "licence"),
    "How objects are written onto scans": ("blend", "coefficient", "scale", "occlusion"),
    "What pairs hold": ("positives", "balance", "items", "distractors"),
    "Running": ("workers", "engine", "part", "bank_limit"),
}

SOURCES = (
    click.option(
        "--objects",
        type=PATH,
        multiple=True,
        help="Labelled source: a folder of PIDray, COCO, class-id masks, VOC, OPIXray or YOLO, a COCO json or a YOLO "
        "yaml. Boxes alone need --masks-from-boxes. Of a data set with splits the training split alone is taken. May "
        "be given several times; classes are merged by name.  [default: PhantomRay]",
    ),
    click.option(
        "--backgrounds",
        type=PATH,
        help="Benign source: a folder of scans, searched through (SIXray's P*.jpg positives are left out), an ImageSet "
        "csv of SIXray (rows without a positive label), or a text list of pictures beside it.  [default: PhantomRay]",
    ),
    click.option(
        "--classes",
        type=PATH,
        help='JSON file that names classes of --objects anew: {"their name": "our name", or null to leave it out}. '
        "Classes that it does not name keep their names.",
    ),
    click.option(
        "--images",
        type=PATH,
        help="Text file of scan names (file names, stems or paths, one a line): only their objects are used.",
    ),
    click.option(
        "--masks-from-boxes",
        is_flag=True,
        help="Where an object has a box and no mask, take the dark thing inside the box that stands out from its "
        "surroundings; objects that do not are left out. Names of such segments end in ~box.",
    ),
    TRUST,
    click.option(
        "--allow-test",
        is_flag=True,
        help="Take all splits of a data set, and sources that look like a test split: a json or list named test, "
        "folders easy, hard, hidden or test. Without it they are refused, since scores on scans that fed pretraining "
        "mean nothing.",
    ),
)


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name the sources of a build, as pipeline.read_sources takes them."""
    for option in reversed(SOURCES):
        command = option(command)
    return command


@click.command(
    "build",
    cls=Manual,
    sections=SECTIONS,
    context_settings={"max_content_width": 100},
    epilog="""\b
Examples:
  segloc-synth build --n 5000 --out pairs                  (simulated scans, nothing to download)
  segloc-synth build --objects pidray --backgrounds SIXray/JPEGImage --out pairs
  segloc-synth build ... --items 1 3 --occlusion 0.7 1 --distractors 0.3      (crowded and hidden)
  segloc-synth build ... --objects boxes.json --masks-from-boxes              (boxes without masks)
  segloc-synth build ... --out s3://bucket/pairs --part $((SLURM_ARRAY_TASK_ID + 1))/200
""",
)
@click.option(
    "--n",
    type=click.IntRange(min=1),
    default=200_000,
    help="Pairs to make; a later build with more extends.",
)
@source_options
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
    default="dual-energy",
    help="How an object is written onto a scan. dual-energy: attenuations add, in the colours of the background's "
    "scanner, the object's own bag subtracted. multiply: transmissions multiply channel by channel. alpha: c * segment "
    "+ (1 - c) * background, the SegLoc paper's. hard: replace. Grey scans show one energy: attenuations add.",
)
@click.option(
    "--coefficient",
    type=Finite(0, 1, min_open=True),
    nargs=2,
    metavar="LO HI",
    help="Range of the composition coefficient c, within (0, 1]: the weight of alpha, else a factor on the object's "
    "density; unused by hard.  [default: 0.6 0.95 for alpha, else 0.8 1]",
)
@click.option(
    "--scale",
    type=Finite(0.1, 10),
    nargs=2,
    default=(0.9, 1.1),
    metavar="LO HI",
    help="Range of a factor on the object's size, which is drawn from the sizes that its class has in the labelled "
    "source, relative to the bag; at most 0.9 of the scan.",
)
@click.option(
    "--occlusion",
    type=Finite(0, 1),
    nargs=2,
    default=(0.0, 1.0),
    metavar="LO HI",
    help="How dense the background under an object is: from 0, the clearest of the places tried in its bag, to 1, "
    "the densest. 0 0.3 is easy, 0.8 1 hidden.",
)
@click.option(
    "--items",
    type=click.IntRange(1, 20),
    nargs=2,
    default=(1, 1),
    metavar="LO HI",
    help="Range of the number of objects in a picture, the pair's subject among them; masks are written for all.",
)
@click.option(
    "--positives",
    type=click.Choice(POSITIVES),
    default="instance",
    help="What makes a pair: the same segment twice, or two segments of one class.",
)
@click.option(
    "--balance",
    type=click.Choice(BALANCES),
    default="instance",
    help="What is drawn alike: every segment, every class, or classes by the square root of their numbers.",
)
@click.option(
    "--distractors",
    type=Finite(0, 1),
    default=0.0,
    metavar="P",
    help="Chance that a picture also gets a benign look-alike, a dense thing cut from another benign scan, without "
    "label.",
)
@click.option(
    "--bank-limit",
    type=Finite(0, 1e6),
    default=64.0,
    metavar="GB",
    help="Prepared backgrounds are kept as raw pixels if those of the whole source take no more than this, else as "
    "JPEG, about a fifth of it. Part of what decides the bytes.",
)
@click.option(
    "--engine",
    type=click.Choice(build.ENGINES),
    default="local",
    help="local: --workers processes here. ray: the cluster that RAY_ADDRESS names, or one started here for this run.",
)
@click.option(
    "--part",
    type=Part(),
    default="1/1",
    help="Build only share I of N, one task of a Slurm or Kubernetes array: run every part with the same options and "
    "--out. The part that finds all shards there writes manifest, data card and contact sheet.",
)
@click.option(
    "--licence",
    multiple=True,
    metavar="TEXT",
    help='A licence to note in the data card, such as "objects: PIDray, CC BY-NC-SA 4.0"; may be given several times.',
)
@click.option("--strict", is_flag=True, help="Stop at bad records in a source instead of leaving them out.")
def build_command(
    n: int,
    out: Path,
    size: int,
    seed: int,
    workers: int,
    shard_size: int,
    blend: Blend,
    coefficient: tuple[float, float] | None,
    scale: tuple[float, float],
    occlusion: tuple[float, float],
    items: tuple[int, int],
    positives: Positives,
    balance: Balance,
    distractors: float,
    bank_limit: float,
    engine: build.Engine,
    part: tuple[int, int],
    licence: tuple[str, ...],
    strict: bool,
    **source: Any,
) -> None:
    """Build WebDataset shards of image pairs: labelled objects, projected onto benign scans.

    The bytes depend on the sources, the options and the seed alone. The same command goes on where an earlier run
    stopped; a larger --n extends. Scans and segments are prepared once and kept in ~/.cache/segloc ($SEGLOC_CACHE).
    Sources and --out may be URLs that fsspec knows, such as s3://bucket/folder.

    Exit code 0: done, or this part is. 1: a fault. 2: wrong usage. 3: a fault with some shards done; the same command
    finishes the rest. 130: Ctrl-C.
    """
    coefficient = COEFFICIENTS[blend] if coefficient is None or blend == "hard" else coefficient
    ranges = {"--coefficient": coefficient, "--scale": scale, "--occlusion": occlusion, "--items": items}
    for name, (low, high) in ranges.items():
        if low > high:
            raise click.BadParameter("LO must not exceed HI", param_hint=name)
    build.begun(out)  # before minutes of simulation
    sources = pipeline.read_sources(**source, workers=workers)
    config = Config(
        objects=sources.objects,
        backgrounds=sources.backgrounds,
        size=size,
        seed=seed,
        shard_size=shard_size,
        blend=blend,
        coefficient=coefficient,
        scale=scale,
        occlusion=occlusion,
        items=items,
        positives=positives,
        balance=balance,
        distractors=distractors,
        bank="raw" if prepare.raw_size(len(sources.benign.relative), size) <= bank_limit * 1e9 else "jpeg",
    )
    command = card.command_line(click.get_current_context())
    pipeline.make(config, sources, out, n, workers, command, licence, engine, part, strict)
