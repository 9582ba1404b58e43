"""A detector's backbone as a start of its own: is it the features or the heads that fine-tuning gains from?"""

from pathlib import Path

import click

from segloc_eval.config import BACKBONE, DETECTOR
from segloc_train.model.checkpoint import load_tensors, save_tensors

PREFIX = "backbone."


@click.command()
@click.option("--ckpt", type=click.Path(path_type=Path), required=True, help="Folder of a detector.pth.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(ckpt: Path, out: Path) -> None:
    """Write OUT/backbone.pth: SDANet's weights out of the detector's, as segloc-train exports them."""
    tensors = load_tensors(ckpt / DETECTOR)
    out.mkdir(parents=True, exist_ok=True)
    own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    save_tensors(out / BACKBONE, own)


if __name__ == "__main__":
    main()
