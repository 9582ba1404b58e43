"""Boxes stay on their objects, nothing depends on anything but the generator."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from segloc_train.augment import MEAN, STD, flip_and_crop, mild, normalise, plain
from segloc_train.data import View

SIZE = 64


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), corners=st.lists(st.integers(0, SIZE), min_size=4, max_size=4))
def test_boxes_stay_on_their_objects(seed: int, corners: list[int]) -> None:
    (x1, x2), (y1, y2) = sorted(corners[:2]), sorted(corners[2:])
    x2, y2 = max(x2, min(x1 + 4, SIZE)), max(y2, min(y1 + 4, SIZE))
    x1, y1 = min(x1, x2 - 4), min(y1, y2 - 4)
    images = torch.zeros(8, 3, SIZE, SIZE)
    images[:, :, y1:y2, x1:x2] = 1
    boxes = torch.tensor([[float(x1), y1, x2, y2]]).repeat(8, 1)
    images, boxes = flip_and_crop(images, boxes, torch.Generator().manual_seed(seed))
    assert boxes.min() >= -1e-3 and boxes.max() <= SIZE + 1e-3
    for image, box in zip(images, boxes, strict=True):
        rows, columns = (image[0].amax(1) > 0.5).nonzero(), (image[0].amax(0) > 0.5).nonzero()
        painted = [float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1]
        # edges fall on half-covered pixels: off by a pixel at most
        assert (torch.tensor(painted) - box).abs().max() <= 1.01, (painted, box)


def test_crops_flips_and_light_vary_but_repeat() -> None:
    view = View(
        torch.randint(0, 256, (64, 3, SIZE, SIZE), dtype=torch.uint8),
        torch.tensor([[10.0, 20, 30, 30]]).repeat(64, 1),
    )
    one, two, three = (mild(view, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one.images, two.images) and torch.equal(one.boxes, two.boxes)
    assert not torch.equal(one.images, three.images)
    assert box_iou(one.boxes[:1], one.boxes).std() > 0.1
    widths = one.boxes[:, 2] - one.boxes[:, 0]
    assert widths.min() >= 20 - 1e-3 and widths.max() <= 20 / 0.6 + 1e-3 and widths.std() > 1
    scale = torch.tensor(STD).view(3, 1, 1)
    assert ((one.images * scale + torch.tensor(MEAN).view(3, 1, 1)).clamp(0, 1) - 0.5).abs().max() <= 0.5


def test_normalisation_is_imagenets() -> None:
    stored = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(2, 3, 1, 2)
    view = plain(View(stored, torch.zeros(2, 4)))
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        expected = torch.tensor([-mean / std, (1 - mean) / std])
        assert torch.allclose(view.images[0, channel, 0], expected)
    assert torch.equal(view.images, normalise(stored.float() / 255))
