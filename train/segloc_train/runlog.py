"""What a run tells while it goes: log.jsonl, TensorBoard, a line or a bar on the terminal."""

import json
import logging
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from segloc_synth.console import LOG_EVERY
from segloc_synth.files import atomic_write, json_bytes

log = logging.getLogger("segloc")


class RunLog:
    """Appends records to RUN/log.jsonl and TensorBoard, and shows progress on stderr.

    A resumed run continues after `step`: later records, of steps that were lost, are dropped.
    """

    def __init__(self, folder: Path, step: int, total_steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.path, self.total = folder / "log.jsonl", total_steps
        _drop_after(self.path, step)
        self.file = self.path.open("ab")
        self.board = SummaryWriter(str(folder), purge_step=step + 1)
        self.bar = tqdm(
            total=total_steps,
            initial=step,
            desc="pretraining",
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self.first, self.start, self.shown = step, time.monotonic(), float("-inf")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        self.board.close()
        self.file.close()

    def advance(self) -> None:
        """One step is done."""
        self.bar.update()

    def write(self, record: dict[str, Any], epoch_end: bool) -> None:
        """Add a record; `step` and `epoch` are its place, all other fields are numbers."""
        self.file.write(json_bytes(record, indent=None))
        self.file.flush()
        step = record["step"]
        for name, value in record.items():
            if name not in ("step", "epoch"):
                self.board.add_scalar(name, value, step)
        self.bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
        now = time.monotonic()
        if epoch_end or (self.bar.disable and now - self.shown >= LOG_EVERY):
            self.shown = now
            line = self._line(record, now)
            if self.bar.disable:
                log.info("%s", line)
            else:
                self.bar.write(line, file=sys.stderr)

    def _line(self, record: dict[str, Any], now: float) -> str:
        """The record in words, with the time left."""
        step = record["step"]
        accuracies = [value for name, value in record.items() if name.startswith("acc_")]
        left = (now - self.start) / max(step - self.first, 1) * (self.total - step)
        line = (
            f"epoch {record['epoch']}, step {step} of {self.total}: loss {record['loss']:.3f}, "
            f"accuracy {sum(accuracies) / len(accuracies):.3f}, lr {record['lr']:.2g}, "
            f"{record['samples_per_second']:.1f} pairs/s, waiting {record['data_wait']:.0%}"
        )
        if "held_out_accuracy" in record:
            line += f", held-out accuracy {record['held_out_accuracy']:.3f}"
        return line + (f", about {left:.0f} s left" if step < self.total else "")


def _drop_after(path: Path, step: int) -> None:
    """Keep the records of log.jsonl up to `step`; a half-written last line goes as well."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        try:
            if json.loads(line)["step"] <= step and line.endswith(b"\n"):
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    with atomic_write(path) as file:
        file.writelines(kept)
