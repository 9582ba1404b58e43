"""Compositing, pixel by pixel."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segloc_synth.compose import blend, place
from tests.conftest import draw_scan

from segloc_synth.backgrounds import bag_mask
from segloc_synth.config import BLENDS, Blend
from segloc_synth.images import fit_to_canvas
from segloc_synth.plan import View
from segloc_synth.segments import Segment

SIZE = 96
BACKGROUND = fit_to_canvas(draw_scan(1), SIZE)
BAG = bag_mask(BACKGROUND)
CARRIER = (240, 200, 150)

views = st.builds(
    View,
    background=st.just(0),
    scale=st.floats(0.1, 4),
    rotation=st.floats(0, 360),
    flip=st.booleans(),
    coefficient=st.floats(0.05, 1),
    positions=st.lists(st.floats(0, 1, exclude_max=True), min_size=8, max_size=8).map(tuple),
)


def segment(seed: int) -> Segment:
    """An object of random outline, with a thin part of under a pixel."""
    rng = np.random.default_rng(seed)
    alpha = np.zeros((30, 44), np.uint8)
    if seed == 0:  # a wire
        alpha[2:28, 3] = alpha[27, 3:40] = 255
    else:
        cv2.ellipse(alpha, (22, 15), (int(rng.integers(6, 20)), int(rng.integers(3, 14))), 0, 0, 360, 255, -1)
        alpha[14, :] = 255
    colour = rng.integers(0, 256, (30, 44, 3), dtype=np.uint8)
    return Segment("scan#1", 7, np.dstack([colour, alpha]), CARRIER, zoom=1.5)


@settings(deadline=None)
@given(views, st.sampled_from(BLENDS), st.integers(0, 9))
def test_outside_the_feather_the_background_is_untouched(view: View, how: Blend, seed: int) -> None:
    placed = place(segment(seed), view, BAG)
    mask = placed.full_mask(SIZE)
    feathered = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    composite = blend(BACKGROUND, placed, CARRIER, how)
    assert mask.any()
    assert np.array_equal(composite[feathered == 0], BACKGROUND[feathered == 0])


@settings(deadline=None)
@given(views, st.integers(0, 9))
def test_each_blend_is_its_formula_inside_the_object(view: View, seed: int) -> None:
    placed = place(segment(seed), view, BAG)
    height, width = placed.mask.shape
    window = (slice(placed.top, placed.top + height), slice(placed.left, placed.left + width))
    solid = placed.alpha == 255
    below, above = BACKGROUND[window][solid].astype(float), placed.colour[solid].astype(float)
    c = view.coefficient
    expected = {
        "hard": c * above + (1 - c) * below,  # the plan draws c = 1 for it
        "alpha": c * above + (1 - c) * below,
        "multiply": below * np.minimum(above / CARRIER, 1) ** c,
    }
    for how in BLENDS:
        got = blend(BACKGROUND, placed, CARRIER, how)[window][solid]
        assert np.abs(got - expected[how]).max(initial=0) <= 1.5


def test_an_object_of_the_carriers_colour_vanishes_in_multiply() -> None:
    clear = segment(0)
    clear.rgba[..., :3] = CARRIER
    view = View(0, 1.0, 30.0, True, 0.8, (0.5,) * 8)
    assert np.array_equal(blend(BACKGROUND, place(clear, view, BAG), CARRIER, "multiply"), BACKGROUND)


def test_objects_lie_in_the_bag_and_on_the_canvas() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for seed in range(60):
        view = View(0, 1.0, float(rng.uniform(0, 360)), False, 1.0, tuple(rng.random(8).tolist()))
        shares.append(place(segment(seed), view, BAG).in_bag)
    assert min(shares) > 0.6
    assert np.mean(np.array(shares) >= 0.98) > 0.8


def test_a_bag_is_found_on_white_grey_and_cyan_belts() -> None:
    bag = np.zeros((SIZE, SIZE), np.uint8)
    bag[20:70, 25:80] = 1
    for belt in ((255, 255, 255), (190, 190, 190), (180, 230, 235)):
        scan = np.where(bag[..., None] == 1, np.uint8(120), np.array(belt, np.uint8))
        found = bag_mask(scan)
        assert (found & bag).sum() / (found | bag).sum() > 0.9
    assert not bag_mask(np.full((SIZE, SIZE, 3), 250, np.uint8)).any()


@pytest.mark.parametrize("rotation", [0.0, 90.0, 180.0, 270.0])
def test_rotation_turns_counter_clockwise_about_the_centre(rotation: float) -> None:
    alpha = np.full((21, 41), 255, np.uint8)
    colour = np.zeros((21, 41, 3), np.uint8)
    colour[:, 30:] = 255  # the right end is bright
    view = View(0, 1.0, rotation, False, 1.0, (0.5,) * 8)
    placed = place(Segment("s#1", 1, np.dstack([colour, alpha]), CARRIER, 1.0), view, BAG)
    y, x = np.argwhere((placed.colour[..., 0] > 128) & (placed.mask == 1)).mean(axis=0)
    height, width = placed.mask.shape
    side = (x / (width - 1) - 0.5, 0.5 - y / (height - 1))
    expected = (np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation)))
    assert np.dot(side, expected) > 0.3
    assert sorted((height, width)) == pytest.approx([21, 41], abs=1)
