"""What all tests share: a private cache, the folder of real scans, and small drawn sources for synthesis."""

import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.stand_in import StandIn

os.environ.setdefault("OMP_NUM_THREADS", "1")

import boto3
import cv2
import hypothesis
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from pycocotools import mask as coco_mask

from segloc_synth.bank.cutting import Segment
from segloc_synth.bank.labelled import LabelledSource
from segloc_synth.bank.segments import cut_segments, learn_palettes
from segloc_synth.colour import palette
from segloc_synth.sources.problems import Problem

# Machines are shared: how long an example takes says nothing about it.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# Scripts start background jobs with SIGINT ignored; the processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


class Forked:
    """Work in a process and group of its own, a fork of this one: imports take longer than most work does."""

    def __init__(self, log: Path, work: Callable[..., object], *given: object, **env: object) -> None:
        """What the work prints goes into `log`; `env` is its environment beside ours."""

        def act() -> None:
            os.setsid()
            os.environ.update({name: str(value) for name, value in env.items()})
            with log.open("w") as file:
                sys.stdout = sys.stderr = file
                logging.basicConfig(format="%(message)s", stream=file, force=True)
                try:
                    work(*given)
                except Exception:
                    traceback.print_exc()
                    sys.exit(1)

        self.log = log
        self.process = multiprocessing.get_context("fork").Process(target=act)
        self.process.start()

    def kill(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Exit code and output."""
        self.process.join(600)
        code = self.process.exitcode
        self.process.kill()
        assert code is not None, "it hangs"
        return code, self.log.read_text()

    @classmethod
    def ranks(cls, folder: Path, work: Callable[..., object], *given: object, **env: object) -> list["Forked"]:
        """Two of them that meet as torchrun's would."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            env |= {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": probe.getsockname()[1]}
        return [cls(folder / f"rank{n}.txt", work, *given, RANK=n, LOCAL_RANK=n, **env) for n in range(2)]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty cache for this run, inherited by the processes that tests start."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["SEGLOC_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """boto3 on a real S3 API on loopback, which the environment names: one for all tests, as fsspec keeps clients."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format("127.0.0.1", server.get_host_and_port()[1]))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield boto3.client("s3")
    server.stop()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> "StandIn":
    """A stand-in for a device with a memory of its own, off."""
    from tests.stand_in import pretend

    return pretend(monkeypatch)


@pytest.fixture(scope="module")
def thin() -> Iterator[None]:
    """SDANet's resnet18 is a thin one."""
    from tests.thin import trunk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.models.resnet18", trunk)
        yield


@pytest.fixture(scope="session")
def scans() -> Path:
    """The folder of real scans."""
    folder = Path(os.environ.get("SEGLOC_SCANS", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}; SEGLOC_SCANS names their folder")
    return folder


def draw_scan(seed: int, side: int = 120) -> np.ndarray:
    """A drawn scan, RGB uint8 [side, side + 20, 3]: a textured bag on white."""
    rng = np.random.default_rng(seed)
    scan = np.full((side, side + 20, 3), 255, np.uint8)
    scan[10:-10, 12:-12] = (236, 178, 110)
    for _ in range(12):
        x, y = rng.integers(15, side - 15, 2).tolist()
        cv2.circle(scan, (x, y), int(rng.integers(3, 12)), rng.integers(60, 220, 3).tolist(), -1)
    return scan


def rle(mask: np.ndarray) -> dict[str, Any]:
    """Compressed RLE of a 0/1 mask, as json holds it."""
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed RLE of a 0/1 mask."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + runs}


def save(path: Path, rgb: np.ndarray) -> None:
    cv2.imwrite(str(path), rgb[..., ::-1])


def write_labelled(folder: Path, count: int = 6) -> Path:
    """A COCO data set of drawn scans, two objects each: a blade as polygon, a ring as RLE. Returns the json."""
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        scan = draw_scan(number)
        height, width = scan.shape[:2]
        blade = [20, 20 + number, 70, 24 + number, 70, 32 + number, 20, 34 + number]
        ring = np.zeros((height, width), np.uint8)
        cv2.circle(ring, (90, 80), 16, 1, 5)
        corners = np.array(blade).reshape(-1, 2)
        cv2.fillPoly(scan, [corners], (30, 60, 150))
        scan[ring == 1] = (40, 90, 60)
        save(folder / "images" / f"scan {number} (a).png", scan)
        images.append({"id": number, "file_name": f"scan {number} (a).png", "width": width, "height": height})
        for category, segmentation in ((0, [blade]), (1, (rle, uncompressed)[number % 2](ring))):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": category,
                    "segmentation": segmentation,
                    "iscrowd": 0,
                }
            )
    data = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 0, "name": "knife"}, {"id": 1, "name": "Ring"}],
    }
    (folder / "set.json").write_text(json.dumps(data))
    return folder / "set.json"


def cut_all(source: LabelledSource, size: int, folder: Path) -> tuple[dict[str, Segment], list[Problem]]:
    """The segments of a source by name, and the problems met; its palettes are left in `folder`."""
    learnt = folder / f"{source.fingerprint}.npz"
    palette.save(learnt, learn_palettes(source, size))
    done = [cut_segments(scan, size, source.bottom_rows, learnt, source.min_trust) for scan in source.scans]
    segments = {segment.name: segment for found, _ in done for segment in found}
    return segments, [problem for _, problems in done for problem in problems]


def write_benign(folder: Path, count: int = 5) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        save(folder / f"N{number:07d}.png", draw_scan(100 + number, side=100 + 10 * number))
    return folder


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(labelled folder, benign folder) of drawn scans; not to be changed."""
    folder = tmp_path_factory.mktemp("sources")
    return write_labelled(folder / "labelled").parent, write_benign(folder / "benign")
