"""A run's settings: defaults that depend on the data, checks, the schedule, and what a resumed run may change."""

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import click

from segloc_synth.files import read_json
from segloc_train.order import held_out_count

REFERENCE_BATCH = 256  # --lr and --momentum-key are per this many samples
MIN_GROUP, MAX_GROUP = 8, 32
FREE = ("workers", "device", "save_every")  # decide no weight, so a resumed run may change them


@dataclass(frozen=True)
class Config:
    """Everything that decides a run, resolved; config.json holds it.

    `samples` and `shards_hash` say which build lay in `shards` when the run began. Other fields are the flags.
    """

    shards: str
    shards_hash: str
    samples: int
    arch: str
    width: int
    epochs: int
    batch_size: int
    queue_size: int
    lr: float
    momentum_key: float
    temperature: float
    augment: str
    bn_group: int
    seed: int
    workers: int
    device: str
    save_every: int

    @property
    def steps_per_epoch(self) -> int:
        """Full batches of training pairs in an epoch."""
        return (self.samples - held_out_count(self.samples)) // self.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def momentum_per_step(self) -> float:
        """m of one step: momentum_key ** (batch / 256), so that it forgets per sample, whatever the batch."""
        return self.momentum_key ** (self.batch_size / REFERENCE_BATCH)

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0..total_steps-1: linear in the batch, cosine to 0 over the samples seen."""
        peak = self.lr * self.batch_size / REFERENCE_BATCH
        return peak * 0.5 * (1 + math.cos(math.pi * step / self.total_steps))


def resolve(options: dict[str, Any], samples: int, shards_hash: str) -> Config:
    """Config from flags; None for queue_size, momentum_key, bn_group means the default for this set.

    click.ClickException where settings contradict each other or the set is too small for one step.
    """
    options = dict(options)
    batch, training = options["batch_size"], samples - held_out_count(samples)
    if training < batch:
        raise click.ClickException(
            f"{options['shards']}: {samples} pairs leave {training} for training beside the held-out "
            f"{samples - training}, fewer than one batch of {batch}; build more pairs or lower --batch-size"
        )
    if options["bn_group"] is None:
        options["bn_group"] = default_group(batch)
    if options["queue_size"] is None:
        options["queue_size"] = max(1, min(65_536, training // 4))
    if options["momentum_key"] is None:
        seen = options["epochs"] * (training // batch) * batch
        options["momentum_key"] = default_momentum(seen)
    config = Config(**options, samples=samples, shards_hash=shards_hash)
    check(config)
    return config


def default_group(batch: int) -> int:
    """Samples per batch statistic: the largest divisor of `batch` that is at most 32 and leaves two groups."""
    for group in range(min(MAX_GROUP, batch // 2), MIN_GROUP - 1, -1):
        if batch % group == 0:
            return group
    raise click.ClickException(
        f"--batch-size {batch}: must divide into at least two groups of {MIN_GROUP} to {MAX_GROUP} "
        "samples, or batch statistics give the positives away; take a multiple of 16"
    )


def default_momentum(samples_seen: int) -> float:
    """m per 256 samples: 0.999, or less where the run is so short that 1/e would take more than 5 % of it."""
    return min(0.999, math.exp(-REFERENCE_BATCH / (0.05 * samples_seen)))


def check(config: Config) -> None:
    """click.ClickException where settings contradict each other."""
    batch, group = config.batch_size, config.bn_group
    if group < MIN_GROUP or batch % group or batch < 2 * group:
        raise click.ClickException(
            f"--bn-group {group}: --batch-size {batch} must be a multiple of it, at least twice as large, "
            f"and the group at least {MIN_GROUP}; leave --bn-group out for a fitting default"
        )


def stored(path: Path) -> Config:
    """The config of RUN/config.json; click.ClickException where it is not one of this program's."""
    values = read_json(path)
    types = get_type_hints(Config)
    if not isinstance(values, dict):
        raise click.ClickException(f"{path}: is no run's config")
    for name, kind in types.items():
        if name not in values or type(values[name]) is not kind:
            raise click.ClickException(f"{path}: {name} is missing or no {kind.__name__}")
    config = Config(**{name: values[name] for name in types})
    check(config)
    return config


def resumed(config: Config, given: dict[str, Any], run: Path) -> Config:
    """The stored config of `run` with the flags given beside --resume.

    click.ClickException names the first field that contradicts it and both values.
    """
    for field in fields(config):
        name = field.name
        if name in given and name not in FREE and given[name] != getattr(config, name):
            raise click.ClickException(
                f"--{name.replace('_', '-')} {given[name]} contradicts {run / 'config.json'}, which says "
                f"{getattr(config, name)}; leave it out, or start a new run with --out"
            )
    return replace(config, **{name: given[name] for name in FREE if name in given})


def as_json(config: Config) -> dict[str, Any]:
    """The content of config.json."""
    return asdict(config)
