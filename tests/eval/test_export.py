"""An exported detector finds the same, from the same files, where neither torch nor mmdet can be imported."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.onnx_parity import OVERLAP, PAGE, PIXELS, SCORE, by_mmdet, compare
from click.testing import CliRunner
from PIL import Image
from tests.conftest import Forked

from segloc_eval.cli import command
from segloc_eval.mm.model import build_detector, load_detector
from segloc_eval.recipe import QUICK, DetectorName
from segloc_train.model.checkpoint import save_tensors

pytestmark = pytest.mark.usefixtures("one_thread", "thin")
CLASSES = [{"id": 3, "name": "Gun"}, {"id": 7, "name": "Knife"}]
ALONE = """
import sys
for name in "torch torchvision timm mmdet mmcv mmengine segloc_eval segloc_train segloc_synth".split():
    sys.modules[name] = None
exec(open(sys.argv[2]).read().split("for path in")[0])
for path in sys.argv[3:]:
    np.savez(path + ".npz", *detect(path))
"""


def saved(folder: Path, name: DetectorName, size: int) -> Path:
    """A detector at random, as a fine-tuning leaves it."""
    recipe = QUICK.changed(arch="resnet18", width=16, size=size)
    model: Any = build_detector(recipe, name, len(CLASSES), seed=1)
    if name == "semantic-fpn":  # at random one label wins everywhere
        weight = model.semantic_head.conv_logits.weight.data.normal_()
        weight -= weight.mean(1, keepdim=True)
    save_tensors(folder / "detector.pth", model.state_dict())
    about = {"detector": name, "recipe": recipe.as_dict(), "classes": CLASSES}
    (folder / "detector.json").write_text(json.dumps(about))
    return folder


def scans(folder: Path) -> list[Path]:
    """Wide, high, small, grey, and turned by its EXIF."""
    rng = np.random.default_rng(0)
    paths = []
    for number, (height, width) in enumerate(((90, 200), (210, 96), (40, 50), (128, 128), (70, 120))):
        image = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)).resize((width, height))
        exif = Image.Exif()
        if number == 4:
            exif[0x0112] = 6
        paths.append(folder / f"{number}.png")
        (image.convert("L") if number == 3 else image).save(paths[-1], exif=exif)
    return paths


def alone(folder: Path, file: Path, paths: list[Path]) -> list[list[np.ndarray]]:
    """What docs/ONNX.md's code finds in a process without torch."""
    page = folder / "page.py"
    page.write_text(PAGE.read_text().split("```python\n")[1].split("```")[0])
    subprocess.run([sys.executable, "-c", ALONE, file, page, *paths], check=True)
    return [list(np.load(f"{path}.npz").values()) for path in paths]


def exported(folder: Path) -> Path:
    """The file; made in a process of its own, as after torch.export no fork can compute gradients."""
    code, told = Forked(folder / "log", command.main, ["export", str(folder), "--onnx", str(folder / "d.onnx")]).end()
    assert code == 0, told
    return folder / "d.onnx"


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mask-rcnn", 96),
        pytest.param("cascade-mask-rcnn", 64, marks=pytest.mark.slow),
        pytest.param("faster-rcnn", 160, marks=pytest.mark.slow),
    ],
)
def test_the_graph_finds_what_the_detector_does(tmp_path: Path, name: DetectorName, size: int) -> None:
    file, paths = exported(saved(tmp_path, name, size)), scans(tmp_path)
    ours = by_mmdet(*load_detector(tmp_path), paths)
    assert sum(map(len, ours)) > 100
    for one, (boxes, scores, labels, *masks) in zip(ours, alone(tmp_path, file, paths), strict=True):
        shown = masks[0] if masks else [None] * len(boxes)
        pairs, without = compare(one, list(zip(labels.tolist(), scores.tolist(), boxes, shown, strict=True)))
        assert without <= 2  # at random many scores are nearly alike, and rounding decides the last places
        assert all(box <= PIXELS and score <= SCORE for box, score, _, _ in pairs)
        assert all(overlap >= OVERLAP or differing <= 2 for _, _, overlap, differing in pairs)


@pytest.mark.slow
def test_a_label_map_is_the_same(tmp_path: Path) -> None:
    file, paths = exported(saved(tmp_path, "semantic-fpn", 96)), scans(tmp_path)
    ours_of_all = by_mmdet(*load_detector(tmp_path), paths)
    for one, (labels,) in zip(ours_of_all, alone(tmp_path, file, paths), strict=True):
        ours = np.full(labels.shape, len(CLASSES))
        for label, _, _, mask in one:
            ours[mask] = label
        assert len(np.unique(ours)) > 1 and (ours != labels).mean() < 2e-3


def test_without_onnx_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    failed = CliRunner().invoke(command, ["export", str(tmp_path), "--onnx", str(tmp_path / "d.onnx")])
    assert failed.exit_code == 1 and failed.output == "Error: onnx is not installed; pip install 'segloc[onnx]'\n"
    monkeypatch.undo()
    failed = CliRunner().invoke(command, ["export", str(tmp_path), "--onnx", str(tmp_path / "d.onnx")])
    assert failed.exit_code == 1 and "detector.pth: no such file" in failed.output
