"""Copy-paste: what is pasted attenuates what is there, is labelled where it lies, and changes nothing else."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from segloc_eval.mm.data import Example
from segloc_eval.mm.paste import MOST, SCALE, pasted

SIDE, LABEL, BOX = 96, 2, (30, 20, 60, 40)
OBJECT = (40, 90, 160)


def scan(background: int, box: tuple[int, int, int, int] | None, masks: bool, height: int = SIDE) -> Example:
    """A bag of one grey on white, right of and below which lies padding, with an object that fills its box."""
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    picture[4 : height - 4, 4:-4] = background
    boxes = np.zeros((0, 4), np.float32)
    if box:
        picture[box[1] : box[3], box[0] : box[2]] = OBJECT
        boxes = np.array([box], np.float32)
    things = InstanceData(bboxes=torch.from_numpy(boxes), labels=torch.full((len(boxes),), LABEL))
    if masks:
        stack = np.zeros((len(boxes), height, SIDE), np.uint8)
        for mask, (left, top, right, bottom) in zip(stack, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = 1
        things.masks = BitmapMasks(stack, height, SIDE)
    sample = DetDataSample(metainfo={"img_shape": (height, SIDE)})
    sample.gt_instances = things
    return torch.from_numpy(picture.transpose(2, 0, 1).copy()), sample


def boxes_of(example: Example) -> list[list[float]]:
    found: list[list[float]] = example[1].gt_instances.bboxes.tolist()
    return found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), masks=st.booleans(), empty=st.booleans())
def test_it_darkens_inside_new_boxes_alone_and_keeps_what_was_labelled(seed: int, masks: bool, empty: bool) -> None:
    target, donor = scan(200, None if empty else (50, 30, 80, 60), masks, height=80), scan(230, BOX, masks)
    kept = [target[0].clone(), boxes_of(target), donor[0].clone()]
    made, sample = pasted(target, lambda: donor, np.random.default_rng(seed))
    again, _ = pasted(target, lambda: donor, np.random.default_rng(seed))
    assert torch.equal(made, again) and torch.equal(target[0], kept[0]) and torch.equal(donor[0], kept[2])
    things = sample.gt_instances
    own = len(kept[1])
    assert boxes_of((made, sample))[:own] == kept[1] == boxes_of(target) and len(things) - own <= MOST
    assert set(things.labels.tolist()) <= {LABEL} and len(things.labels) == len(things)
    untouched = np.ones((SIDE, SIDE), bool)
    for number, (left, top, right, bottom) in enumerate(boxes_of((made, sample))[own:], own):
        assert 0 <= left < right <= SIDE and 0 <= top < bottom <= 80
        assert 20 / SCALE - 1 <= min(right - left, bottom - top) <= 20 * SCALE + 1
        rows, cols = slice(int(top), int(bottom)), slice(int(left), int(right))
        untouched[rows, cols] = False
        if masks:
            assert things.masks.masks[number][rows, cols].all() and things.masks.masks[number].sum() > 0
    before, after = (x.numpy().transpose(1, 2, 0) for x in (target[0], made))
    assert (after <= before).all() and (after[untouched] == before[untouched]).all()


def changes(masks: bool, background: int) -> np.ndarray[Any, Any]:
    """The first pasted object, what it shows over what was there."""
    target, donor = scan(background, None, masks), scan(255, BOX, masks)
    for seed in range(50):
        made, sample = pasted(target, lambda: donor, np.random.default_rng(seed))
        if len(sample.gt_instances) == 1:
            left, top, right, bottom = (int(x) for x in boxes_of((made, sample))[0])
            before, after = (x.numpy()[:, top:bottom, left:right].astype(float) for x in (target[0], made))
            return np.asarray(after / before)
    raise AssertionError("nothing was pasted")


@pytest.mark.parametrize("background", [200, 120])
def test_it_lets_through_as_much_as_in_its_own_scan(background: int) -> None:
    through = changes(True, background)
    assert np.allclose(through, np.array(OBJECT)[:, None, None] / 255, atol=1 / background)
    faded = changes(False, background)  # a box without a mask has no edge to see
    middle = faded[:, faded.shape[1] // 2, faded.shape[2] // 2]
    assert np.allclose(middle, np.array(OBJECT) / 255, atol=1 / background)
    assert (faded[:, 0] > 0.5).all() and (np.diff(faded[0, : faded.shape[1] // 2, faded.shape[2] // 2]) <= 1e-9).all()
