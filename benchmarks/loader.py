"""How near does reading pairs come to nothing but decoding their JPEG files?

The yardstick is what one process takes to decode the very same files, held in memory, by the same decoder, one after
the other. Beside it: the yardstick with files handed over as lists; reading by offset as a run does (a shuffled epoch,
whole batches with boxes and labels, no worker process), with masks, in a worker process (its start and the way to the
main process included), and for decoding on the device (nothing decoded); and reading through --stream. All take turns
in one process; figures are medians of the repetitions, in CPU seconds of the process and its worker.

  python benchmarks/loader.py
  python benchmarks/loader.py --shards pairs --json loader.json
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from segloc_synth.console import cores
from segloc_synth.files import write_json
from segloc_train.data.data import Pairs
from segloc_train.data.loader import batches
from segloc_train.data.order import BatchOrder, split
from segloc_train.data.sources import Sources, open_sources
from segloc_train.data.stream import StreamOrder, stream_batches

PAIRS, SIZE, BATCH = 2000, 256, 64
GOAL = 0.8  # of the yardstick's pairs a second


def default_shards(folder: Path) -> Path:
    """A build of simulated scans."""
    command = [sys.executable, "-m", "segloc_synth", "build", "--n", str(PAIRS), "--size", str(SIZE)]
    subprocess.run([*command, "--shard-size", "500", "--out", str(folder)], check=True, stderr=subprocess.DEVNULL)
    return folder


def tasks(sources: Sources, limit: int) -> dict[str, tuple[Callable[[], object], int]]:
    """What is measured, by name, and of how many pairs."""
    places = split(sources.scans, sources.scan_names).train
    order = BatchOrder(places, 0, BATCH, 1)
    epoch = list(order)[: max(1, limit // BATCH)]
    count = sum(map(len, epoch))
    samples = [sources.read(place) for row in epoch for place in row]
    files = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for one in samples for data in (one.query, one.key)]
    lists = [files[first : first + 2 * BATCH] for first in range(0, len(files), 2 * BATCH)]
    device = torch.device("cpu")
    stream = StreamOrder(sources, places, 0, BATCH, 1)

    def read(pairs: Pairs, workers: int = 0) -> Callable[[], object]:
        return lambda: exhaust(batches(pairs, epoch, workers, device))

    def fetch() -> None:
        pairs = Pairs(sources, decode="device")
        for row in epoch:
            pairs.__getitems__(row)

    return {
        "decoding alone": (lambda: decode(files), count),
        "decoding alone, lists": (lambda: decode(lists), count),
        "reading": (read(Pairs(sources)), count),
        "reading with masks": (read(Pairs(sources, masks=True)), count),
        "reading, in a worker": (read(Pairs(sources), 1), count),
        "reading, not decoded": (fetch, count),
        "--stream": (lambda: exhaust(stream_batches(Pairs(sources), stream, 0, device)), stream.steps * BATCH),
    }


def decode(files: Iterable[Any]) -> None:
    """Decode one after the other, keeping nothing."""
    for one in files:
        decode_jpeg(one, ImageReadMode.RGB)


def exhaust(stream: Iterable[object]) -> None:
    """Take all; an error is raised."""
    for item in stream:
        if isinstance(item, Exception):
            raise item


@click.command()
@click.option("--shards", type=click.Path(exists=True, path_type=Path), help="A build.  [default: simulated, 256 px]")
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True, help="Repetitions, taking turns.")
@click.option("--limit", type=click.IntRange(BATCH), default=PAIRS, show_default=True, help="Pairs to read at most.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Also write all measurements here.")
def main(shards: Path | None, repeat: int, limit: int, report: Path | None) -> None:
    """Measure pairs a second of one core, against decoding alone."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="loader-") as scratch:
        sources = open_sources([str(shards or default_shards(Path(scratch) / "pairs"))])
        measured: dict[str, list[float]] = {}
        rows = tasks(sources, limit)
        for _, (run, _) in rows.items():
            run()  # once for the page cache
        loads = [os.getloadavg()[0]]
        for _ in range(repeat):
            for name, (run, count) in rows.items():
                start = sum(os.times()[:4])
                run()
                measured.setdefault(name, []).append((sum(os.times()[:4]) - start) / count)
            loads.append(os.getloadavg()[0])
    medians = {name: statistics.median(seconds) for name, seconds in measured.items()}
    best = medians["decoding alone"]
    click.echo(f"{'':24}{'pairs/s':>10}{'us/pair':>10}{'of decoding':>14}{'goal':>8}")
    for name, seconds in medians.items():
        goal = f">= {GOAL}" if name == "reading" else ""
        click.echo(f"{name:24}{1 / seconds:10.0f}{1e6 * seconds:10.0f}{best / seconds:14.2f}{goal:>8}")
    click.echo(f"{sources.image_size} px, batches of {BATCH}, one of {cores()} cores, torch {torch.__version__}")
    click.echo(f"load average {min(loads):.1f} to {max(loads):.1f}")
    if report:
        write_json(report, {"seconds": measured, "load": loads, "cores": cores()})


if __name__ == "__main__":
    main()
