"""Masks from boxes: inside the box, the same each time, and trusted where they are right."""

import json
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from tests.conftest import draw_scan
from tests.synth.conftest import Sources, build, content, render_scan
from tests.synth.test_sources import coco_boxes

from segloc_synth.bank.boxes import Doubtful, annotation_mask, mask_from_box
from segloc_synth.bank.labelled import MIN_TRUST, read_labelled
from segloc_synth.bank.prepare import prepare_objects
from segloc_synth.bank.trust import SEEN, expected_overlap
from segloc_synth.bank.trust_weights import MEASURES
from segloc_synth.cli import cli
from segloc_synth.phantom import PIDRAY
from segloc_synth.sources.images import Pixels
from segloc_synth.sources.records import Annotation

Labelled = tuple[Pixels, list[tuple[tuple[float, float, float, float], np.ndarray]]]


@pytest.fixture(scope="module")
def simulated_scans() -> list[Labelled]:
    """Simulated scans, each with the box and mask of its items."""
    found = []
    for index in range(40):
        pixels, masks = render_scan(7, "train", index, 192, PIDRAY)
        boxed = []
        for mask in masks:
            if mask.sum() > 40:
                y, x = np.nonzero(mask)
                box = (float(x.min()), float(y.min()), float(np.ptp(x) + 1), float(np.ptp(y) + 1))
                boxed.append((box, mask))
        found.append((pixels, boxed))
    return found


@pytest.fixture(scope="module")
def derived(simulated_scans: list[Labelled]) -> np.ndarray:
    """Trust and overlap of the mask derived from each box, [N, 2]."""
    rows = []
    for pixels, boxed in simulated_scans:
        for place, (box, truth) in enumerate(boxed):
            found = mask_from_box(pixels, box, [other for n, (other, _) in enumerate(boxed) if n != place])
            if found is not None:
                mask, trust = found
                rows.append((trust, (mask & truth).sum() / (mask | truth).sum()))
    return np.array(rows)


def test_trust_tells_good_masks_from_bad(derived: np.ndarray) -> None:
    assert len(derived) > 40
    assert ((derived >= 0) & (derived <= 1)).all()
    trust, overlap = derived[np.argsort(-derived[:, 0])].T
    half = len(trust) // 2
    assert overlap[:half].mean() > overlap[half:].mean() + 0.1
    assert overlap[trust >= MIN_TRUST].mean() > overlap.mean()
    assert np.corrcoef(trust, overlap)[0, 1] > 0.4


def test_trust_is_never_more_than_the_share_of_the_outline_that_is_seen() -> None:
    place = list(MEASURES).index(SEEN)
    rows = np.repeat(np.array([[mean for mean, _ in MEASURES.values()]], np.float32), 11, axis=0)
    rows[:, place] = np.linspace(0, 1, 11)
    trust = expected_overlap(rows)
    assert (trust <= rows[:, place]).all()
    assert trust[0] == 0


def test_a_box_in_clutter_without_an_outline_of_its_own_is_not_trusted() -> None:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (200, 200)).astype(np.float32), (0, 0), 5)
    level = np.clip(120 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
    clutter = np.dstack([level // 2, level, level])
    clear = np.full_like(clutter, 240)
    clear[70:130, 60:80], clear[115:130, 60:140] = (20, 60, 110), (20, 60, 110)
    box = Annotation("1", 1, None, (60, 70, 80, 60))
    assert annotation_mask(box, clear)[1] >= MIN_TRUST
    with pytest.raises(Doubtful):
        annotation_mask(box, clutter)


def test_the_same_box_yields_the_same_mask(simulated_scans: list[Labelled]) -> None:
    for pixels, boxed in simulated_scans[:4]:
        for box, _ in boxed:
            one, two = mask_from_box(pixels, box), mask_from_box(pixels.copy(), box)
            assert one is not None
            assert two is not None
            assert one[1] == two[1]
            np.testing.assert_array_equal(one[0], two[0])


def test_a_smaller_box_inside_keeps_its_object() -> None:
    """A dark thing in a box of its own is no part of the thing around it, though it stands out more."""
    pixels = np.full((90, 120, 3), 250, np.uint8)
    pixels[30:70, 20:60] = 120
    pixels[30:50, 70:90] = 30
    small = (70.0, 30.0, 20.0, 20.0)
    found = mask_from_box(pixels, (20.0, 30.0, 70.0, 40.0), [small])
    assert found is not None
    assert not found[0][30:50, 70:90].any()
    assert found[0][35:65, 25:55].all()


def test_little_trust_is_told_from_nothing_there() -> None:
    pixels = draw_scan(3)
    box = Annotation("1", 1, None, (20, 20, 50, 40))
    mask, trust = annotation_mask(box, pixels, [box], 0.0)
    assert mask.shape == pixels.shape[:2]
    with pytest.raises(Doubtful, match="little trust") as caught:
        annotation_mask(box, pixels, [box], 1.0)
    assert caught.value.trust == trust


def test_the_limit_decides_what_is_kept_and_whose_bank_it_is(tmp_path: Path) -> None:
    root = coco_boxes(tmp_path / "set")
    with pytest.raises(click.ClickException):
        read_labelled(root, min_trust=0.0)
    all_of_them, usual, none = (read_labelled(root, masks_from_boxes=True, min_trust=t) for t in (0.0, MIN_TRUST, 1.0))
    assert len({source.fingerprint for source in (all_of_them, usual, none)}) == 3
    assert usual.fingerprint == read_labelled(root, masks_from_boxes=True).fingerprint
    _, objects = prepare_objects([all_of_them], 128, 1)
    assert len(objects) == 9
    assert all(0 < objects[place].trust < 1 for place in range(9))
    with pytest.raises(click.ClickException, match="no usable segment"):
        prepare_objects([none], 128, 1)


def test_exact_masks_are_trusted_and_shards_tell_nothing_of_it(sources: Sources, tmp_path: Path) -> None:
    _, objects = prepare_objects([read_labelled(sources[0])], 64, 1)
    assert objects.rows["trust"].tolist() == [1.0] * len(objects)
    plain = build(sources, tmp_path / "plain")
    strict = build(sources, tmp_path / "strict", "--min-trust", 1)
    assert {n: h for n, h in content(plain).items() if n.endswith(".tar")} == {
        n: h for n, h in content(strict).items() if n.endswith(".tar")
    }
    hashes = [json.loads((out / "manifest.json").read_text())["config_hash"] for out in (plain, strict)]
    assert hashes[0] == hashes[1]
    boxes = build((coco_boxes(tmp_path / "set"), sources[1]), tmp_path / "boxes", "--masks-from-boxes")
    assert not any(b"trust" in path.read_bytes() for path in boxes.glob("*.tar"))


def test_check_lists_trust(tmp_path: Path) -> None:
    root = coco_boxes(tmp_path / "set")

    def check(*more: Any) -> Any:
        args = ["check", root, "--masks-from-boxes", "--workers", 1, *more]
        result = CliRunner().invoke(cli, [str(arg) for arg in args])
        assert result.exit_code == 0, result.output
        return result.stdout

    told = json.loads(check("--json"))["trust"]
    assert (told["kept"], told["left_out"], told["min_trust"], told["below"]) == (9, 0, MIN_TRUST, [])
    told = json.loads(check("--json", "--min-trust", 1))["trust"]
    assert (told["kept"], told["left_out"]) == (0, 9)
    assert all(0 < record["trust"] < 1 and record["file"] for record in told["below"])
    assert "9 skipped: mask derived from a box with little trust" in check("--min-trust", 1)
