"""What a run tells while it goes: log.jsonl, TensorBoard, a line or a bar on the terminal."""

import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from segloc_synth.console import LOG_EVERY, log
from segloc_synth.files import atomic_write, json_bytes
from segloc_train.run.watch import POINTS, scatter

GROUPS = ("loss", "acc", "held_out_accuracy", "knn", "queue", "gpu")


class RunLog:
    """Appends records to RUN/log.jsonl and TensorBoard, and shows progress on stderr.

    A resumed run continues after `step`: later records, of steps that were lost, are dropped. Where not `enabled`,
    as on all ranks but the first, nothing is written or shown.
    """

    def __init__(self, folder: Path, step: int, total_steps: int, enabled: bool = True) -> None:
        self.folder, self.total, self.enabled = folder, total_steps, enabled
        self.first, self.start, self.shown = step, time.monotonic(), float("-inf")
        if not enabled:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        path = folder / "log.jsonl"
        _drop_after(path, step)
        self.file = path.open("ab")
        self.board = SummaryWriter(str(folder), purge_step=step + 1)
        self.bar = tqdm(
            total=total_steps,
            initial=step,
            desc="pretraining",
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.enabled:
            self.bar.close()
            self.board.close()
            self.file.close()

    def advance(self) -> None:
        """One step is done."""
        if self.enabled:
            self.bar.update()

    def write(self, record: dict[str, Any], epoch_end: bool) -> None:
        """Add a record; `step` and `epoch` are its place, all other fields are numbers.

        `loss`, `lr`, `samples_per_second` and `data_wait` are always there; whatever else comes is written too.
        """
        if not self.enabled:
            return
        self.file.write(json_bytes(record, indent=None))
        self.file.flush()
        step = record["step"]
        for name, value in record.items():
            if name not in ("step", "epoch"):
                self.board.add_scalar(tag(name), value, step)
        self.bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
        now = time.monotonic()
        if epoch_end or (self.bar.disable and now - self.shown >= LOG_EVERY):
            self.shown = now
            line = self._line(record, now)
            if self.bar.disable:
                log.info("%s", line)
            else:
                self.bar.write(line, file=sys.stderr)

    def picture(self, name: str, image: Tensor, step: int) -> None:
        """Show a picture, uint8 [3, H, W] on the CPU, in TensorBoard."""
        if self.enabled:
            self.board.add_image(name, image, step)

    def embeddings(self, features: Tensor, labels: Tensor, names: Sequence[str], epoch: int, step: int) -> None:
        """Keep a projection of `features` (watch.scatter) as RUN/embeddings_NNN.png, and show it in TensorBoard.

        features float32 [N, D], labels int64 [N] in 0..len(names)-1, both on the CPU. The projector of TensorBoard
        gets at most POINTS of them, of the latest epoch.
        """
        if not self.enabled:
            return
        picture = scatter(features, labels, names, f"RoI features of {len(labels)} held-out segments, epoch {epoch}")
        with atomic_write(self.folder / f"embeddings_{epoch:03d}.png") as file:
            file.write(picture)
        image = Image.open(io.BytesIO(picture))
        sheet = Image.new("RGBA", image.size, "white")  # TensorBoard shows transparency as black
        sheet.alpha_composite(image)
        self.picture("embeddings", torch.from_numpy(np.array(sheet.convert("RGB"))).permute(2, 0, 1), step)
        write_projector(self.folder, features[:POINTS], labels[:POINTS], names)

    def _line(self, record: dict[str, Any], now: float) -> str:
        """The record in words, with the time left."""
        step = record["step"]
        parts = [f"loss {record['loss']:.3f}"]
        if accuracies := [value for name, value in record.items() if name.startswith("acc_")]:
            parts.append(f"accuracy {sum(accuracies) / len(accuracies):.3f}")
        parts += [f"lr {record['lr']:.2g}", f"{record['samples_per_second']:.1f} pairs/s"]
        parts.append(f"waiting {record['data_wait']:.0%}")
        for name, words in (("held_out_accuracy", "held-out accuracy"), ("knn_accuracy", "k-NN")):
            if name in record:
                parts.append(f"{words} {record[name]:.3f}")
        if step < self.total:
            left = (now - self.start) / max(step - self.first, 1) * (self.total - step)
            parts.append(f"about {duration(left)} left")
        return f"epoch {record['epoch']}, step {step} of {self.total}: {', '.join(parts)}"


def tag(name: str) -> str:
    """A field's name in TensorBoard, which folds what is alike up to the slash: loss_p2 -> loss/p2."""
    group = next((group for group in GROUPS if name.startswith(f"{group}_")), None)
    return name if group is None else f"{group}/{name.removeprefix(f'{group}_')}"


def duration(seconds: float) -> str:
    """Seconds in words of two digits: 48 s, 12 min, 3.2 h, 5.1 days."""
    for unit, size, least in (("days", 86_400, 48 * 3600), ("h", 3600, 5400), ("min", 60, 90)):
        if seconds >= least:
            value = seconds / size
            return f"{value:.{0 if value >= 10 else 1}f} {unit}"
    return f"{seconds:.0f} s"


def write_projector(folder: Path, features: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """The files that TensorBoard's projector shows, in `folder`: plain text, so that writing them needs nothing else.

    SummaryWriter.add_embedding keeps a folder a step and, in a resumed run, forgets the earlier ones.
    """
    texts = {
        "projector/vectors.tsv": "".join("\t".join(f"{x:.4g}" for x in row) + "\n" for row in features.tolist()),
        "projector/classes.tsv": "".join(f"{names[label]}\n" for label in labels.tolist()),
        "projector_config.pbtxt": 'embeddings {\n  tensor_name: "segments"\n'
        '  tensor_path: "projector/vectors.tsv"\n  metadata_path: "projector/classes.tsv"\n}\n',
    }
    (folder / "projector").mkdir(exist_ok=True)
    for name, text in texts.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())


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
