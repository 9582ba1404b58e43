"""Painting order, and IoU against a plain count of pixels."""

from typing import Any

import numpy as np
import pytest
from tests.conftest import rle

from segloc_eval.numbers.compare import compare
from segloc_eval.numbers.semantic import confusions, paint, score_confusions, score_semantic_splits

H, W = 40, 60


def rectangle(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def data(seed: int, images: int = 7) -> tuple[dict[str, Any], list[dict[str, Any]], list[np.ndarray], list[np.ndarray]]:
    """Truth, results, and the label maps of both; class 9 never occurs in truth, the last image is empty."""
    rng = np.random.default_rng(seed)
    annotations, results, true, found = [], [], [], []
    for image in range(images):
        maps = []
        for things in range(2):
            masks = [rectangle(*rng.integers(0, 30, 2), *rng.integers(1, 30, 2)) for _ in range(4)]
            labels = rng.choice([1, 2] if things == 0 else [1, 2, 3], 4).tolist()
            if image == images - 1:
                masks, labels = [], []
            maps.append(paint(masks, labels, H, W))
            if things == 0:
                annotations += [
                    {"image_id": image, "category_id": [4, 6, 9][c - 1], "segmentation": rle(np.uint8(m))}
                    for m, c in zip(masks, labels, strict=True)
                ]
        true.append(maps[0])
        found.append(maps[1])
        results += [
            {"image_id": image, "category_id": [4, 6, 9][c - 1], "segmentation": rle(np.uint8(maps[1] == c))}
            for c in (1, 2, 3)
            if (maps[1] == c).any()
        ]
    truth = {
        "images": [{"id": i, "width": W, "height": H} for i in range(images)],
        "categories": [{"id": 9, "name": "c"}, {"id": 4, "name": "a"}, {"id": 6, "name": "b"}],
        "annotations": annotations,
    }
    return truth, results, true, found


def test_the_smaller_object_lies_on_top() -> None:
    large, small, last = rectangle(0, 0, 30, 30), rectangle(5, 5, 10, 10), rectangle(10, 5, 10, 10)
    for order in ((0, 1), (1, 0)):
        label_map = paint([(large, small)[place] for place in order], [(1, 2)[place] for place in order], H, W)
        assert (label_map[small] == 2).all() and (label_map[large & ~small] == 1).all()
        assert (label_map[~large] == 0).all()
    assert (paint([small, last], [1, 2], H, W)[last] == 2).all()


def test_scores_are_a_count_of_pixels() -> None:
    truth, results, true, found = data(0)
    scores = score_confusions(confusions(truth, results))
    t, f = np.stack(true), np.stack(found)
    iou = [((t == c) & (f == c)).sum() / ((t == c) | (f == c)).sum() for c in (0, 1, 2)]
    assert scores["per_class"] == {
        **{"a": pytest.approx(iou[1]), "b": pytest.approx(iou[2]), "c": None, "background": pytest.approx(iou[0])}
    }
    assert scores["overall"] == {
        **{"mIoU": pytest.approx(np.mean(iou)), "mIoU objects": pytest.approx(np.mean(iou[1:]))},
        "pixel accuracy": pytest.approx((t == f).mean()),
    }


def test_a_class_may_have_the_name_of_what_is_no_class() -> None:
    truth, results, *_ = data(0)
    before = score_confusions(confusions(truth, results))["per_class"]
    truth["categories"][1]["name"] = "background"
    after = score_confusions(confusions(truth, results))["per_class"]
    assert (after["background"], after["background*"]) == (before["a"], before["background"])


def test_nothing_found_is_all_background() -> None:
    truth, *_ = data(1)
    overall = score_confusions(confusions(truth, []))["overall"]
    assert overall["mIoU objects"] == 0 and overall["mIoU"] == pytest.approx(overall["pixel accuracy"] / 3)
    assert score_confusions(confusions({**truth, "annotations": []}, []))["overall"] == {
        **{"mIoU": 1.0, "mIoU objects": None, "pixel accuracy": 1.0}
    }


def test_arms_are_compared_on_miou() -> None:
    truth, results, *_ = data(2, images=12)
    arms = {"random": {0: {"test": results}}, "ours": {0: {"test": truth["annotations"]}}}
    comparison = compare({"test": truth}, arms, "semantic", "random", draws=50)
    expected = score_confusions(confusions(truth, results))["overall"]["mIoU"]
    random, ours = (comparison["arms"][arm]["splits"]["test"]["mIoU"] for arm in ("random", "ours"))
    assert random and ours and random["mean"] == pytest.approx(expected) and ours["mean"] == ours["low"] == 1.0
    difference = comparison["differences"]["ours"]["splits"]["test"]["mIoU"]
    assert difference and difference["clear"] and difference["mean"] == pytest.approx(1 - random["mean"])


def test_overalls_are_both() -> None:
    parts = {split: data(seed)[:2] for seed, split in enumerate(("easy", "hard"))}
    scores = score_semantic_splits({split: confusions(*part) for split, part in parts.items()})
    easy, hard = (score_confusions(confusions(*part))["overall"]["mIoU"] for part in parts.values())
    assert easy and hard and scores["mean"]["overall"]["mIoU"] == pytest.approx((easy + hard) / 2)
    pooled = [confusions(*part).pixels for part in parts.values()]
    right = sum(np.trace(pixels.sum(0)) for pixels in pooled) / sum(pixels.sum() for pixels in pooled)
    assert scores["pooled"]["overall"]["pixel accuracy"] == pytest.approx(right)


def test_a_mask_of_another_size_is_refused() -> None:
    truth, results, *_ = data(3)
    with pytest.raises(ValueError, match="3 x 2"):
        confusions(truth, [{**results[0], "segmentation": rle(np.ones((2, 3), np.uint8))}])
