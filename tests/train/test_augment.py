"""Boxes and masks stay on their objects, colours vary as published, nothing depends on anything but the generator."""

from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.conftest import Forked
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torchvision.ops import box_iou, masks_to_boxes
from torchvision.transforms import functional as reference

from segloc_train.data.augment import KINDS, augment, cropped_size, jitter, plain, vary_colour
from segloc_train.data.data import View

SIZE = 64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def marked(box: list[int], count: int) -> View:
    """Pictures with a magenta rectangle at `box` on white, and its mask."""
    x1, y1, x2, y2 = box
    images = torch.full((count, 3, SIZE, SIZE), 255, dtype=torch.uint8)
    images[:, :, y1:y2, x1:x2] = torch.tensor([120, 0, 120], dtype=torch.uint8).view(3, 1, 1)
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
    masks[:, y1:y2, x1:x2] = 1
    return View(images, torch.tensor([box], dtype=torch.float32).repeat(count, 1), masks)


def dark(image: Tensor) -> Tensor:
    """bool [H, W]: nearer to the picture's darkest green than to its lightest."""
    green = image[1]
    return green < (green.min() + green.max()) / 2


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@example(seed=0, corners=[0, 61, 0, 54])  # a crop to the object alone, but for rounding
@given(seed=st.integers(0, 10_000), corners=st.lists(st.integers(0, SIZE), min_size=4, max_size=4))
def test_boxes_and_masks_stay_on_their_objects(kind: str, seed: int, corners: list[int]) -> None:
    (x1, x2), (y1, y2) = sorted(corners[:2]), sorted(corners[2:])
    x2, y2 = max(x2, min(x1 + 8, SIZE)), max(y2, min(y1 + 8, SIZE))
    box = [min(x1, x2 - 8), min(y1, y2 - 8), x2, y2]
    stored = marked(box, 8)
    view = augment(stored, kind, seeded(seed))
    low, high = view.boxes[:, :2], view.boxes[:, 2:]
    assert view.boxes.min() >= 0 and view.boxes.max() <= SIZE
    assert (high - low >= torch.tensor([box[2] - box[0], box[3] - box[1]]) - 1e-3).all(), "crops only enlarge"
    assert view.masks is not None and view.masks.dtype == torch.uint8 and view.masks.amax((1, 2)).min() == 1
    ends = torch.tensor([0, 0, 1, 1])  # masks_to_boxes names the last pixel, boxes its far edge
    # Edges fall on half-covered pixels: off by a pixel at most.
    assert (masks_to_boxes(view.masks) + ends - view.boxes).abs().max() <= 1.01
    if box[2] - box[0] == SIZE and box[3] - box[1] == SIZE:
        return  # nothing but the object
    for image, moved in zip(view.images, view.boxes, strict=True):
        if torch.allclose(moved, torch.tensor([0.0, 0, SIZE, SIZE]), atol=1e-3):
            continue  # the crop shows nothing but the object
        found = masks_to_boxes(dark(image)[None])[0] + ends
        # A blur closes a gap to the picture's border that is narrower than its sigma, at most 2 pixels.
        assert (found - moved).abs().max() <= (2.01 if kind == "moco" else 1.01), (found, moved)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_waits_for_the_device(tmp_path: Path, kind: str) -> None:
    # In a process of its own: after this mode no fork of a process can compute gradients.
    code, told = Forked(tmp_path / "log", without_values, kind).end()
    assert code == 0, told


def without_values(kind: str) -> None:
    view = marked([10, 20, 30, 30], 4)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # has no values, so it refuses whatever asks for one
        fake = View(*(mode.from_tensor(x) for x in view if x is not None))
        assert augment(fake, kind, seeded(0)).images.shape == (4, 3, SIZE, SIZE)
        with pytest.raises(DataDependentOutputException):
            fake.boxes.max().item()


@pytest.mark.parametrize("kind", ["mild", "moco"])
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), x=st.integers(0, 40), y=st.integers(0, 40), side=st.integers(8, SIZE - 40))
def test_a_smaller_picture_holds_the_object_at_about_its_size(kind: str, seed: int, x: int, y: int, side: int) -> None:
    """Half as wide, so a quarter of the work; boxes stay on their objects."""
    view = augment(marked([x, y, x + side, y + side], 8), kind, seeded(seed), 0.5)
    assert view.images.shape == (8, 3, SIZE // 2, SIZE // 2)
    assert view.boxes.min() >= 0 and view.boxes.max() <= SIZE // 2
    grown = (view.boxes[:, 2:] - view.boxes[:, :2]) / side
    assert grown.max() < 2.7 and grown.min() > 0.55
    if kind == "mild":
        assert grown.min() >= 1 / 1.41 and grown.max() <= 1 / 0.59
    for image, moved in zip(view.images, view.boxes, strict=True):
        if (moved != torch.tensor([0.0, 0, SIZE // 2, SIZE // 2])).any():
            found = masks_to_boxes(dark(image)[None])[0] + torch.tensor([0, 0, 1, 1])
            assert (found - moved).abs().max() <= (2.01 if kind == "moco" else 1.01), (found, moved)


@pytest.mark.parametrize("kind", ["mild", "moco"])
def test_crops_flips_and_light_vary_but_repeat(kind: str) -> None:
    noise = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8, generator=seeded(0))
    view = View(noise.repeat(64, 1, 1, 1), torch.tensor([[10.0, 20, 30, 30]]).repeat(64, 1))
    one, two, three = (augment(view, kind, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one.images, two.images) and torch.equal(one.boxes, two.boxes) and one.masks is None
    assert not torch.equal(one.images, three.images)
    assert box_iou(one.boxes[:1], one.boxes).std() > 0.1
    widths, heights = one.boxes[:, 2] - one.boxes[:, 0], one.boxes[:, 3] - one.boxes[:, 1]
    largest = 20 / 0.6 if kind == "mild" else 20 / (0.2 * 3 / 4) ** 0.5
    assert widths.min() >= 20 - 1e-3 and widths.max() <= largest + 1e-3 and widths.std() > 1
    assert ((widths / heights).std() > 0.1) == (kind == "moco")
    assert one.images.mean((1, 2, 3)).std() > 0.02 and len(one.images.flatten(1).unique(dim=0)) == 64
    pixels = one.images
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5


def test_jitter_grey_and_blur_equal_torchvisions_picture_by_picture() -> None:
    images = torch.rand(12, 3, 24, 32, generator=seeded(1))
    images[0] = images[0, 0]  # grey: a hue of no colour
    draws = torch.rand(12, 8, generator=seeded(2))
    draws[:, 4:7] = torch.tensor([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(12)])  # 0: surely, 1: surely not
    done = vary_colour(images, draws)
    for image, (b, c, s, h, jittered, greyed, blurred, sigma), mine in zip(images, draws.tolist(), done, strict=True):
        expected = image
        if not jittered:
            expected = reference.adjust_brightness(expected, 0.6 + 0.8 * b)
            expected = reference.adjust_contrast(expected, 0.6 + 0.8 * c)
            expected = reference.adjust_saturation(expected, 0.6 + 0.8 * s)
            expected = reference.adjust_hue(expected, -0.1 + 0.2 * h)
        if not greyed:
            expected = reference.rgb_to_grayscale(expected, 3)
        if not blurred:
            expected = reference.gaussian_blur(expected, [13, 13], [0.1 + 1.9 * sigma] * 2)
        assert (mine - expected).abs().max() < 1e-5
    still = [torch.full((12, 1, 1, 1), x) for x in (1.0, 1.0, 1.0, 0.0)]
    assert torch.allclose(jitter(images, *still), images, atol=1e-6)


def test_moco_jitters_greys_and_blurs_as_often_as_published() -> None:
    draws = torch.rand(2000, 8, generator=seeded(3))
    stripes = torch.linspace(0.2, 0.8, 8).view(1, 1, 1, 8) * torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1)
    images = stripes.repeat(2000, 1, 8, 1)
    colours = vary_colour(images, draws)
    greyed = (colours.std(1).amax((1, 2)) < 1e-6).float().mean()
    same = (colours == images).flatten(1).all(1).float().mean()
    assert abs(greyed - 0.2) < 0.03 and abs(same - 0.2 * 0.8 * 0.5) < 0.03


def test_none_leaves_pictures_in_0_to_1_and_a_wrong_kind_is_refused() -> None:
    stored = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(2, 3, 1, 2)
    view = View(stored, torch.zeros(2, 4))
    for found in (plain(view), augment(view, "none", seeded(0))):
        assert found.images.dtype == torch.float32 and torch.equal(found.images, stored.float() / 255)
    assert [cropped_size(*x) for x in ((128, 1.0), (128, 0.5), (100, 1.0), (128, 0.1))] == [128, 64, 100, 32]
    with pytest.raises(ValueError, match="'strong' is none of none, mild, moco"):
        augment(view, "strong", seeded(0))
