"""What benchmarks/fuzz.py has found stays mended: each kind as one case, and some of its cases themselves."""

import importlib
import json
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import ROOT

Change = Callable[[dict[str, bytes]], None]
MISSING = "1 skipped: image file is missing: "


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("fuzz")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def put(name: str, content: str | bytes) -> Change:
    return lambda files: files.update({name: content if isinstance(content, bytes) else content.encode()})


def add(name: str, line: str) -> Change:
    return lambda files: files.update({name: files[name] + f"\n{line}\n".encode()})


def nothing(files: dict[str, bytes]) -> None:
    pass


def stated(train: str) -> Change:
    """A yaml that names something else than the training pictures; those lie where they usually do."""
    return put("data.yaml", f"train: {train}\nval: images/val\nnames: [Knife, Gun]\n")


def beside(line: str) -> Change:
    """A list of pictures that lie in no folder named images."""

    def change(files: dict[str, bytes]) -> None:
        files["data.yaml"] = b"train: train.txt\nnames: [Knife]\n"
        files["train.txt"] = f"data/scan1.png\ndata/scan2.png\n{line}\n".encode()

    return change


def odd_ids(files: dict[str, bytes]) -> None:
    data: dict[str, Any] = json.loads(files["set.json"])
    data["images"][0]["id"] = data["annotations"][0]["image_id"] = "--5"
    files["set.json"] = json.dumps(data).encode()


def picture(name: str, make: Callable[[Path], None]) -> Change:
    def change(files: dict[str, bytes]) -> None:
        path = Path(name).name
        make(Path(path))
        files[name] = Path(path).read_bytes()
        Path(path).unlink()

    return change


def measurements(path: Path) -> None:
    """A TIFF of floats, some of them none."""
    values = np.full((52, 60), 200, np.float32)
    values[::9] = np.nan
    values[1::9] = np.inf
    Image.fromarray(values).save(path, "TIFF")


def no_width(path: Path) -> None:
    """A TIFF whose second page has no tag for its width."""
    page = Image.new("RGB", (60, 52))
    page.save(path, "TIFF", save_all=True, append_images=[page])
    content = path.read_bytes()
    first, second, rest = content.split(tag := struct.pack("<HH", 256, 4))
    path.write_bytes(first + tag + second + struct.pack("<HH", 253, 4) + rest)


def torn_exif(path: Path) -> None:
    """A JPEG whose EXIF block ends early."""
    exif = Image.Exif()
    exif[0x010F], exif[0x011A] = "maker", 72.0
    Image.new("RGB", (60, 52), (200, 180, 150)).save(path, "JPEG", exif=exif.tobytes()[:-12])


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)


@pytest.mark.parametrize(
    ("layout", "change", "status", "words"),
    [
        pytest.param("YOLO", nothing, 0, "yolo+boxes, 5 images", id="a relative path with a yaml"),
        pytest.param("class ids", put("classes.txt", "Kni\0fe\nBall"), 1, "needs one class name a line", id="nul"),
        pytest.param(
            "YOLO beside", put("classes.txt", "Knife\n" + "a" * 500_000), 1, "not a line of text", id="no name"
        ),
        pytest.param("YOLO lists", add("train.txt", "images/sc\0an.png"), 1, MISSING + "images/sc?an.png", id="nul"),
        pytest.param("YOLO lists", add("val.txt", "images/sc\0an.png"), 0, "yolo, 8 images", id="nul, not taken"),
        pytest.param("YOLO lists", add("train.txt", "a/" * 90_000), 1, MISSING + "a/a/", id="long name"),
        pytest.param(
            "YOLO lists",
            put("train.txt", "x.png\n"),
            1,
            "train: any picture of train.txt: is not there",
            id="none there",
        ),
        pytest.param("YOLO lists", put("val.txt", "x.png\n"), 1, "data.yaml: val: any picture", id="none to score on"),
        pytest.param("YOLO beside", beside("/scan9.png"), 1, MISSING + "/scan9.png", id="from the disk's root"),
        pytest.param("YOLO", put("data.yaml", BOMB + "names: {0: *m}\n"), 1, "is no name; put it in quotes", id="bomb"),
        pytest.param("YOLO", stated("/"), 0, "yolo+boxes, 5 images", id="all of a disk"),
        pytest.param("YOLO", stated("/dev/zero"), 0, "yolo+boxes, 5 images", id="a device"),
        pytest.param("YOLO", stated("a/" * 9_000), 0, "yolo+boxes, 5 images", id="long path"),
        pytest.param("VOC masks", add("ImageSets/Segmentation/val.txt", "- " * 99_999), 0, "masks, 8", id="words"),
        pytest.param("benign list", add("scans.txt", "a" * 99_999), 1, "aaa...: no such file", id="long line"),
        pytest.param("benign csv", add("ImageSet/10/train.csv", "a" * 99_999), 1, "is no name with a label", id="row"),
        pytest.param("COCO", odd_ids, 0, "coco, 8 images", id="an id --5"),
        pytest.param(
            "COCO", picture("images/scan1.png", no_width), 1, "image file is damaged or no picture", id="no width"
        ),
        pytest.param("COCO", picture("images/scan1.png", measurements), 0, "16-bit image", id="no measurements"),
        pytest.param("COCO", picture("images/scan1.png", torn_exif), 0, "coco, 8 images", id="torn exif"),
    ],
)
def test_damage_is_told_in_a_line(
    fuzz: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    change: Change,
    status: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # for pictures that are written
    sound = fuzz.sound()[layout]
    files = dict(sound.files)
    change(files)
    fuzz.write(tmp_path / "set", files)
    path = sound.path if layout != "YOLO beside" else ""
    boxes = [] if sound.masks else ["--masks-from-boxes"]
    place = "set" if change is nothing else tmp_path / "set" / path
    command = (
        fuzz.whole if "image" in words and layout == "COCO" else fuzz.forked
    )  # what libraries warn of, pytest catches
    end = command("check", ["check", str(place), "--workers", "1", *boxes], tmp_path)
    assert not fuzz.faults_of(end), end
    assert words in end.out + end.err
    assert end.status == status, end


def test_an_endless_outline_does_not_end_the_process(fuzz: ModuleType, tmp_path: Path) -> None:
    files = dict(fuzz.sound()["COCO"].files)
    data: dict[str, Any] = json.loads(files["set.json"])
    data["images"][0].update(width=9999, height=9999)
    zigzag = [[19_000 * (n % 2), n % 9999] for n in range(40_000)]
    data["annotations"][0] |= {"bbox": None, "segmentation": [[side for corner in zigzag for side in corner]]}
    files["set.json"] = json.dumps(data).encode()
    fuzz.write(tmp_path / "set", files)
    end = fuzz.forked("convert", ["convert", str(tmp_path / "set"), "--out", "out"], tmp_path)
    assert end.status == 0, end
    assert "1 skipped: polygon with an outline of millions of pixels: scan0.png annotation 0" in end.err


def test_the_fuzzer_finds_nothing(fuzz: ModuleType, tmp_path: Path) -> None:
    fuzz.prepare(tmp_path)
    job = fuzz.Job(seed=7, files=50, root=tmp_path, keep=None)
    numbers = random.Random(7).sample(range(50), 40) + list(range(50, 70))
    cases = [fuzz.run_case(number, job) for number in numbers]
    assert [(case.number, case.findings) for case in cases if case.findings] == []
    assert {end.partition(": ")[0] for case in cases for end in case.outcomes} == set(fuzz.COMMANDS)
    assert {path.name for path in tmp_path.iterdir()} == {"benign", "objects"}
