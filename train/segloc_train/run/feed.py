"""What a run reads: its pairs, which are held out, and the batches of this rank."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from segloc_synth.console import log
from segloc_train import config as settings
from segloc_train.config import Config
from segloc_train.data.data import Batch, Pairs
from segloc_train.data.loader import batches
from segloc_train.data.order import BatchOrder, split
from segloc_train.data.sources import Sources, open_sources
from segloc_train.dist import World

ONE_CLASS = {  # what comes of one class alone where classes decide; the other methods do not look at them
    "segloc": "negatives are the random start keys throughout",
    "supcon": "there is nothing to tell it from",
    "classify": "there is nothing to tell it from",
}


class Feed:
    """The pairs of a run, as one rank sees them.

    Attributes:
        sources: all pairs; `split`: which are trained on, which held out.
        pairs, held_out: data sets for reading either kind.
    """

    def __init__(self, sources: Sources, config: Config, world: World, device: torch.device) -> None:
        self.sources, self.config, self.world, self.device = sources, config, world, device
        self.split = split(sources.scans, sources.scan_names)
        if config.weights:
            bounds = np.searchsorted(self.split.train, [*sources.starts, len(sources)])
            for number in np.flatnonzero(np.diff(bounds) == 0)[:1].tolist():
                raise click.ClickException(
                    f"{config.shards[number]}: all its pairs show scans that are held out, so none can be drawn by "
                    "weight; leave it out, or give no --weight"
                )
        masks = import_module(f"segloc_train.methods.{config.method}").Method.needs_masks
        self.pairs = Pairs(sources, masks, config.decode, self.split.train)  # type: ignore[arg-type]
        self.held_out = Pairs(sources, masks, stand_ins=self.split.held_out)

    def batches(self, step: int) -> Iterable[Batch | click.ClickException]:
        """This rank's batches from `step` on to the end of the run; an error comes as a value."""
        config, world, train = self.config, self.world, self.split.train
        if config.stream:
            from segloc_train.data.stream import StreamOrder, stream_batches

            done, inside = divmod(step, config.steps_per_epoch)
            if inside:
                raise click.ClickException(f"--stream goes on at epochs only, and step {step} is inside one")
            stream = StreamOrder(
                self.sources, train, config.seed, config.batch_size, config.epochs, done, world.rank, world.size
            )
            return stream_batches(self.pairs, stream, config.workers, self.device)
        order = BatchOrder(
            train,
            config.seed,
            config.batch_size,
            config.epochs,
            step,
            world.rank,
            world.size,
            self.sources.starts if config.weights else (),
            config.weights,
        )
        return batches(self.pairs, order, config.workers, self.device)

    def warn(self) -> None:
        """Say what makes results worth less: no scan held out; one class alone, so nothing to tell it from."""
        if self.split.warning:
            log.warning("Warning: %s", self.split.warning)
        for what, places, then in (
            ("training", self.split.train, ONE_CLASS.get(self.config.method)),
            ("held-out", self.split.held_out, "held-out accuracy is undefined and left out"),
        ):
            if then and len(classes := np.unique(self.sources.labels[places])) == 1:
                name = self.sources.classes[int(classes[0])]["name"]
                log.warning("Warning: all %s pairs are of class %s: %s", what, name, then)


def open_new(options: dict[str, Any]) -> tuple[Config, Sources]:
    """Settings and data of a new run; click.ClickException for contradictions and unreadable shards."""
    sources = _open(options)
    training = len(split(sources.scans, sources.scan_names).train)
    return settings.resolve(options, sources.identity, len(sources), training), sources


def stored_config(run: Path) -> Config:
    """The settings of a run; click.ClickException where there is no such folder or it is none."""
    if not run.is_dir():
        raise click.ClickException(f"{run}: no such run folder")
    return settings.stored(run / "config.json")


def open_stored(run: Path, given: dict[str, Any]) -> tuple[Config, Sources]:
    """Those of the stored `run`, with the flags given beside it.

    click.ClickException too where the shards are not those that the run began with.
    """
    config = settings.resumed(stored_config(run), given, run)
    sources = _open(settings.as_json(config))
    if (sources.identity, len(sources)) != (config.shards_hash, config.samples):
        raise click.ClickException(
            f"{', '.join(config.shards)}: holds other shards than {run} began with "
            f"({len(sources)} pairs, {sources.identity[:12]}; then {config.samples}, {config.shards_hash[:12]}); "
            "it goes on with those alone: segloc-synth verify --repair makes lost ones anew, from the build's sources"
        )
    training = len(split(sources.scans, sources.scan_names).train)
    if training != config.training:
        raise click.ClickException(
            f"{run / 'config.json'}: training: {config.training}, but its shards leave {training}; {settings.ANEW}"
        )
    return config, sources


def _open(options: dict[str, Any]) -> Sources:
    limit = int(options["cache_limit"] * 1e9)
    return open_sources(options["shards"], options["weights"], options["on_bad_shard"], limit, options["stream"])
