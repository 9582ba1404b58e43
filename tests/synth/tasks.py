"""Tasks that die, in a module that worker processes import quickly."""

import os
import signal
from pathlib import Path

from segloc_synth.files import atomic_write


def die_once(task: tuple[Path, int]) -> tuple[int, int]:
    """A task that writes, and whose worker is killed in the middle of writing the first time."""
    folder, number = task
    with atomic_write(folder / str(number)) as file:
        file.write(b"half")
        file.flush()
        if number == 3 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        file.write(b" whole")
    return number, os.getpid()


def die(task: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(task: Path) -> bytes:
    return (task / "gone.jpg").read_bytes()
