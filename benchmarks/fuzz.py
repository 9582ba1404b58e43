"""What becomes of damaged data? Labels, lists and pictures of every layout, mutated at random, through the commands.

Each case is a small sound data set with one to three damages, by its seed and number alone, which one or two of
`segloc-synth check`, `build`, `segloc-eval labels` and `convert` get. The commands run as their console scripts do, in
forked processes under limits of time and memory; some cases run as processes of their own too. Looked for are
tracebacks, hangs, memory, long or missing messages, exit codes that are wrong, and files that are left behind.
What is found is kept in a folder; `--case` runs it again, alone.

  python benchmarks/fuzz.py --files 400 --pictures 100 --processes 10
  python benchmarks/fuzz.py --seed 3 --case 1234
"""

import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from io import FileIO, TextIOWrapper
from pathlib import Path
from typing import NamedTuple, NoReturn

import click
import cv2
from fuzz_damage import mutate
from fuzz_data import Files, Layout, arguments, layouts, prepare, write
from fuzz_pictures import damage_picture

import segloc_eval.cli
import segloc_eval.data.datasets
import segloc_synth.cli
from segloc_synth import console

SECONDS = 20  # of CPU that a command may take; a forked one that waits for ever gets five times as many
MEMORY = 4 << 30  # bytes that a command may take beside what is loaded
LONGEST = 2000  # characters of an error
HANGS = (-signal.SIGALRM, -signal.SIGPROF)
COMMANDS = ("check", "labels", "convert", "build")
CLIS = {"check": "segloc_synth", "build": "segloc_synth", "labels": "segloc_eval", "convert": "segloc_eval"}


@dataclass
class Case:
    """What was done to which layout, what came of each command, what was found, and the CPU seconds it took."""

    number: int
    layout: str
    damages: list[str]
    outcomes: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    cpu: float = 0.0


class Ended(NamedTuple):
    """A command's end: exit status (negative: a signal), what it printed, CPU seconds."""

    status: int
    out: str
    err: str
    cpu: float


class Job(NamedTuple):
    """How cases are drawn and run: below `root`, the first `files` of them of label files, the rest of pictures."""

    seed: int
    files: int
    root: Path
    keep: Path | None
    processes: frozenset[int] = frozenset()


sound = cache(layouts)


def drawn(job: Job, number: int, chosen: Iterable[int] | None = None) -> tuple[str, Layout, Files, list[str]]:
    """The layout's name, it and its damaged files, and the damages: the `chosen` ones of those that the case draws."""
    name = list(sound())[number % len(sound())]
    files = dict(sound()[name].files)
    damage = mutate if number < job.files else damage_picture
    rngs = [random.Random(f"{job.seed} {number} {place}") for place in range(1 + min(2, number // len(sound()) % 5))]
    return name, sound()[name], files, [damage(files, rngs[place]) for place in chosen or range(len(rngs))]


def forked(command: str, args: list[str], folder: Path) -> Ended:
    """Run a command in a forked process, as its console script does."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        _run(command, args, folder)
    _, status, usage = os.wait4(pid, 0)
    said = [(folder / name).read_text(errors="replace") for name in ("stdout", "stderr")]
    return Ended(os.waitstatus_to_exitcode(status), *said, usage.ru_utime + usage.ru_stime)


def _run(command: str, args: list[str], folder: Path) -> NoReturn:
    code: object = 99
    try:
        for own in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(own, signal.SIG_DFL)
        signal.alarm(5 * SECONDS)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        os.chdir(folder)
        os.environ |= _environment(folder)
        tempfile.tempdir = None
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout = TextIOWrapper(FileIO(1, "w"), "utf-8", write_through=True)
        sys.stderr = TextIOWrapper(FileIO(2, "w"), "utf-8", "backslashreplace", write_through=True)
        logging.root.handlers.clear()
        sys.argv = [f"{CLIS[command].replace('_', '-')}", *args]
        console.run(segloc_synth.cli.cli if CLIS[command] == "segloc_synth" else segloc_eval.cli.command)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code if isinstance(code, int) else 0)


def _environment(folder: Path) -> dict[str, str]:
    return {"SEGLOC_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home")}


def whole(command: str, args: list[str], folder: Path) -> Ended:
    """Run a command as a process of its own."""
    line = [sys.executable, "-m", CLIS[command], *args]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            line, cwd=folder, env={**os.environ, **_environment(folder)}, capture_output=True, timeout=5 * SECONDS
        )
        end = (done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    except subprocess.TimeoutExpired:
        end = (-signal.SIGALRM, "", "")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Ended(*end, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def faults_of(end: Ended) -> list[str]:
    """What is wrong with how a command ended and what it said."""
    error = end.err[end.err.find("Error: ") :] if "Error: " in end.err else ""
    wrong = {
        "hang": end.status in HANGS,
        "memory": "MemoryError" in end.err or "nsufficient memory" in end.err or end.status == -signal.SIGKILL,
        "traceback": "Traceback" in end.err or end.status == 99 or (end.status < 0 and end.status not in HANGS),
        "long message": len(error) > LONGEST or end.err.count("\nError: ") + end.err.startswith("Error: ") > 1,
        "no message": end.status > 0 and not error and not end.out.strip(),
        "wrong exit": end.status == 0 and bool(error),
        "noise": "Warning: " in end.err,
    }
    return [kind for kind, met in wrong.items() if met]


def outcome(command: str, end: Ended, out: Path) -> tuple[str, list[str]]:
    """What came of a command, and what is wrong with it: nothing usable is no success, a refusal leaves nothing."""
    if command == "check" and end.out.strip():
        return ("used all" if end.status == 0 else "used some"), []
    if end.status == 0:
        empty = {
            "labels": lambda: not (out / "labels-all.txt").read_bytes(),
            "convert": lambda: (
                " skipped: " in end.err
                and not any(json.loads(path.read_bytes())["annotations"] for path in (out / "annotations").iterdir())
            ),
            "build": lambda: not (out / "manifest.json").exists(),
            "check": lambda: True,
        }
        return ("used some" if " skipped: " in end.err else "used all"), ["wrong exit"] * empty[command]()
    resumable = end.status in HANGS or (command == "build" and (out / "config.json").exists())
    return "refused in a line", ["left over"] * (out.exists() and not resumable)


def listing(folder: Path) -> set[tuple[str, int, int]]:
    paths = (path for path in folder.rglob("*") if not path.is_dir())
    return {(str(path), (found := path.lstat()).st_size, found.st_mtime_ns) for path in paths}


def run_command(command: str, args: list[str], folder: Path, root: Path, real: bool) -> tuple[str, list[str], Ended]:
    """Its outcome, what was found, and its end. Its traces in the case's folder are removed."""
    before, beside = listing(folder / "set"), {path.name for path in root.iterdir() if path.name[:5] != "case-"}
    for name in ("tmp", "home"):
        (folder / name).mkdir(exist_ok=True)
    end = (whole if real else forked)(command, args, folder)
    came, found = outcome(command, end, folder / "out")
    known = {"set", "tmp", "home", "cache", "out", "stdout", "stderr"}
    traces = [path for name in ("tmp", "home") for path in (folder / name).iterdir()]
    traces += [path for path in folder.iterdir() if path.name not in known]
    traces += [path for part in ("out", "cache") for path in (folder / part).rglob(".tmp")]
    changed = {path.name for path in root.iterdir() if path.name[:5] != "case-"} != beside
    if end.status not in HANGS and (traces or changed or listing(folder / "set") != before):
        found.append("left over")
    found = list(dict.fromkeys(faults_of(end) + found))
    for name in ("tmp", "home", "cache", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return ("found" if found else came), [f"{kind}: {command}: {_last(end)}" for kind in found], end


def _last(end: Ended) -> str:
    return ([line for line in (end.err or end.out).splitlines() if line.strip()] or [f"exit {end.status}"])[-1][:200]


def run_case(number: int, job: Job, chosen: Iterable[int] | None = None) -> Case:
    """Draw a case, run its commands, keep what was found as a folder."""
    start = time.process_time()
    name, layout, files, damages = drawn(job, number, chosen)
    case = Case(number, name, damages)
    rng = random.Random(f"{job.seed} {number}")
    folder = job.root / f"case-{number}"
    usual = COMMANDS[number // len(sound()) % 4]
    commands = {"check", "build" if layout.benign and usual != "check" else usual}
    write(folder / "set", files)
    for command in sorted(commands):
        args = arguments(command, layout, rng)
        came, found, end = run_command(command, args, folder, job.root, real=False)
        case.outcomes.append(f"{command}: {came}")
        case.cpu += end.cpu
        if number in job.processes and chosen is None:
            _, others, other = run_command(command, args, folder, job.root, real=True)
            case.cpu += other.cpu
            differs = f"process differs: {command}: {end.status}, {other.status}"
            found += others + [differs] * (end.status != other.status)
        case.findings += found
    shutil.rmtree(folder, ignore_errors=True)
    if case.findings:
        alone = (run_case(number, job, [place]) for place in range(len(damages)) if len(damages) > 1)
        if smaller := next((one for one in alone if one.findings), None):  # which has kept itself
            case = smaller
        elif job.keep:
            _keep(job.keep / f"seed-{job.seed}-case-{number}", case, files)
    case.cpu += time.process_time() - start
    return case


def _keep(folder: Path, case: Case, files: Files) -> None:
    write(folder / "set", files)
    (folder / "found.txt").write_text("\n".join([case.layout, *case.damages, *case.findings]) + "\n", errors="replace")


def table(counts: Counter[tuple[str, str]]) -> list[str]:
    """A line per second key, a column per first."""
    columns, lines = sorted({a for a, _ in counts}), sorted({b for _, b in counts})
    wide = max(map(len, lines), default=0) + 2
    heads = [f"{'':{wide}}" + " ".join(f"{column:>12}" for column in columns)]
    return heads + [f"{line:{wide}}" + " ".join(f"{counts[column, line]:12}" for column in columns) for line in lines]


@click.command(context_settings={"show_default": True})
@click.option("--seed", default=0, help="Same seed, same cases.")
@click.option("--files", default=10_000, help="Cases of damaged label files, lists and names.")
@click.option("--pictures", default=1_000, help="Cases of damaged pictures.")
@click.option("--processes", default=200, help="Cases that run as processes of their own too.")
@click.option("--workers", default=2, help="Cases at a time.")
@click.option("--case", type=int, help="Run this case alone, of the same --files.")
@click.option("--keep", default="fuzz-findings", type=click.Path(path_type=Path), help="Folder for what is found.")
def main(seed: int, files: int, pictures: int, processes: int, workers: int, case: int | None, keep: Path) -> None:
    """Run damaged data through the commands; exit 1 if anything was found."""
    total = files + pictures
    numbers = range(total) if case is None else [case]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        real = frozenset(range(0, total, max(1, total // processes)) if processes else ())
        job = Job(seed, files, Path(scratch), keep.absolute(), real)
        cv2.setNumThreads(1)
        prepare(job.root)
        with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
            cases = []
            for done in pool.map(partial(run_case, job=job), numbers, chunksize=4):
                cases.append(done)
                for finding in done.findings:
                    click.echo(f"case {done.number}, {done.layout}, {', '.join(done.damages)}: {finding}", err=True)
    kinds = Counter((case.layout, kind) for case in cases for kind in case.damages)
    ends = Counter(tuple(end.split(": ")) for case in cases for end in case.outcomes)
    for line in [*table(kinds), "", *table(ends)]:  # type: ignore[arg-type]
        click.echo(line)
    found = [finding for case in cases for finding in case.findings]
    met = Counter(finding.partition(":")[0] for finding in found)
    click.echo(f"\n{len(cases)} cases, {sum(case.cpu for case in cases):.0f} s of CPU; found: {dict(met) or 'nothing'}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
