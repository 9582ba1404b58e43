"""What does a training step cost, and what does each measure gain? A ladder from a plain step to the trainer's own.

Every rung keeps the one before it and changes one thing; the last one is the trainer, unchanged. All do the same work:
the default method, augmented pairs, statistics in groups, five levels. Beside it the goal: forward and backward of the
bare trunk with feature pyramid on the queries and one more forward on the keys, with the trainer's settings, and
nothing else; by groups as the trainer goes, and in one batch. Below it what the trainer leaves out, measured on
top of it.

  plain            float32 (TF32 on CUDA), NCHW, MoCo's queue as published, loops over parameters in both updates,
                   blocking copies, the loss read after every step
  channels_last    memory format of weights and pictures
  bfloat16         autocast (CUDA alone, as in the trainer)
  foreach          both updates for all parameters at once
  key store        one queue per class, walked in chunks
  nothing read     the loss stays on the device
  trainer          and pinned, non-blocking copies: segloc_train.run.trainer.Trainer.advance

Rungs take turns, the ratio is that of the medians. On CUDA it is time between events, with nothing waited for inside;
on the CPU it is CPU time of one core, steadier than wall time on a shared machine. The real run at the end reads a
build from disk: `data wait` is the share of the time that the trainer waited for pairs.

  python benchmarks/train_step.py --arch resnet18 --width 64 --size 96 --batch-size 32
  python benchmarks/train_step.py --device cuda --arch resnet101 --json r101.json
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from train_ways import Run, ladder, random_batch, runs_of, settings

from segloc_synth.files import write_json
from segloc_train.config import Config
from segloc_train.data.data import Batch
from segloc_train.dist import local_device
from segloc_train.flags import TYPES

ROUNDS = 3  # turns of every rung
STEPS = 30  # of the real run, and a few more: a part of the pairs is held out


class Bench:
    """Batches, and how long steps on them take."""

    def __init__(self, config: Config, size: int, steps: int, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self.config, self.steps, self.device, self.cuda = config, steps, device, cuda
        self.pinned = [random_batch(config.batch_size, size, cuda) for _ in range(2)]
        self.pageable = (
            [Batch(*(v.map(Tensor.clone) for v in b[:2]), *b[2:]) for b in self.pinned] if cuda else self.pinned
        )

    def seconds(self, run: Run, batches: list[Batch], steps: int) -> float:
        """Of one step, the mean of `steps` in a row."""
        if not self.cuda:
            start = time.process_time()
            for number in range(steps):
                run(batches[number % 2])
            return (time.process_time() - start) / steps
        torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for number in range(steps):
            run(batches[number % 2])
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3 / steps

    def peak(self, run: Run) -> int | None:
        """Bytes on the device that a step needs beside what is there before it; None on the CPU."""
        if not self.cuda:
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(self.pinned[0])
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def busy(self, run: Run) -> float | None:
        """Seconds a step in which the device computes, from the profiler; None on the CPU."""
        if not self.cuda:
            return None
        kinds = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=kinds) as profile:
            for number in range(2):
                run(self.pinned[number])
            torch.cuda.synchronize()
        spans = sorted(
            (e.time_range.start, e.time_range.end)
            for e in profile.events()
            if e.device_type == torch.autograd.DeviceType.CUDA
        )
        total = reached = 0.0
        for start, end in spans:
            total += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return total / 2 / 1e6

    def matrix_rate(self) -> float:
        """Operations a second of a large matrix product or 3x3 convolution, the faster, in the trainer's dtype.

        On CPUs two libraries do them: on an AMD EPYC, MKL's product was 0.4 times as fast as oneDNN's convolution.
        """
        side, channels, pixels = (8192, 512, 64) if self.cuda else (2048, 256, 32)
        like: dict[str, Any] = {"device": self.device, "dtype": torch.bfloat16 if self.cuda else torch.float32}
        a, x = torch.randn(side, side, **like), torch.randn(32, channels, pixels, pixels, **like)
        kernel = torch.randn(channels, channels, 3, 3, **like)
        x, kernel = (t.contiguous(memory_format=torch.channels_last) for t in (x, kernel))

        def rate(run: Callable[[], Tensor], operations: int) -> float:
            times = [self.seconds(lambda _: run(), self.pinned, 5 if self.cuda else 1) for _ in range(5)]
            return operations / statistics.median(times[1:])

        products = rate(lambda: a @ a, 2 * side**3)
        return max(products, rate(lambda: F.conv2d(x, kernel, padding=1), 18 * channels * x.numel()))

    def measure(self, runs: dict[str, Run]) -> dict[str, dict[str, Any]]:
        """By name: seconds a step (median over rounds that take turns), seconds of the first step, peak bytes."""
        measured: dict[str, dict[str, Any]] = {}
        for name, run in list(runs.items()):
            try:
                first = self.seconds(run, self.batches(name), 1)
                self.seconds(run, self.batches(name), 2)
                measured[name] = {"first": first, "times": [], "peak": self.peak(run)}
            except torch.cuda.OutOfMemoryError:
                click.echo(f"{name}: does not fit into the device's memory")
                del runs[name]
        for _ in range(ROUNDS):
            for name, run in runs.items():
                measured[name]["times"].append(self.seconds(run, self.batches(name), self.steps))
        for row in measured.values():
            row["seconds"] = statistics.median(row["times"])
        return measured

    def batches(self, name: str) -> list[Batch]:
        """Pinned ones for the trainer, as its loader makes them; others for what comes before it."""
        return self.pageable if name in ladder(self.device) else self.pinned


def operations(run: Run, batch: Batch) -> int:
    """Multiplications and additions of a step's matrix products and convolutions, depthwise ones back as full ones."""
    # Attention in single products, as the fused one is not counted on a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run(batch)
    return counter.get_total_flops()


def report(
    bench: Bench, measured: dict[str, dict[str, Any]], flops: int, bare: int, rate: float, busy: float | None
) -> None:
    """Print the table and the goal."""
    batch, best = bench.config.batch_size, measured["trainer"]["seconds"]
    before = None
    click.echo(f"{'':18}{'s a step':>10}{'samples/s':>11}{'gain':>7}{'/ trainer':>11}{'peak GB':>9}")
    for name, row in measured.items():
        seconds = row["seconds"]
        rung = name in ladder(bench.device) or name == "trainer"
        base = before if rung else best if name.startswith("+") else None
        gain = f"{base / seconds:.2f}" if base else ""
        peak = f"{row['peak'] / 1e9:.1f}" if row["peak"] else ""
        click.echo(f"{name:18}{seconds:10.3f}{batch / seconds:11.1f}{gain:>7}{best / seconds:11.2f}{peak:>9}")
        before = seconds if rung else before
    for name, mine in (("bare, in groups", "trainer"), ("bare, one batch", "trainer"), ("bare, compiled", "+ compile")):
        if name in measured:
            share = measured[name]["seconds"] / measured[mine]["seconds"]
            click.echo(f"{mine} does {share:.2f} of the samples of: {name} (goal 0.85)")
    if "+ compile" in measured:
        click.echo(f"first step with compile: {measured['+ compile']['first']:.0f} s")
    click.echo(
        f"{flops / 1e12:.2f} TFLOP a step, bare {bare / flops:.2f} of it; {flops / best / 1e12:.2f} TFLOP/s: "
        f"{flops / best / rate:.0%} of the {rate / 1e12:.2f} that its matrix units were seen to do"
    )
    if busy is not None:
        click.echo(f"device without work, data in memory: {max(0.0, 1 - busy / best):.1%} of the time")


def data_wait(flags: Sequence[object], pairs: int, size: int, shards: Path | None, work: Path) -> float:
    """Share of the time that a real run waits for pairs, after the first record; `pairs` are built if need be."""

    def run(module: str, *options: object) -> None:
        done = subprocess.run([sys.executable, "-m", module, *map(str, options)], capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(done.stderr.strip())

    if shards is None:
        shards = work / "pairs"
        run("segloc_synth", "build", "--n", pairs, "--size", size, "--out", shards)
    run("segloc_train", "--shards", shards, "--out", work / "run", "--epochs", 1, *flags)
    records = [json.loads(line) for line in (work / "run" / "log.jsonl").read_text().splitlines()]
    return statistics.median(x["data_wait"] for x in records[1:] or records)


@click.command()
@click.option("--arch", "archs", type=TYPES["arch"], multiple=True, default=["resnet50", "resnet101"])
@click.option("--width", type=click.Choice(["256", "64"]), default="256", show_default=True, help="Of the pyramid.")
@click.option("--size", type=click.IntRange(min=64), default=256, show_default=True, help="Side in pixels.")
@click.option("--batch-size", type=click.IntRange(min=16), default=256, show_default=True)
@click.option("--bn-group", type=click.IntRange(min=8), help="Samples per batch statistic.  [default: the trainer's]")
@click.option("--queue-size", type=click.IntRange(min=1), default=65536, show_default=True, help="K.")
@click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True, help="In a row, three times.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--compile", "compile_too", is_flag=True, help="Also with torch.compile: takes minutes.")
@click.option("--shards", type=click.Path(exists=True, path_type=Path), help="Build to read.  [default: made]")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Also write all measurements here.")
def main(
    archs: tuple[str, ...],
    width: str,
    size: int,
    batch_size: int,
    bn_group: int | None,
    queue_size: int,
    steps: int,
    device: str,
    compile_too: bool,
    shards: Path | None,
    target: Path | None,
) -> None:
    """Measure a training step; prints the ladder, the goal, and how busy the device is."""
    where = local_device(device)
    if where.type == "cpu":
        torch.set_num_threads(1)
    if queue_size % batch_size:
        raise click.UsageError("--queue-size must be a multiple of --batch-size, or MoCo's queue does not work")
    shared = ["--width", width, "--batch-size", batch_size, "--queue-size", queue_size, "--device", device]
    shared += ["--optimizer", "sgd", "--crop", 1, *(["--bn-group", bn_group] if bn_group else [])]
    name = torch.cuda.get_device_name() if device == "cuda" else "one CPU core"
    results = {}
    for arch in archs:
        loads = [os.getloadavg()[0]]
        flags = ["--arch", arch, *shared]
        config = settings(*flags)
        told = f"{arch}, width {width}, {size} px, batch {batch_size} in groups of {config.bn_group}, K {queue_size}"
        click.echo(f"{told}; {name}")
        bench = Bench(config, size, steps, where)
        runs = runs_of(config, where, compile_too)
        measured = bench.measure(runs)
        flops, bare = (operations(runs[x], bench.pinned[0]) for x in ("trainer", "bare, in groups"))
        rate, busy = bench.matrix_rate(), bench.busy(runs["trainer"])
        report(bench, measured, flops, bare, rate, busy)
        del runs, bench
        with tempfile.TemporaryDirectory(prefix="train_step-") as scratch:
            waited = data_wait(flags, STEPS * batch_size * 5 // 4, size, shards, Path(scratch))
        click.echo(f"data wait of a real run: {waited:.1%} (goal under 5 %)")
        loads.append(os.getloadavg()[0])
        click.echo(f"load average {min(loads):.1f} to {max(loads):.1f}")
        results[arch] = {
            "measured": measured,
            "flops": flops,
            "bare_flops": bare,
            "matrix_rate": rate,
            "busy": busy,
            "data_wait": waited,
        }
    if target:
        write_json(target, {"device": name, "size": size, "batch": batch_size, "results": results})


if __name__ == "__main__":
    main()
