"""Do a backbone's features tell the classes of labelled objects in whole scans, before any detector is trained?

Objects of the test scans are classified by their nearest neighbours among those of the labelled scans, on the
features that a detector would get. The trainer's k-NN accuracy looks at pairs of its own build; this one is the same
question for all builds.
"""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import click
import torch
from torch import Tensor

from segloc_eval.data.datasets import Data, load_data
from segloc_eval.data.scans import Scan
from segloc_eval.mm.data import example
from segloc_synth.files import write_json
from segloc_train.data.data import View
from segloc_train.model import start
from segloc_train.model.backbone import SDANet
from segloc_train.run.watch import knn_accuracy, roi_features


@click.command()
@click.option("--ckpt", required=True, help="Run folder, or random.")
@click.option("--arch", default="resnet18")
@click.option("--width", type=int, default=64)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--labels", default="10%")
@click.option("--seed", type=int, default=0)
@click.option("--draws", type=int, default=1, help="Of labelled scans, by seeds from --seed times this on; their mean.")
@click.option("--size", type=int, default=128)
@click.option("--device", default="cpu")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    ckpt: str,
    arch: str,
    width: int,
    data: Path,
    labels: str,
    seed: int,
    draws: int,
    size: int,
    device: str,
    out: Path,
) -> None:
    """Write OUT/neighbours.json: balanced k-NN accuracy in 0..1 of each test split; flags as segloc-eval's."""
    torch.manual_seed(seed)
    backbone = SDANet(arch, width)
    start.initialise(backbone, arch, ckpt)
    backbone.to(device)
    drawn = [_scores(backbone, load_data(data, [labels], draws * seed + draw), size) for draw in range(draws)]
    scores = {split: fmean(one[split] for one in drawn) for split in drawn[0]}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "neighbours.json", scores)


def _scores(backbone: SDANet, found: Data, size: int) -> dict[str, float]:
    classes = {id: label for label, id in enumerate(found.classes)}
    bank = features(backbone, found.train, classes, size)
    scores = {}
    for split, scans in found.tests.items():
        value = knn_accuracy(*bank, *features(backbone, scans, classes, size))
        if value is not None:
            scores[split] = value
    return scores


@torch.no_grad()
def features(backbone: SDANet, scans: Iterable[Scan], classes: dict[int, int], size: int) -> tuple[Tensor, Tensor]:
    """roi_features of all objects, float32 [N, 5 * width], and their labels, int64 [N]."""
    rows, labels = [], []
    device = next(backbone.parameters()).device
    for scan in scans:
        if all(thing.crowd for thing in scan.objects):
            continue
        image, sample = example(scan, size, classes)
        things = sample.gt_instances
        view = View(image.expand(len(things.labels), -1, -1, -1), things.bboxes)
        rows.append(roi_features(backbone, view.to(device)).cpu())
        labels.append(things.labels)
    return torch.cat(rows), torch.cat(labels)


if __name__ == "__main__":
    main()
