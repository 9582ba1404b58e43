"""Learning to detect on a build's composites: a start for every fine-tuning."""

import math
from pathlib import Path

import click
import torch

from segloc_eval.config import COMPOSITES, Arm
from segloc_eval.data.datasets import load_training
from segloc_eval.mm.model import build_detector, load_arm
from segloc_eval.mm.ranks import failing_together
from segloc_eval.recipe import Recipe, choose_detector
from segloc_eval.run.unit import Unit, run_unit
from segloc_synth.files import output_dir, read_json, write_json
from segloc_synth.look.export import VIEWS, export_coco
from segloc_synth.shards.format import ShardReader
from segloc_synth.sources.problems import Problem
from segloc_train.dist import World


def learn_composites(
    pairs: Path, arm: Arm, recipe: Recipe, family: str, seed: int, out: Path, world: World, device: torch.device
) -> list[Problem]:
    """Train a detector on both pictures of a build's pairs, after which `out` is a --ckpt of segloc-eval.

    On so many of the first pairs as `recipe.samples` shows once, where that is told, else on all. Writes
    out/composites, a COCO data set that an interrupted training needs to go on, and what `unit.run_unit` writes.
    Returns what of the composites could not be used. Every rank of `world` calls this.

    click.ClickException when `pairs` is no finished build, `out` holds something else, or as run_unit.
    """
    reader = ShardReader(pairs)
    count = len(reader) if recipe.samples is None else min(len(reader), math.ceil(recipe.samples / len(VIEWS)))
    build = {"pairs": count, "config_hash": reader.manifest["config_hash"]}
    names = [category["name"] for category in reader.classes]
    detector = choose_detector(family, masks=True)
    load_arm(build_detector(recipe, detector, len(names), seed), arm.source, recipe, detector, names)
    data, config = out / COMPOSITES, out / "config.json"
    with failing_together(world):
        if world.first:
            if not config.is_file():
                output_dir(out, "name another --out")
                write_json(config, build)
            if read_json(config) != build:
                raise click.ClickException(f"{out}: holds something else, or of another build; name another --out")
            if not (data / "annotations.json").is_file():
                export_coco(pairs, data, limit=count)
    found = load_training(data, COMPOSITES)
    run_unit(Unit(COMPOSITES, arm.name, arm.source, arm.sha256, seed), found, recipe, detector, out, world, device)
    return found.problems
