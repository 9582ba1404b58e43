"""What each flag of segloc-train takes, which a value of config.json is held to as well."""

import pkgutil

import click

from segloc_synth.console import Finite
from segloc_train import methods


class Arch(click.ParamType):
    """The name of a trunk."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from segloc_train.model.trunk import check_arch  # torch's import takes seconds

        try:
            check_arch(value)
        except click.ClickException as error:
            self.fail(error.message, param, ctx)
        return value


METHODS = [module.name for module in pkgutil.iter_modules(methods.__path__) if not module.ispkg]
TYPES: dict[str, click.ParamType] = {  # by field of Config; a list's is that of its values
    "weights": Finite(0, min_open=True),
    "method": click.Choice(METHODS),
    "arch": Arch(),
    "width": click.Choice(["256", "64"]),
    "epochs": click.IntRange(1),
    "batch_size": click.IntRange(1, 2**16),
    "queue_size": click.IntRange(1, 2**22),
    "optimizer": click.Choice(["sgd", "adamw"]),
    "lr": Finite(0),
    "momentum_key": Finite(0, 1),
    "temperature": Finite(0.025),
    "augment": click.Choice(["none", "mild", "moco"]),
    "crop": Finite(0.1, 1),
    "bn_group": click.IntRange(1),
    "seed": click.IntRange(0, 2**32 - 1),
    "cache_limit": Finite(0),
    "on_bad_shard": click.Choice(["stop", "skip"]),
    "decode": click.Choice(["workers", "device"]),
    "workers": click.IntRange(0),
    "device": click.Choice(["auto", "cpu", "cuda"]),
    "precision": click.Choice(["auto", "float32", "bfloat16"]),
    "save_every": click.IntRange(0),
}
