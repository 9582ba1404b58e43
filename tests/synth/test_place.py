"""Placing: where an object's stored pixels land on the canvas, and where in the bag."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.synth.conftest import SIZE, feathered, paste, pastes, segment

from segloc_synth.bank.cutting import MARGIN
from segloc_synth.bank.scenes import Scene
from segloc_synth.compose.place import IN_BAG, place
from segloc_synth.compose.plan import TRIES, Paste
from segloc_synth.sources.backgrounds import bag_mask

FINE = 4  # canvas pixels are looked at in that many parts a side


@given(paste=pastes, seed=st.integers(0, 9), share=st.sampled_from([0.0, 0.1, 0.4]), layers=st.booleans())
def test_the_mask_is_where_the_matrix_says_and_tight(
    scene: Scene, paste: Paste, seed: int, share: float, layers: bool
) -> None:
    stored = segment(seed)
    placed = place(stored, paste, share, scene, layers)
    full = placed.full_mask(SIZE)
    assert full.sum() == placed.mask.sum() > 0
    assert (feathered(placed)[placed.window][placed.alpha > 0] == 1).all()
    assert cv2.boundingRect(placed.alpha) == (0, 0, *placed.mask.shape[::-1])
    assert placed.planes.shape[:2] == placed.alpha.shape == placed.mask.shape
    assert max(placed.mask.shape) <= 0.95 * SIZE
    assert placed.in_bag == pytest.approx((full & scene.bag).sum() / full.sum())
    if seed % 2 == 0 or full.sum() < 80:  # a thin part is drawn in pixels or not at all
        return
    finer = np.array([[FINE, 0, (FINE - 1) / 2], [0, FINE, (FINE - 1) / 2], [0, 0, 1]])
    side = (FINE * SIZE,) * 2
    solid = cv2.warpPerspective(stored.rgba[..., 3], finer @ placed.matrix, side, flags=cv2.INTER_LINEAR)
    soft = cv2.resize(solid, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    expected = soft >= 128
    assert (expected & (full == 1)).sum() / (expected | (full == 1)).sum() > 0.8
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[placed.window] = placed.alpha
    assert centre(alpha) == pytest.approx(centre(soft * feathered(placed)), abs=0.2)


def centre(weights: np.ndarray) -> tuple[float, float]:
    """x, y of the centre of mass."""
    moments = cv2.moments(weights)
    return moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]


@pytest.mark.parametrize("rotation", [0.0, 90.0, 180.0, 270.0])
def test_rotation_turns_counter_clockwise_about_the_centre(scene: Scene, rotation: float) -> None:
    alpha = np.pad(np.full((21, 41), 255, np.uint8), MARGIN)
    colour = np.zeros((*alpha.shape, 3), np.uint8)
    colour[:, 30:] = 255  # the right end is bright
    wide = replace(segment(1), rgba=np.dstack([colour, alpha]), zoom=1.0)
    for flip in (False, True):
        placed = place(wide, paste(rotation=rotation, flip=flip), 0.0, scene, layers=False)
        y, x = np.argwhere((placed.planes[..., 0] > 128) & (placed.mask == 1)).mean(axis=0)
        height, width = placed.mask.shape
        bright = (x / (width - 1) - 0.5, 0.5 - y / (height - 1))
        expected = np.array([np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))]) * (-1 if flip else 1)
        assert np.dot(bright, expected) > 0.25
        assert sorted((height, width)) == pytest.approx([21, 41], abs=1)


@given(
    st.floats(0.12, 0.25), st.floats(0.8, 1.1), st.floats(0, 360), st.integers(1, 9), st.sampled_from([1.0, 1.5, 3.0])
)
def test_the_size_is_the_share_of_the_bag(
    scene: Scene, share: float, scale: float, rotation: float, seed: int, zoom: float
) -> None:
    placed = place(segment(seed, zoom), paste(scale=scale, rotation=rotation), share, scene, layers=True)
    wanted = scale * share * scene.bag_size
    assert float(placed.mask.sum()) ** 0.5 == pytest.approx(wanted, rel=0.1, abs=0.6)
    assert placed.scale == pytest.approx(wanted / segment(seed, zoom).length, rel=1e-3)


def test_an_object_without_a_known_size_keeps_that_of_its_scan_and_none_leaves_the_canvas(scene: Scene) -> None:
    assert place(segment(1), paste(scale=0.7), 0.0, scene, layers=True).scale == pytest.approx(0.7, rel=1e-3)
    huge = place(segment(1, zoom=0.2), paste(scale=4.0), 0.0, scene, layers=True)
    assert huge.scale <= 2.0 * 0.2  # enlarged no more than twice what is stored
    wide = place(segment(1, zoom=0.4), paste(), 2.0, replace(scene, bag_size=500.0), layers=True)
    assert max(wide.mask.shape) <= 0.9 * SIZE + 3


@given(paste=pastes, seed=st.integers(0, 9), share=st.sampled_from([0.0, 0.4, 2.0]), high=st.booleans())
def test_nothing_is_drawn_beyond_the_scan(scene: Scene, paste: Paste, seed: int, share: float, high: bool) -> None:
    """Where a scan is narrow the canvas' rest is padding, which no scanner ever wrote on."""
    inner = (30, 0, 36, SIZE) if high else (0, 30, SIZE, 36)
    left, top, width, height = inner
    bag = np.zeros_like(scene.bag)
    bag[top : top + height, left : left + width] = 1
    y, x = (row[:: len(row) // 256][:256] for row in np.nonzero(bag))
    narrow = replace(
        scene, extent=np.array(inner, np.uint16), bag=bag, spots=np.stack([x, y], 1).astype(np.uint16), bag_size=58.0
    )
    placed = place(segment(seed), paste, share, narrow, layers=False)
    rows, cols = placed.window
    assert top <= rows.start and rows.stop <= top + height
    assert left <= cols.start and cols.stop <= left + width


def test_objects_lie_in_the_bag(scene: Scene) -> None:
    rng = np.random.default_rng(0)
    shares = [
        place(
            segment(seed % 10),
            paste(rotation=float(rng.uniform(0, 360)), positions=tuple(rng.random(TRIES).tolist())),
            0.0,
            scene,
            layers=False,
        ).in_bag
        for seed in range(60)
    ]
    assert min(shares) > 0.6
    assert np.mean(np.array(shares) >= IN_BAG) > 0.8


def test_occlusion_ranks_the_places_by_their_darkness(scene: Scene) -> None:
    rng = np.random.default_rng(0)
    grey = 255 - cv2.cvtColor(scene.pixels, cv2.COLOR_RGB2GRAY)
    found = []
    for _ in range(60):
        positions = tuple(rng.random(TRIES).tolist())
        row = []
        for occlusion in (0.0, 0.5, 1.0):
            placed = place(segment(3), paste(occlusion=occlusion, positions=positions), 0.12, scene, layers=True)
            row.append(grey[placed.full_mask(SIZE) == 1].mean())
        found.append(row)
    clear, middle, dense = np.mean(found, axis=0)
    assert clear < middle < dense
    assert dense - clear > 10
    assert np.mean([row[0] <= row[2] for row in found]) > 0.95


def test_a_bag_is_found_on_white_grey_and_cyan_belts() -> None:
    bag = np.zeros((SIZE, SIZE), np.uint8)
    bag[20:70, 25:80] = 1
    for belt in ((255, 255, 255), (190, 190, 190), (180, 230, 235)):
        scan = np.where(bag[..., None] == 1, np.uint8(120), np.array(belt, np.uint8))
        found = bag_mask(scan)
        assert (found & bag).sum() / (found | bag).sum() > 0.9
        padded = bag_mask(np.pad(scan, ((0, 0), (9, 9), (0, 0)), constant_values=255))  # as on a white canvas
        assert (padded[:, 9:-9] & bag).sum() / (padded | np.pad(bag, ((0, 0), (9, 9)))).sum() > 0.9
    assert not bag_mask(np.full((SIZE, SIZE, 3), 250, np.uint8)).any()
