"""Options that several commands share, and the recipe that they amount to."""

from collections.abc import Callable
from typing import Any

import click

from segloc_eval.recipe import FAMILIES, LIMITS, RECIPES, Recipe
from segloc_synth import console

DEVICE = click.option(
    "--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), help="auto: a GPU where there is one."
)
OUT = click.option("--out", required=True, type=console.LocalPath(), help="Folder for what is written.")
ON = click.option(
    "--on",
    default="test",
    type=click.Choice(["test", "val"]),
    help="Scored: the test splits, or scans held out of training, to choose settings by.",
)
RECIPE_OPTIONS = [
    click.option(
        "--detector",
        default="cascade",
        type=click.Choice(list(FAMILIES)),
        help="Without masks in the data, the mask head is left out.",
    ),
    click.option(
        "--recipe",
        default="quick",
        type=click.Choice(list(RECIPES)),
        help="quick: small, for CPUs. paper: as published (R-101, 500 pixels, 12 epochs). The options below change it.",
    ),
    click.option("--epochs", type=click.IntRange(1), help="Passes over the training scans."),
    click.option("--samples", type=click.IntRange(1), help="Scans seen, instead of --epochs."),
    click.option(
        "--batch-size", type=click.IntRange(*LIMITS["batch_size"]), help="Scans per step, of all ranks together."
    ),
    click.option("--lr", type=console.Finite(0, min_open=True), help="Peak learning rate."),
    click.option("--size", type=click.IntRange(*LIMITS["size"]), help="Longer side of a scan, in pixels."),
    click.option("--arch", metavar="NAME", help="Trunk, as segloc-train's --arch, where no checkpoint tells."),
    click.option(
        "--width", type=click.IntRange(*LIMITS["width"]), help="Channels of the pyramid, where no checkpoint tells."
    ),
]


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the options of how a detector is trained, in the order of RECIPE_OPTIONS."""
    for option in reversed(RECIPE_OPTIONS):
        function = option(function)
    return function


def changed_recipe(name: str, told: dict[str, Any], changes: dict[str, Any]) -> Recipe:
    """The recipe of that name with what checkpoints tell and options change.

    click.ClickException for an unknown architecture, and for two lengths.
    """
    if None not in (changes["epochs"], changes["samples"]):
        raise click.UsageError("--samples is instead of --epochs; give one of the two")
    from segloc_train.model.trunk import check_arch

    chosen = RECIPES[name].changed(**told, **changes)
    check_arch(chosen.arch)
    return chosen
