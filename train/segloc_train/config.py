"""A run's settings: defaults that depend on the data, checks, the schedule, and what a resumed run may change."""

import math
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from segloc_synth.files import read_json
from segloc_train import flags

REFERENCE_BATCH = 256  # --lr is for a batch of this size, --momentum-key per this many samples
RATES = {"sgd": 0.03, "adamw": 0.004}  # SGD's is MoCo's
WARM_UP = 0.1  # share of the steps in which AdamW's learning rate rises
MIN_GROUP, MAX_GROUP = 8, 32
DEFAULT_CROP = 0.5  # of the picture's side; whole ones took twice the time and taught no more about scans
FRESH_KEYS = 0.0  # m: with slower keys and longer queues runs of minutes learn less, or nothing (docs/BENCHMARKS.md)
QUEUE_PER_MEMORY = 0.25  # K by the samples after which the key network has forgotten all but 1/e; MoCo's own ratio
FREE = (
    "workers",
    "device",
    "save_every",
    "decode",
    "cache_limit",
    "on_bad_shard",
)  # a resumed run may change them: they decide rounding at most, in a stream the order (workers), and damaged pairs
ANEW = "start a new run with --out"
FLAGS = {"weights": "weight"}  # where a flag is not called as its field


@dataclass(frozen=True)
class Config:
    """Everything that decides a run, resolved; config.json holds it.

    `shards_hash`, `samples` and `training` say which builds lay in `shards` when the run began, how many pairs they
    held and how many of these are trained on. Other fields are the flags.
    """

    method: str
    shards: list[str]
    weights: list[float]
    shards_hash: str
    samples: int
    training: int
    stream: bool
    decode: str
    on_bad_shard: str
    cache_limit: float
    arch: str
    width: int
    init: str
    epochs: int
    batch_size: int
    queue_size: int
    optimizer: str
    lr: float
    momentum_key: float
    temperature: float
    augment: str
    crop: float
    bn_group: int
    compile: bool
    precision: str
    seed: int
    workers: int
    device: str
    save_every: int

    @property
    def steps_per_epoch(self) -> int:
        """Full batches of training pairs in an epoch."""
        return self.training // self.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def momentum_per_step(self) -> float:
        """m of one step: momentum_key ** (batch / 256), so that it forgets per sample, whatever the batch."""
        return self.momentum_key ** (self.batch_size / REFERENCE_BATCH)

    @property
    def scaled_lr(self) -> float:
        """--lr for this batch: SGD's goes with its size (arXiv 1706.02677), AdamW's with the root (2205.10287)."""
        share = self.batch_size / REFERENCE_BATCH
        return self.lr * (share if self.optimizer == "sgd" else math.sqrt(share))

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0..total_steps-1: scaled_lr along a cosine to 0.

        AdamW's also rises at first: at full rate from the start embeddings fall onto a few directions and stay there.
        """
        rise = min(1.0, (step + 1) / (WARM_UP * self.total_steps)) if self.optimizer == "adamw" else 1.0
        return self.scaled_lr * rise * (1 + math.cos(math.pi * step / self.total_steps)) / 2


def resolve(options: dict[str, Any], shards_hash: str, samples: int, training: int) -> Config:
    """Config from flags; None for queue_size, lr, momentum_key, crop, bn_group means the default for this set.

    click.ClickException where settings contradict each other or the set is too small for one step.
    """
    options = dict(options)
    batch = options["batch_size"]
    if options["bn_group"] is None:
        options["bn_group"] = default_group(batch)
    if options["crop"] is None:
        options["crop"] = 1.0 if options["augment"] == "none" else DEFAULT_CROP
    if options["lr"] is None:
        options["lr"] = RATES[options["optimizer"]]
    if options["momentum_key"] is None:
        options["momentum_key"] = FRESH_KEYS
    if options["queue_size"] is None:
        options["queue_size"] = default_queue(training, options["momentum_key"], batch)
    config = Config(**options, shards_hash=shards_hash, samples=samples, training=training)
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


def default_queue(training: int, momentum: float, batch: int) -> int:
    """K: a batch where m is 0, else up to 65,536: a quarter of the pairs, and of the key network's memory.

    Keys of one queue should come from nearly one network, or queries learn to tell new keys from old ones and
    nothing else.
    """
    if momentum == 0:
        return batch
    memory = -REFERENCE_BATCH / math.log(momentum) if momentum < 1 else math.inf
    return max(batch, int(min(65_536, training / 4, QUEUE_PER_MEMORY * memory)))


def check(config: Config) -> None:
    """click.ClickException where settings contradict each other, or the set is too small for one step."""
    batch, group = config.batch_size, config.bn_group
    if config.training < batch:
        raise click.ClickException(
            f"{', '.join(config.shards)}: {config.samples} pairs leave {config.training} for training beside those "
            f"held out, fewer than one batch of {batch}; build more pairs or lower --batch-size"
        )
    if config.augment == "none" and config.crop != 1:
        raise click.ClickException(
            f"--crop {config.crop:g}: --augment none leaves pictures as they are; take mild or moco"
        )
    if config.queue_size < batch:
        raise click.ClickException(
            f"--queue-size {config.queue_size}: smaller than a batch of {batch}, whose keys would push each other out"
        )
    if group < MIN_GROUP or batch % group or batch < 2 * group:
        raise click.ClickException(
            f"--bn-group {group}: --batch-size {batch} must be a multiple of it, at least twice as large, "
            f"and the group at least {MIN_GROUP}; leave --bn-group out for a fitting default"
        )


def check_share(config: Config, ranks: int) -> None:
    """click.ClickException where the groups of a batch cannot be dealt out evenly to this many ranks."""
    if config.batch_size % (ranks * config.bn_group):
        raise click.ClickException(
            f"--batch-size {config.batch_size}: its groups of {config.bn_group} (--bn-group) cannot be dealt out to "
            f"{ranks} ranks; take a multiple of {ranks * config.bn_group}, smaller groups or fewer ranks"
        )


def stored(path: Path) -> Config:
    """The config of RUN/config.json; click.ClickException where it is none that the flags would have made."""
    try:
        values = read_json(path)
    except click.ClickException as error:
        raise click.ClickException(f"{error.message}; {ANEW}") from None
    if not isinstance(values, dict):
        raise click.ClickException(f"{path}: is no run's config; {ANEW}")
    types = get_type_hints(Config)
    defaults = {field.name: field.default for field in fields(Config) if field.default is not MISSING}
    values = {**defaults, **values}  # of fields that came after the run
    for name, kind in types.items():
        if name not in values or not fits(values[name], kind):
            raise click.ClickException(f"{path}: {name} is missing or no {getattr(kind, '__name__', kind)}; {ANEW}")
    if not values["shards"]:
        raise click.ClickException(f"{path}: shards: names none; {ANEW}")
    for name, flag in flags.TYPES.items():
        for value in values[name] if isinstance(values[name], list) else [values[name]]:
            try:
                flag(str(value))
            except click.BadParameter as error:
                raise click.ClickException(f"{path}: {name}: {error.message.rstrip('.')}; {ANEW}") from None
    config = Config(**{name: values[name] for name in types})
    try:
        check(config)
    except click.ClickException as error:
        raise click.ClickException(f"{path}: {error.message}") from None
    return config


def fits(value: Any, kind: Any) -> bool:
    """Is a value of a JSON file of this type, a plain one or a list of one?"""
    if inner := get_args(kind):
        return type(value) is list and all(type(x) is inner[0] for x in value)
    return type(value) is kind


def resumed(config: Config, given: dict[str, Any], run: Path) -> Config:
    """The stored config of `run` with the flags given beside --resume.

    click.ClickException names the first field that contradicts it and both values.
    """
    for field in fields(config):
        name = field.name
        if name in given and name not in FREE and given[name] != getattr(config, name):
            flag = FLAGS.get(name, name.replace("_", "-"))
            raise click.ClickException(
                f"--{flag} {given[name]} contradicts {run / 'config.json'}, which says "
                f"{getattr(config, name)}; leave it out, or start a new run with --out"
            )
    return replace(config, **{name: given[name] for name in FREE if name in given})


def as_json(config: Config) -> dict[str, Any]:
    """The content of config.json."""
    return asdict(config)
