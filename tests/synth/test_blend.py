"""Blending, pixel by pixel: what each mode promises, inside the object and outside."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.synth.conftest import CARRIER, SIZE, absorbed, feathered, paste, pastes, segment

from segloc_synth.bank.cutting import Segment, cut_out
from segloc_synth.bank.scenes import Scene
from segloc_synth.colour import palette
from segloc_synth.colour.palette import Palette
from segloc_synth.compose import blend
from segloc_synth.compose.blend import Translation
from segloc_synth.compose.place import Matrix, Placed, place
from segloc_synth.compose.plan import Paste
from segloc_synth.config import BLENDS, Blend
from segloc_synth.sources.images import Pixels

Palettes = dict[str, Palette]


def window(background: Pixels, placed: Placed, how: Blend, translation: Translation) -> Pixels:
    below = background[placed.window]
    if how == "dual-energy":
        return blend.dual_energy(below, placed, translation)
    if how == "multiply":
        return blend.multiply(below, placed, CARRIER)
    return blend.hard(below, placed) if how == "hard" else blend.alpha(below, placed)


def whole(background: Pixels, placed: Placed, how: Blend, translation: Translation) -> Pixels:
    picture = background.copy()
    picture[placed.window] = window(background, placed, how, translation)
    return picture


@pytest.fixture(scope="module")
def translations(palettes: Palettes) -> dict[str, Translation]:
    pairs = (("pidray", "sixray"), ("sixray", "pidray-vivid"), ("pidray", "grey"), ("grey", "sixray"))
    return {f"{a} to {b}": Translation.between(palettes[a], palettes[b]) for a, b in pairs}


@pytest.fixture(scope="module")
def drawn(palettes: Palettes) -> dict[str, Pixels]:
    """Canvases full of each palette's own colours: every material, attenuations from nothing to black."""
    grown = {}
    for name, one in palettes.items():
        rng = np.random.default_rng(7)
        level = cv2.GaussianBlur(rng.random((SIZE, SIZE)), (0, 0), 4)
        level = np.rint((level - level.min()) / np.ptp(level) * (palette.LEVELS - 1)).astype(int)
        material = np.linspace(0, palette.MATERIALS - 1, SIZE).astype(int)[None].repeat(SIZE, 0)
        grown[name] = one.colours[material, level]
    return grown


def test_two_layers_in_grey_let_through_the_product(palettes: Palettes) -> None:
    """Scans of one energy: 255 exp(-attenuation), whatever lies below."""
    one = palettes["grey"]
    translation = Translation.between(one, one)
    for own in (0.3, 0.6, 0.9):
        planes = np.zeros((8, 8, 2), np.uint16)
        planes[..., 0] = absorbed(own * palette.UNIT)
        ones = np.ones((8, 8), np.uint8)
        above = Placed(paste(), 1.0, np.eye(3), planes, 255 * ones, ones, 0, 0, 1.0)
        for below in (0.1, 0.5, 1.0, 1.6):
            shown = np.full((8, 8, 3), round(255 * np.exp(-below)), np.uint8)
            found = blend.dual_energy(shown, above, translation)
            assert np.abs(found - 255 * np.exp(-own - below)).max() < 4


TRANSLATED = ("pidray to sixray", "sixray to pidray-vivid", "pidray to grey", "grey to sixray")


@given(
    paste=pastes,
    how=st.sampled_from(BLENDS),
    seed=st.integers(0, 9),
    name=st.sampled_from(TRANSLATED),
    noise=st.booleans(),
)
def test_outside_the_feather_the_background_is_untouched(
    scene: Scene, translations: dict[str, Translation], paste: Paste, how: Blend, seed: int, name: str, noise: bool
) -> None:
    placed = place(segment(seed), paste, 0.0, scene, layers=how == "dual-energy")
    background = scene.pixels
    if noise:  # colours that no scanner draws, white and black among them
        background = np.random.default_rng(seed).choice(np.array([0, 3, 60, 128, 251, 255], np.uint8), (SIZE, SIZE, 3))
    composite = whole(background, placed, how, translations[name])
    outside = feathered(placed) == 0
    assert np.array_equal(composite[outside], background[outside])
    again = whole(np.asfortranarray(background), placed, how, translations[name])
    assert np.array_equal(composite, again)
    assert composite.dtype == np.uint8


@given(paste=pastes, seed=st.integers(0, 9))
def test_each_plain_blend_is_its_formula_inside_the_object(
    scene: Scene, translations: dict[str, Translation], paste: Paste, seed: int
) -> None:
    placed = place(segment(seed), paste, 0.0, scene, layers=False)
    solid = placed.alpha == 255
    below, above = scene.pixels[placed.window][solid].astype(float), placed.planes[solid].astype(float)
    c = paste.coefficient
    expected = {
        "hard": above,
        "alpha": c * above + (1 - c) * below,
        "multiply": below * np.minimum(above / CARRIER, 1) ** c,
    }
    for how, values in expected.items():
        got = window(scene.pixels, placed, how, translations["pidray to sixray"])[solid]  # type: ignore[arg-type]
        assert np.abs(got - values).max(initial=0) <= 1.5


def test_an_object_of_the_carriers_colour_vanishes_in_multiply(scene: Scene) -> None:
    clear = segment(0)
    rgba = clear.rgba.copy()
    rgba[..., :3] = CARRIER
    placed = place(replace(clear, rgba=rgba), paste(rotation=30.0, flip=True), 0.0, scene, layers=False)
    assert np.array_equal(blend.multiply(scene.pixels[placed.window], placed, CARRIER), scene.pixels[placed.window])


@pytest.mark.parametrize("how", ["alpha", "multiply", "dual-energy"])
def test_little_of_an_object_is_nearly_nothing(scene: Scene, translations: dict[str, Translation], how: Blend) -> None:
    dark = segment(3)
    rgba, layers = dark.rgba.copy(), dark.layers.copy()
    rgba[10:20, 10:20, :3] = 0
    layers[..., 0] = np.minimum(layers[..., 0], absorbed(palette.UNIT))
    found = []
    for coefficient in (0.005, 1.0):
        black = replace(dark, rgba=rgba, layers=layers)
        placed = place(black, paste(coefficient=coefficient), 0.0, scene, layers=how == "dual-energy")
        got = whole(scene.pixels, placed, how, translations["pidray to sixray"])
        found.append(np.abs(got.astype(int) - scene.pixels).max())
    assert found[0] <= 15
    assert found[1] > 60


@given(paste=pastes, seed=st.integers(0, 9), name=st.sampled_from(TRANSLATED), how=st.sampled_from(BLENDS[2:]))
def test_an_object_never_brightens_what_it_lies_on(
    scene: Scene,
    translations: dict[str, Translation],
    drawn: dict[str, Pixels],
    paste: Paste,
    seed: int,
    name: str,
    how: Blend,
) -> None:
    background = drawn[name.partition(" to ")[2]]
    placed = place(segment(seed), paste, 0.0, scene, layers=how == "dual-energy")
    got = window(background, placed, how, translations[name])
    before = background[placed.window]
    shown = before.min(axis=2) > 12  # in the darkest a grey level is a large part of what there is
    dark, darker = (256 * np.exp(palette.attenuation(pixels) / -palette.UNIT) for pixels in (before, got))
    assert (darker - dark)[shown].max(initial=0) <= 1.5


def test_more_of_an_object_is_darker(scene: Scene, translations: dict[str, Translation]) -> None:
    means = []
    for coefficient in (0.1, 0.4, 0.7, 1.0):
        placed = place(segment(5), paste(coefficient=coefficient), 0.0, scene, layers=True)
        means.append(window(scene.pixels, placed, "dual-energy", translations["pidray to sixray"]).mean())
    assert means == sorted(means, reverse=True)
    assert means[0] - means[-1] > 20


@pytest.mark.parametrize("name", ["sixray", "pidray", "pidray-vivid", "grey"])
def test_on_the_empty_belt_an_object_looks_as_it_did(palettes: Palettes, name: str) -> None:
    """Cut out of a bag and laid on white in the same scanner's colours, without sharpening."""
    own = palettes[name]
    same = replace(Translation.between(own, own), sharpening=0.0)
    white = np.full((SIZE, SIZE, 3), 255, np.uint8)
    ones = np.ones((SIZE, SIZE), np.uint8)
    centre = np.full((256, 2), SIZE // 2, np.uint16)
    whole_canvas = np.array([0, 0, SIZE, SIZE], np.uint16)
    belt = Scene(white, whole_canvas, ones, centre, np.zeros((24, 24), np.uint8), 80.0, 0, ones[:16, :16])
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.ellipse(mask, (45, 50), (18, 11), 20, 0, 360, 1, -1)
    level = np.linspace(40, 110, SIZE).astype(int)[None].repeat(SIZE, 0)
    for material in (6, 20, 34, 48):
        alone = np.where(mask[..., None] == 1, own.colours[material, level], white)
        bag = palette.strength(12)  # of another material, and as much of it as there is of the object
        strong = (palette.strength(material) + bag) / 2
        mixed = own.colours[np.rint(palette.weaken(strong)).astype(int), 2 * level]
        in_bag = np.where(mask[..., None] == 1, mixed, own.colours[12, level])
        for scan, most in ((alone, 8), (in_bag, 9)):
            stored = cut_out("scan#1", 1, scan, mask, mask, own, 0, 1.0, 0.0)
            placed = place(stored, paste(), 0.0, belt, layers=True)
            got = whole(white, placed, "dual-energy", same)
            wanted = cv2.warpPerspective(np.dstack([alone, mask]), _from_scan(placed, stored), (SIZE, SIZE))
            inner = cv2.erode(wanted[..., 3], np.ones((5, 5), np.uint8)) == 1
            assert inner.sum() > 200
            assert np.abs(got[inner].astype(int) - wanted[..., :3][inner]).mean() < most


def _from_scan(placed: Placed, stored: Segment) -> Matrix:
    """From pixels of the scan, at its own size, to the canvas."""
    x, y = stored.origin
    return placed.matrix @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])


@given(paste=pastes, seed=st.integers(0, 9))
def test_grey_scans_stay_grey(
    scene: Scene, translations: dict[str, Translation], drawn: dict[str, Pixels], paste: Paste, seed: int
) -> None:
    placed = place(segment(seed), paste, 0.0, scene, layers=True)
    got = window(drawn["grey"], placed, "dual-energy", translations["pidray to grey"]).astype(int)
    assert np.ptp(got, axis=2).max() <= 1
    solid = placed.planes[..., 0] > absorbed(palette.UNIT)
    if solid.sum() > 40:
        assert got[solid].mean() < drawn["grey"][placed.window][solid].mean()
