"""The ranks of a run that torchrun started. Alone, every function here does nothing and costs nothing."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click
import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

LAUNCH = "launch.txt"
PATIENCE = timedelta(minutes=30)  # how long a rank waits for the others, the first one's evaluation included
NO_MEMORY = ("can't allocate memory", "ALLOC_FAILED", "out of memory")  # in what torch and CUDA say


class RankLost(click.ClickException):
    """Another rank has ended, so no collective can follow."""


@dataclass(frozen=True)
class World:
    """This process among the `size` of a run; `rank` 0 writes and speaks.

    Collectives raise RankLost where another rank has ended.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Is this the rank that writes, logs and evaluates?"""
        return self.rank == 0

    def gather(self, x: Tensor) -> Tensor:
        """[n, ...] -> [size * n, ...], the ranks' tensors one after the other; of one shape on every rank."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        _together(lambda: dist.all_gather(parts, x.contiguous()))
        return torch.cat(parts)

    @torch.no_grad()
    def sum_(self, tensors: list[Tensor]) -> None:
        """Replace every tensor by its sum over the ranks, in one message; all of one dtype and device."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([x.reshape(-1) for x in tensors])
        _together(lambda: dist.all_reduce(flat))
        sizes = [x.numel() for x in tensors]
        torch._foreach_copy_(tensors, [y.view_as(x) for x, y in zip(tensors, flat.split(sizes), strict=True)])

    @torch.no_grad()
    def mean_(self, tensors: list[Tensor]) -> None:
        """Replace every tensor by its mean over the ranks."""
        if self.size > 1 and tensors:
            self.sum_(tensors)
            torch._foreach_div_(tensors, self.size)

    def agree(self, what: str, value: str) -> None:
        """click.ClickException on every rank unless `value` is the same on all; `what` names it in the message."""
        digest = torch.frombuffer(bytearray(hashlib.sha256(value.encode()).digest()), dtype=torch.uint8)
        if len(self.gather(digest[None]).unique(dim=0)) > 1:
            raise click.ClickException(
                f"the ranks differ in {what} (rank {self.rank}: {value[:40]}); "
                "shards and run folder must look the same to every rank"
            )

    def wait(self) -> None:
        """Until all ranks have come here."""
        self.gather(torch.zeros(1))


ALONE = World()


def _together(collective: Callable[[], object]) -> None:
    try:
        collective()
    except RuntimeError as error:
        raise RankLost(
            f"lost contact with another rank ({str(error).splitlines()[0][:120]}); its own message says why; "
            "torchrun starts the run again where it has restarts left, else go on with --resume"
        ) from None


def mark_launch(folder: Path) -> None:
    """Note in a new run's folder which launch of torchrun made it, if one did."""
    if name := os.environ.get("TORCHELASTIC_RUN_ID"):
        (folder / LAUNCH).write_text(name)


def restarted(folder: Path) -> bool:
    """Is this a restart by torchrun, in the same launch that made `folder`?

    A launch may bear the name of another: `none` with a static rendezvous, what --rdzv-id says otherwise.
    """
    note = folder / LAUNCH
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return again and note.is_file() and note.read_text() == os.environ.get("TORCHELASTIC_RUN_ID")


def local_device(name: str) -> torch.device:
    """This rank's device; `auto` is CUDA where there is one. click.ClickException when `cuda` is absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("--device cuda: no CUDA device is available; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise click.ClickException(
            f"{torch.cuda.device_count()} CUDA devices for local rank {number}; lower torchrun's --nproc-per-node"
        )
    torch.cuda.set_device(number)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda", number)


@contextmanager
def memory_told(what: str, flags: str) -> Iterator[None]:
    """Turn running out of memory on `what` into a click.ClickException that says to lower `flags`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in NO_MEMORY):
            raise
        raise click.ClickException(f"out of memory with {what}; lower {flags}") from None


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world of this process: alone, or with the ranks that torchrun tells of in the environment."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    # Both: labels and signals travel between the hosts' memories, so that no step waits for a GPU to tell them.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        # torchrun keeps its store when it restarts the ranks: the dead ones' addresses must not be found in it.
        store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:  # ValueError: WORLD_SIZE without what else torchrun tells
        reason = str(error).splitlines()[0]
        raise click.ClickException(
            f"the ranks cannot reach each other: {reason}; start them by torchrun, or unset WORLD_SIZE"
        ) from None
    try:
        yield World(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
