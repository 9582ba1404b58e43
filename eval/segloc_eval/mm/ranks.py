"""What ranks tell each other besides gradients: results, and that one of them cannot go on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import torch

from segloc_train.dist import World


def gather_json(value: Any, world: World) -> list[Any]:
    """Every rank's value, of JSON types, in the order of ranks."""
    if world.size == 1:
        return [value]
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = world.gather(torch.tensor([len(data)])).tolist()
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: len(data)] = data
    parts = world.gather(padded).view(world.size, -1)
    return [json.loads(bytes(part[:length].numpy())) for part, length in zip(parts, lengths, strict=True)]


@contextmanager
def failing_together(world: World) -> Iterator[None]:
    """Let a click.ClickException of the block on any rank be raised on all, behind it.

    Otherwise the others wait for a rank that goes on with something else. The block has no collectives.
    """
    message = None
    try:
        yield
    except click.ClickException as error:
        if world.size == 1:
            raise
        message = error.message
    for told in gather_json(message, world) if world.size > 1 else ():
        if told is not None:
            raise click.ClickException(told)


@contextmanager
def ending_alone(world: World) -> Iterator[None]:
    """For what one rank does alone: where it fails, end the process, so that the others lose contact and end too."""
    try:
        yield
    except (click.ClickException, OSError) as error:
        if world.size == 1:
            raise
        (error if isinstance(error, click.ClickException) else click.ClickException(str(error))).show()
        raise SystemExit(1) from None
