"""The second adversary: a small CNN on the crops and folds of segloc-synth probe. Needs torch.

python benchmarks/probe_cnn.py PAIRS --real LABELLED
"""

from itertools import pairwise
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segloc_synth.console import run
from segloc_synth.realism.crops import Crop, Trial, trials
from segloc_synth.realism.matching import FOLDS
from segloc_synth.realism.probe import Verdict, judge

SIDE = 64  # of the network's window; of larger objects it sees the middle
EPOCHS = 16
BATCH = 64
RATE = 3e-3


class Net(nn.Module):
    """Four convolutions, the first at full resolution for the noise; pooled inside, around the object and overall."""

    def __init__(self, outline: bool) -> None:
        super().__init__()
        widths = (3 + outline, 16, 32, 48, 64)
        layers: list[nn.Module] = []
        for number, (wide, wider) in enumerate(pairwise(widths)):
            stride = 1 if number == 0 else 2
            layers += [nn.Conv2d(wide, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.score = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * widths[-1], 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N] of float images [N, 3 or 4, SIDE, SIDE]."""
        maps = self.features(images)
        return self.score(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1))[:, 0]


def tensor(crops: list[Crop]) -> Tensor:
    """Windows of SIDE pixels around the crops' middles, uint8 [N, 4, SIDE, SIDE]: RGB and mask."""
    out = np.full((len(crops), SIDE, SIDE, 4), (255, 255, 255, 0), np.uint8)
    for window, crop in zip(out, crops, strict=True):
        both = np.dstack([crop.pixels, crop.mask])
        (top, own_top, height), (left, own_left, width) = (
            (max(0, (side - SIDE) // 2), max(0, (SIDE - side) // 2), min(side, SIDE)) for side in both.shape[:2]
        )
        window[own_top : own_top + height, own_left : own_left + width] = both[top : top + height, left : left + width]
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()


def scores(trial: Trial, outline: bool) -> NDArray[np.float64]:
    """Out-of-fold logits [N]; `outline`: the net sees the mask too."""
    images = tensor([*trial.ones, *trial.others])[:, : 3 + outline]
    labels = torch.from_numpy(trial.labels).float()
    out = np.empty(len(labels))
    for number in range(FOLDS):
        test = torch.from_numpy(trial.folds == number)
        net = train(images[~test], labels[~test], trial.paired, number)
        with torch.inference_mode():
            # The mean over the eight ways to turn and mirror a crop.
            views = [
                torch.cat([net(turned(part, way)) for part in normed(images[test]).split(256)]) for way in range(8)
            ]
        out[test.numpy()] = torch.stack(views).mean(0).double().numpy()
    return out


def train(images: Tensor, labels: Tensor, paired: bool, seed: int) -> Net:
    """A net that tells labels 1 from 0; `paired`: the second half of the images are the partners of the first."""
    torch.manual_seed(seed)
    net = Net(images.shape[1] == 4).to(memory_format=torch.channels_last)
    count = len(images) // 2 if paired else len(images)
    size = BATCH // 2 if paired else BATCH
    steps = EPOCHS * (count // size)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.2)
    for _ in range(EPOCHS):
        order = torch.randperm(count)
        for place in range(0, count - size + 1, size):
            batch = order[place : place + size]
            if paired:
                batch = torch.cat([batch, batch + count])
            logits = net(turned(normed(images[batch]), int(torch.randint(8, ()))))
            if paired:
                loss = nn.functional.softplus(logits[size:] - logits[:size]).mean()
            else:
                loss = nn.functional.binary_cross_entropy_with_logits(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def normed(images: Tensor) -> Tensor:
    """uint8 pictures as floats about 0, the mask as -1 or 1."""
    out = images.to(torch.float32, memory_format=torch.channels_last)
    out[:, :3] = (out[:, :3] - 170) / 64
    out[:, 3:] = 2 * out[:, 3:] - 1
    return out


def turned(images: Tensor, way: int) -> Tensor:
    """One of the eight ways to turn and mirror squares."""
    images = images.flip(3) if way % 2 else images
    return torch.rot90(images, way // 2, (2, 3)).contiguous(memory_format=torch.channels_last)


def cnn(trial: Trial) -> dict[str, Verdict]:
    """Verdicts of the net without and, where a mask says more than the box, with the mask."""
    ways = {"cnn": False} if trial.paired else {"cnn": False, "cnn with mask": True}
    return {name: judge(scores(trial, outline), trial) for name, outline in ways.items()}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--real", type=click.Path(path_type=Path), help="Labelled source of the backgrounds' scanner.")
@click.option("--limit", default=1500, show_default=True, help="Most composites to look at.")
@click.option("--threads", default=1, show_default=True)
def main(folder: Path, real: Path | None, limit: int, threads: int) -> None:
    """AUC of a small CNN for the questions of segloc-synth probe."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    for trial in trials(folder, real, limit):
        for name, verdict in cnn(trial).items():
            figure = f"{verdict.auc:.3f} ({verdict.low:.3f}-{verdict.high:.3f})"
            click.echo(f"{trial.name:<26}{len(trial.ones):>6}  {name:<14}{figure}")


if __name__ == "__main__":
    run(main)
