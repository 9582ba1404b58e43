"""The stand-in for mmcv's compiled operators: mmcv's own functions on top of it give the right numbers."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

import segloc_eval.mm

assert segloc_eval.mm  # it registers the stand-in, which must be there before mmcv.ops is imported
ops = importlib.import_module("mmcv.ops")


def greedy(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    """NMS from its definition, in float32."""
    kept: list[int] = []
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(offset)
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            corner = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
            shared = np.maximum(corner + np.float32(offset), 0).prod()
            if shared / (size[i].prod() + size[j].prod() - shared) > np.float32(threshold):
                break
        else:
            kept.append(int(i))
    return kept


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32), threshold=st.sampled_from([0.3, 0.5, 0.7]), offset=st.sampled_from([0, 1]))
def test_nms_is_greedy_nms_by_falling_score(seed: int, threshold: float, offset: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 30, (40, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 30, (40, 2))], 1).astype(np.float32)
    scores = rng.permutation(40).astype(np.float32) / 40
    found, indices = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, offset=offset)
    assert indices.tolist() == greedy(boxes, scores, threshold, offset)
    assert (found[:, 4].diff() <= 0).all()
    if not offset:
        single = float(np.float32(threshold))  # mmcv compares in float32, torchvision in float64
        theirs = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), single)
        assert indices.tolist() == theirs.tolist()


def test_nms_keeps_a_box_whose_overlap_is_the_threshold() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10]])
    _, indices = ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)
    assert indices.tolist() == [1, 0]


@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_is_torchvisions_forward_and_backward(aligned: bool) -> None:
    features = torch.rand(2, 3, 12, 10, requires_grad=True)
    rois = torch.tensor([[0, 1.5, 2.0, 30.0, 40.0], [1, 0.0, 0.0, 16.0, 8.0], [1, 5.0, 9.0, 39.0, 47.0]])
    ours = ops.roi_align(features, rois, (4, 5), 0.25, 2, "avg", aligned)
    theirs = torchvision.ops.roi_align(features, rois, (4, 5), 0.25, 2, aligned)
    assert torch.equal(ours, theirs)
    weights = torch.rand_like(ours)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), features)
    (expected,) = torch.autograd.grad((theirs * weights).sum(), features)
    assert torch.equal(gradient, expected) and gradient.abs().sum() > 0


def test_roi_align_by_hand() -> None:
    """On a ramp f(x) = x, the mean over an aligned bin is its centre (less half a pixel)."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    out = ops.roi_align(ramp, torch.tensor([[0, 2.0, 2.0, 6.0, 6.0]]), (2, 2), 1.0, 2, "avg", True)
    assert torch.allclose(out[0, 0], torch.tensor([[2.5, 4.5], [2.5, 4.5]]))


def test_other_operators_say_what_is_missing() -> None:
    boxes, scores = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0])
    with pytest.raises(NotImplementedError, match="softnms: needs mmcv's compiled operators"):
        ops.soft_nms(boxes, scores)
    with pytest.raises(NotImplementedError, match="max pooling"):
        ops.roi_align(torch.rand(1, 1, 4, 4), torch.tensor([[0, 0.0, 0, 2, 2]]), 2, 1.0, 0, "max", True)


def test_a_compiled_module_is_left_alone() -> None:
    """Where mmcv._ext exists, importing our package does not replace it."""
    code = (
        "import sys, types; own = types.ModuleType('mmcv._ext'); sys.modules['mmcv._ext'] = own\n"
        "import segloc_eval.mm; assert sys.modules['mmcv._ext'] is own"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
