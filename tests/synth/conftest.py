"""What tests of synthesis share: small builds, simulated scans of three scanners, their palettes, a scene."""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import strategies as st
from tests.conftest import draw_scan, save

from segloc_synth.bank.cutting import MARGIN, Segment
from segloc_synth.bank.scenes import Scene, fit_background
from segloc_synth.cli import cli
from segloc_synth.colour import learning, palette
from segloc_synth.colour.palette import Palette
from segloc_synth.compose.place import Placed
from segloc_synth.compose.plan import TRIES, Paste
from segloc_synth.phantom import PIDRAY, PIDRAY_VIVID, SIXRAY, Scanner
from segloc_synth.phantom.scene import cast, expose, plan_scene, scan_rng, silhouette
from segloc_synth.sources.backgrounds import bag_mask
from segloc_synth.sources.images import Pixels, fit_to_canvas

SIZE = 96
CARRIER = (240, 200, 150)
COMMAND = [sys.executable, "-m", "segloc_synth"]
Scans = tuple[list[Pixels], list[Pixels]]
Sources = tuple[Path, Path]

pastes = st.builds(
    Paste,
    segment=st.just(0),
    size_of=st.just(0),
    scale=st.floats(0.1, 4),
    rotation=st.floats(0, 360),
    flip=st.booleans(),
    pose=st.tuples(st.floats(-0.12, 0.12), *[st.floats(-0.08, 0.08)] * 2),
    coefficient=st.floats(0.05, 1),
    occlusion=st.floats(0, 1),
    positions=st.lists(st.floats(0, 1, exclude_max=True), min_size=TRIES, max_size=TRIES).map(tuple),
)


def build_args(sources: Sources, out: object, *more: object) -> list[str]:
    """Arguments of a small build; `more` comes after and so overrides."""
    fixed = ["build", "--objects", sources[0], "--backgrounds", sources[1], "--out", out, "--n", 20]
    return [str(part) for part in [*fixed, "--size", 64, "--shard-size", 8, "--workers", 1, *more]]


def build(sources: Sources, out: Any, *more: object) -> Any:
    """Make a small build in `out`, which is returned."""
    result = CliRunner().invoke(cli, build_args(sources, out, *more))
    assert result.exit_code == 0, result.output
    return out


def content(folder: Path) -> dict[str, str]:
    """The sha256 of each file in a folder, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def paste(**changes: object) -> Paste:
    """A paste that changes nothing about its object, but for what is named."""
    plain = {"segment": 0, "size_of": 0, "scale": 1.0, "rotation": 0.0, "flip": False, "pose": (0.0, 0.0, 0.0)}
    rest = {"coefficient": 1.0, "occlusion": 0.5, "positions": (0.5,) * TRIES}
    return Paste(**{**plain, **rest, **changes})  # type: ignore[arg-type]


def absorbed(attenuation: npt.ArrayLike) -> np.ndarray:
    """The share of the rays, of 65535, that attenuations in codes absorb."""
    return np.rint(-65535 * np.expm1(-np.asarray(attenuation) / palette.UNIT)).astype(np.uint16)


def segment(seed: int, zoom: float = 1.5) -> Segment:
    """An object of random outline and colours without symmetry; of even seeds with a thin part, of seed 0 a wire."""
    rng = np.random.default_rng(seed)
    alpha = np.zeros((30, 44), np.uint8)
    if seed == 0:
        alpha[2:28, 3] = alpha[27, 3:40] = 255
    else:
        cv2.ellipse(alpha, (22, 15), (int(rng.integers(6, 20)), int(rng.integers(3, 14))), 0, 0, 360, 255, -1)
        alpha[4:9, 22:40] = 255
        if seed % 2 == 0:
            alpha[14, :] = 255
    alpha = np.pad(alpha, MARGIN)
    colour = rng.integers(10, 256, (*alpha.shape, 3), dtype=np.uint8)
    attenuation = rng.integers(0, palette.LEVELS, alpha.shape)
    material = rng.integers(0, palette.MATERIALS, alpha.shape)
    layers = np.dstack([absorbed(attenuation) * (alpha > 0), material << 8, alpha.astype(np.int64) << 8]).astype(
        np.uint16
    )
    length = float((alpha > 0).sum()) ** 0.5 / zoom
    return Segment("scan#1", 7, np.dstack([colour, alpha]), layers, CARRIER, 0, zoom, length, 0.3, (0.0, 0.0))


def feathered(placed: Placed) -> Pixels:
    """The mask of a placed object and one pixel around it, on the canvas."""
    return cv2.dilate(placed.full_mask(SIZE), np.ones((3, 3), np.uint8))


def render_scan(
    seed: int, split: str, index: int, size: int, scanner: Scanner, threats: bool = True
) -> tuple[Pixels, list[npt.NDArray[np.bool_]]]:
    """A scan (RGB uint8 [H, W, 3]) and the masks of its prohibited items (bool [H, W], in the order of the plan).

    The same seed, split and index give the same bag on every scanner, at every size, with or without the items.
    """
    shadow = cast(plan_scene(seed, split, index), size)
    shown = shadow if threats else replace(shadow, threats=())
    return expose(shown, scanner, scan_rng(seed, split, index, 1)), [silhouette(own) for own in shadow.threats]


@pytest.fixture(scope="session")
def simulated() -> dict[str, Scans]:
    """24 small scans of each scanner, without prohibited items, and their bags."""
    found = {}
    for first, scanner in enumerate((PIDRAY, PIDRAY_VIVID, SIXRAY)):
        scans = [
            fit_to_canvas(render_scan(0, "train", 100 * first + number, SIZE, scanner, threats=False)[0], SIZE)
            for number in range(24)
        ]
        found[scanner.name] = scans, [bag_mask(scan) for scan in scans]
    scans, bags = found[SIXRAY.name]
    found["grey"] = [np.dstack([cv2.cvtColor(scan, cv2.COLOR_RGB2GRAY)] * 3) for scan in scans], bags
    return found


@pytest.fixture(scope="session")
def palettes(simulated: dict[str, Scans]) -> dict[str, Palette]:
    """The palette of each scanner, learnt from 18 of its scans."""
    learnt = {}
    for name, (scans, bags) in simulated.items():
        (learnt[name],) = learning.fit(scans[:18], bags[:18])
    return learnt


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory, palettes: dict[str, Palette]) -> Scene:
    path = tmp_path_factory.mktemp("scene") / "scan.png"
    save(path, draw_scan(1))
    slot = fit_background(Path(path), SIZE, [palettes["sixray"]])
    return Scene.of(slot, slot["pixels"])
