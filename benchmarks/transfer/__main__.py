"""Does pretraining pay? Experiments on simulated scans, unit by unit, with the commands that anyone would type.

  python -m benchmarks.transfer plan                      what there is to do, and how long it takes
  python -m benchmarks.transfer run arms --hours 2        the missing units of an experiment, in order
  python -m benchmarks.transfer table arms                its table, from the committed records; --cost: time, memory
  python -m benchmarks.transfer charts                    the charts of docs/EVIDENCE.md

Run it from the root of a checkout, in the environment that `make venv` makes. Everything is rebuilt from seeds below
--work, which may be deleted at any time; what was stopped goes on. Records are appended to
benchmarks/transfer/records.jsonl.
"""

import datetime
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from benchmarks.transfer import charts, records
from benchmarks.transfer.arms import CPU, GPU, Experiment
from benchmarks.transfer.commands import Runner, Stopped
from benchmarks.transfer.experiments import EXPERIMENTS
from benchmarks.transfer.stages import Stages, Unit
from benchmarks.transfer.tables import columns, costs, foretold, processor_hours, table

from segloc_eval.run.machine import versions
from segloc_synth import console

ORDER = {experiment.name: experiment for experiment in EXPERIMENTS}
on_gpu = click.option("--gpu", is_flag=True, help="ResNet-50 and 256 pixels on CUDA, one unit at once.")
names = click.argument("names", nargs=-1, type=click.Choice(list(ORDER)))


@click.group()
def main() -> None:
    """Does segment pretraining pay? See docs/EVIDENCE.md."""


@main.command()
@names
def plan(names: Sequence[str]) -> None:
    """Units done and missing, and the processor hours that they took and take."""
    known = records.read()
    taken = total = 0.0
    for experiment in chosen(names):
        missing = missing_units(experiment, known)
        hours = sum(foretold(known, unit, CPU) for unit in missing) / 3600
        spent = processor_hours(record for record in known if record["experiment"] == experiment.name)
        taken, total = taken + spent, total + hours
        units = len(all_units(experiment))
        click.echo(
            f"{experiment.name}: {units - len(missing)} of {units} units, {spent:.1f} h taken, {hours:.1f} h left. "
            f"{experiment.question}"
        )
    click.echo(f"in all {taken:.1f} hours of one core known, without simulating scans; {total:.1f} left, with it")


@main.command()
@names
@click.option("--hours", type=float, default=1e6, help="Stop after so long; the same command goes on.  [default: none]")
@click.option("--jobs", type=click.IntRange(1), default=max(1, (os.cpu_count() or 1)), help="Units at once.")
@click.option("--seeds", type=click.IntRange(1), default=100, help="Only the first seeds.  [default: all]")
@click.option("--arm", "arms", multiple=True, help="Only these arms. Repeatable.  [default: all]")
@click.option("--work", type=click.Path(path_type=Path), default=Path("transfer-work"), show_default=True)
@on_gpu
def run(names: Sequence[str], hours: float, jobs: int, seeds: int, arms: Sequence[str], work: Path, gpu: bool) -> int:
    """Do the missing units of the experiments, those that decide most first."""
    beside = Path(sys.executable).parent  # the tools of this environment, active or not
    os.environ["PATH"] = f"{beside}{os.pathsep}{os.environ['PATH']}"
    profile = GPU if gpu else CPU
    device, jobs, threads = ("cuda", 1, os.cpu_count() or 1) if gpu else ("cpu", jobs, 1)
    deadline = time.monotonic() + 3600 * hours
    # Scripts start background jobs with SIGINT ignored, which the tools would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    made_by = records.generator()
    known = records.read(gpu=gpu)
    others = {record["generator"] for record in known if record["experiment"] in (names or ORDER)} - {made_by}
    if others:
        raise click.ClickException(
            f"{records.RECORDS}: holds records of generator {', '.join(sorted(others))}, this checkout's is {made_by}; "
            "they cannot be compared: remove them first"
        )
    stages = Stages(Runner(work, threads, deadline), profile, device)
    about = {
        **{"generator": made_by, "commit": records.commit(), "versions": versions()},
        **{"processor": records.processor(), "threads": threads},
        "device": torch.cuda.get_device_name() if gpu else "cpu",
    }
    if unknown := set(arms) - {arm.name for experiment in chosen(names) for arm in experiment.arms}:
        raise click.UsageError(f"no such arm: {', '.join(sorted(unknown))}")
    missing = [unit for experiment in chosen(names) for unit in missing_units(experiment, known)]
    waiting = [unit for unit in missing if unit.seed < seeds and (not arms or unit.arm.name in arms)]
    failed = 0
    with ThreadPoolExecutor(jobs) as pool:
        try:
            failed = work_off(waiting, pool, jobs, stages, about)
        except KeyboardInterrupt:
            stages.runner.deadline = 0.0  # what runs is asked to stop, and waited for
            click.echo("stopping; the same command goes on", err=True)
    for done in chosen(names):
        click.echo(f"\n## {done.name}\n\n{table(records.timed(records.read(gpu=gpu)), done, columns(done, gpu))}")
    return 3 if failed else 0


def work_off(waiting: list[Unit], pool: ThreadPoolExecutor, jobs: int, stages: Stages, about: dict[str, Any]) -> int:
    """Do the units, so many at once, in order; each leaves a record when it is done. Returns how many failed."""
    failed = 0
    running: dict[Future[dict[str, Any]], Unit] = {}
    while running or (waiting and time.monotonic() < stages.runner.deadline):
        while waiting and len(running) < jobs and time.monotonic() < stages.runner.deadline:
            unit = waiting.pop(0)
            if _is_done(unit, about):
                continue
            click.echo(f"{_now()} {unit}", err=True)
            running[pool.submit(stages.unit, unit)] = unit
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            unit = running.pop(future)
            try:
                found = future.result()
            except (Stopped, OSError) as reason:
                click.echo(f"{_now()} {unit}: {reason}", err=True)
                failed += time.monotonic() < stages.runner.deadline
                continue
            experiment, arm, share, seed = unit.key
            named = {"experiment": experiment, "arm": arm, "share": share, "seed": seed}
            if not _is_done(unit, about):
                records.append({**named, "date": _now(), "on": unit.experiment.on, **about, **found})
    return failed


def _is_done(unit: Unit, about: dict[str, Any]) -> bool:
    """Has it a record, maybe of another runner?"""
    return unit.key in map(records.key, records.read(gpu=about["device"] != "cpu"))


@main.command(name="table")
@names
@click.option("--cost", is_flag=True, help="Time and memory instead of scores.")
@click.option("--base", help="Differences to this arm.  [default: the experiment's own]")
@click.option("--seed", type=click.IntRange(0), help="Of this seed alone.  [default: mean of all]")
@on_gpu
def show(names: Sequence[str], cost: bool, base: str | None, seed: int | None, gpu: bool) -> None:
    """Print the experiments' tables from the records."""
    known = [record for record in records.timed(records.read(gpu=gpu)) if seed in (None, record["seed"])]
    experiments = chosen(names)
    if base:
        experiments = [replace(one, base=base) for one in experiments if base in {arm.name for arm in one.arms}]
        if not experiments:
            raise click.UsageError(f"no such arm: {base}")
    for experiment in experiments:
        shown = costs(gpu) if cost else columns(experiment, gpu)
        click.echo(f"## {experiment.name}: {experiment.question}\n\n{table(known, experiment, shown)}")


@main.command(name="charts")
@names
def draw(names: Sequence[str]) -> None:
    """Draw docs/evidence-NAME.svg of the experiments from the records."""
    for path in charts.write(records.read(), chosen(names), records.ROOT / "docs"):
        click.echo(path)


def chosen(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names, all where none is named."""
    return [ORDER[name] for name in names or ORDER]


def all_units(experiment: Experiment) -> list[Unit]:
    """Seed by seed, so that what is stopped early has compared all arms."""
    return [
        Unit(experiment, arm, share, seed)
        for seed in range(experiment.seeds)
        for share in experiment.shares
        for arm in experiment.arms
        if seed < (arm.seeds or experiment.seeds)
    ]


def missing_units(experiment: Experiment, known: Sequence[dict]) -> list[Unit]:
    """Units without a record."""
    done = {records.key(record) for record in known}
    return [unit for unit in all_units(experiment) if unit.key not in done]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    console.run(main)
