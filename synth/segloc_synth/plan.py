"""The plan: what goes where in sample `index`, as a pure function of (config, sizes of the bank, index)."""

from dataclasses import dataclass

import numpy as np

from segloc_synth.config import Config

TRIES = 8  # candidate positions; the first inside the bag is taken


@dataclass(frozen=True)
class View:
    """One picture of a pair, as drawn.

    Attributes:
        background: place of the scan in the backgrounds' bank.
        scale: wanted size of the object relative to its own scan fitted to the canvas.
        rotation: degrees, counter-clockwise, in [0, 360).
        flip: mirrored left to right before the rotation.
        coefficient: composition coefficient, in (0, 1].
        positions: TRIES numbers in [0, 1): ranks among the bag's pixels of the object's centre.
    """

    background: int
    scale: float
    rotation: float
    flip: bool
    coefficient: float
    positions: tuple[float, ...]


@dataclass(frozen=True)
class Pair:
    """A sample: one segment (place in the objects' bank) in two independent views on different scans."""

    index: int
    segment: int
    key: View
    query: View


def plan_pair(config: Config, segments: int, backgrounds: int, index: int) -> Pair:
    """Draw sample `index` for a bank of `segments` cut-outs and `backgrounds` >= 2 benign scans."""
    rng = np.random.default_rng([config.seed, index])
    segment = int(rng.integers(segments))
    first = int(rng.integers(backgrounds))
    second = (first + 1 + int(rng.integers(backgrounds - 1))) % backgrounds  # uniform over the others
    return Pair(index, segment, _draw_view(config, first, rng), _draw_view(config, second, rng))


def _draw_view(config: Config, background: int, rng: np.random.Generator) -> View:
    low, high = np.log(config.scale)
    coefficient = 1.0 if config.blend == "hard" else float(rng.uniform(*config.coefficient))
    return View(
        background=background,
        scale=round(float(np.exp(rng.uniform(low, high))), 4),
        rotation=round(float(rng.uniform(0, 360)), 1) % 360,
        flip=bool(rng.integers(2)),
        coefficient=round(coefficient, 4),
        positions=tuple(float(number) for number in rng.random(TRIES)),
    )
