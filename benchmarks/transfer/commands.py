"""Commands that are run once: each writes one folder, named after what it does, its flags and its program's sources.

A command that was stopped is run again and goes on where it was; one that is done is not, whoever asks for it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from segloc_synth.files import write_json

ROOT = Path(__file__).parents[2]
PROGRAMS = {  # and the sources that decide what each of them writes: of other sources nothing is taken over
    "segloc-synth": ("synth",),
    "segloc-train": ("synth", "train"),
    "segloc-eval": ("synth", "train", "eval"),
    "python": ("synth", "train", "eval", "benchmarks/transfer/backbone.py", "benchmarks/transfer/neighbours.py"),
}
NOTES = "notes"  # folder of each command's output, lock, and NAME.json: what it took; the mark that it is finished
NOTHING: dict[str, Any] = {"cpu_seconds": 0.0, "seconds": 0.0, "peak_bytes": 0}  # that a command took


class Stopped(Exception):
    """A command ended otherwise than well: `reason` is its last line."""


class Done(NamedTuple):
    """A command as typed, what it wrote (its folder, or the file of what it printed), and what it took (as NOTHING)."""

    command: list[str]
    path: Path
    cost: dict[str, Any]


class Runner:
    """Runs commands below a folder, each once.

    Args:
        work: for all that is computed; may be deleted at any time.
        threads: of each command.
        deadline: time.monotonic() at which running commands are stopped, as by Ctrl-C; may be changed meanwhile.
    """

    def __init__(self, work: Path, threads: int, deadline: float) -> None:
        self.work, self.threads, self.deadline = work, threads, deadline
        self.sources = {program: _digest(parts) for program, parts in PROGRAMS.items()}

    def run(self, program: str, flags: Sequence[str], base: Path, name: str, prints: bool = False) -> Done:
        """`program flags --out FOLDER`, or `program flags` that `prints`, where it is not done; FOLDER is base/name-...

        Raises:
            Stopped: it failed, or the deadline came.
        """
        identity = [program, self.sources[program], *flags]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
        folder = base / f"{name}-{digest}"
        notes = base / NOTES / folder.name
        done = notes.with_name(f"{notes.name}.json")
        command = [program, *flags, *(() if prints else ("--out", str(folder)))]
        with self._alone(notes.with_name(f"{notes.name}.lock")) as lock:
            if not done.exists():
                if flags[0] == "phantom":  # it refuses a folder that it wrote for a runner that was killed
                    shutil.rmtree(folder, ignore_errors=True)
                resumable = program == "segloc-train" and (folder / "config.json").exists()
                typed = [program, "--resume", str(folder)] if resumable else command
                log, spent = (notes.with_name(f"{notes.name}.{kind}") for kind in ("log", "spent"))
                self._run(typed, log, spent, lock, folder if prints else None)
                spent.rename(done)
            return Done(command, folder, json.loads(done.read_text()))

    @contextmanager
    def _alone(self, lock: Path) -> Iterator[int]:
        """No other process is in this block with this file, nor has it open from there; it waits until none is."""
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > self.deadline:
                        raise Stopped(f"another runner is at {lock.stem}") from None
                    time.sleep(0.2)
            yield file.fileno()

    def _run(self, command: Sequence[str], log: Path, spent: Path, lock: int, told: Path | None) -> None:
        """Run to the end; adds processor and wall seconds to those in `spent`, of runs that were stopped.

        They are null, not known, of a run whose end no runner has seen.
        What it prints goes to the file `told`, else to the log as its errors do.
        The command holds the file `lock` as well, so that none like it is started beside one that outlived its runner.
        """
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "SEGLOC_CACHE": str(self.work / "cache")}
        before = json.loads(spent.read_text()) if spent.exists() else NOTHING
        write_json(spent, {**before, "cpu_seconds": None, "seconds": None})
        begun = time.monotonic()
        with log.open("a") as file, told.open("w") if told else nullcontext(file) as printed:
            process = subprocess.Popen(
                command, stdout=printed, stderr=file, env=env, cwd=ROOT, start_new_session=True, pass_fds=(lock,)
            )
            asked = False
            while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                if not asked and time.monotonic() > self.deadline:
                    os.killpg(process.pid, signal.SIGINT)
                    asked = True
                time.sleep(0.2)
        code = os.waitstatus_to_exitcode(ended[1])
        usage = ended[2]
        cost = {
            "cpu_seconds": plus(before["cpu_seconds"], usage.ru_utime + usage.ru_stime),
            "seconds": plus(before["seconds"], time.monotonic() - begun),
            "peak_bytes": max(before["peak_bytes"], usage.ru_maxrss * 1024),
        }
        write_json(spent, cost)
        if code:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Stopped(f"{command[0]} ended with {code}: {''.join(last)[:300]} ({log})")


def plus(before: float | None, more: float | None) -> float | None:
    """The sum of two times in seconds; None, not known, where one of them is."""
    return None if before is None or more is None else round(before + more, 1)


def _digest(parts: Sequence[str]) -> str:
    """Of these modules of the checkout, and all in these folders."""
    files = sorted(file for part in parts for file in (ROOT / part, *(ROOT / part).rglob("*.py")) if file.is_file())
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
