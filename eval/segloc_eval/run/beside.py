"""What a fine-tuning sees beside labelled scans: composites of a build, and benign scans."""

import math
from dataclasses import replace
from pathlib import Path

import click

from segloc_eval.config import MIX, Beside
from segloc_eval.data.datasets import Data, load_training
from segloc_eval.mm.data import Mixture, Stream
from segloc_eval.mm.ranks import failing_together
from segloc_eval.recipe import Recipe
from segloc_synth.console import log
from segloc_synth.files import as_path, read_json
from segloc_synth.look.export import VIEWS, export_coco
from segloc_synth.shards.format import ShardReader
from segloc_train.dist import World

BENIGN_SHARE = 1 / 8  # of a batch


def accept_beside(beside: Beside, data: Data, recipe: Recipe, family: str) -> None:
    """click.ClickException unless a batch has places for all, and `data` the classes of the composites."""
    if beside.paste and family == "semantic":
        raise click.ClickException("--copy-paste takes detectors of boxes; leave it out with --detector semantic")
    if sum(_places(beside, recipe)) >= recipe.batch_size:
        raise click.ClickException(
            f"a batch of {recipe.batch_size} has no place left for a labelled scan; "
            "lower --mix-share or raise --batch-size"
        )
    if beside.mix:
        theirs = {category["name"] for category in ShardReader(as_path(beside.mix)).classes}
        unknown = ", ".join(sorted(theirs - set(data.classes.values()))[:3])
        if unknown:
            raise click.ClickException(f"{beside.mix}: has objects of {unknown}, which {data.root} does not label")


def mixed(beside: Beside | None, data: Data, recipe: Recipe, out: Path, world: World) -> Mixture:
    """What batches show beside labelled scans; the composites among it go to out/mix. All ranks call it."""
    if beside is None:
        return Mixture()
    composites, benign = _places(beside, recipe)
    found = [_composites(as_path(beside.mix), composites, data, recipe, out / MIX, world)] if composites else []
    found += [Stream(data.benign, benign)] if benign else []
    return Mixture(tuple(found), beside.paste)


def _places(beside: Beside, recipe: Recipe) -> tuple[int, int]:
    """Of a batch, for composites and for benign scans: at least one for each that there are."""
    shares = beside.share, BENIGN_SHARE if beside.benign else 0.0
    composites, benign = (max(1, round(recipe.batch_size * share)) if share else 0 for share in shares)
    return composites, benign


def _composites(build: Path, count: int, data: Data, recipe: Recipe, folder: Path, world: World) -> Stream:
    """Of so many first pairs of a build as the longest fine-tuning shows."""
    reader = ShardReader(build)
    shown = max(map(recipe.steps, data.sizes.values())) * count
    pairs = min(len(reader), math.ceil(shown / len(VIEWS)))
    place = folder / f"{reader.manifest['config_hash'][:8]}-{pairs}"
    with failing_together(world):
        if world.first and not (place / "annotations.json").is_file():
            export_coco(build, place, limit=pairs)
    backgrounds = {image["background"] for image in read_json(place / "annotations.json")["images"]}
    judged = sorted(backgrounds & {str(Path(str(scan.source_id)).with_suffix("")) for scan in data.judged})
    if judged and world.first:  # by name alone, and other scans may have these names too
        log.warning(
            "%s: %d of its backgrounds are called as scans of --judge-benign, such as %s; if they are the same, false "
            "alarms are flattered: build on others, which segloc-eval labels --benign cuts apart",
            *(build, len(judged), judged[0]),
        )
    found = load_training(place, MIX)
    ids = {id: own for own, name in data.classes.items() for id, theirs in found.classes.items() if theirs == name}
    scans = [
        replace(scan, objects=tuple(replace(thing, category_id=ids[thing.category_id]) for thing in scan.objects))
        for scan in found.train
    ]
    return Stream(scans, count, pairs=True)
