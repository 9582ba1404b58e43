"""Palettes: learnt from simulated scans whose colours are known, and the tables between two of them."""

from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.synth.conftest import Scans

from segloc_synth.colour import learning, palette
from segloc_synth.colour.palette import LEVELS, MATERIALS, MIXED, Palette
from segloc_synth.phantom import PIDRAY, PIDRAY_VIVID, SIXRAY, Scanner

Palettes = dict[str, Palette]
SCANNERS = {scanner.name: scanner for scanner in (PIDRAY, PIDRAY_VIVID, SIXRAY)}


@pytest.mark.parametrize("name", SCANNERS)
def test_a_scanners_colours_are_recovered(simulated: dict[str, Scans], palettes: Palettes, name: str) -> None:
    scans, bags = simulated[name]
    others = [one for other, one in palettes.items() if other != name]
    for scan, bag in list(zip(scans, bags, strict=True))[18:]:  # scans that it was not learnt from
        assert palette.misfit(palettes[name], scan, bag) < 5
        assert palette.nearest([*others, palettes[name]], scan, bag) == len(others)


def ramp(scanner: Scanner, darkness: int) -> np.ndarray:
    """What a scanner draws from organic to metal at a darkness, RGB uint8 [1, 64, 3]."""
    return np.ascontiguousarray(scanner.colour_map[None, :, darkness])


@pytest.mark.parametrize("name", SCANNERS)
def test_material_runs_from_organic_to_metal(palettes: Palettes, name: str) -> None:
    _, material = palette.read(palettes[name], ramp(SCANNERS[name], 110))
    row = material[0].astype(int)
    assert row[0] < 0.25 * MATERIALS
    assert row[-1] > 0.8 * MATERIALS
    assert np.diff(row).min() > -4
    assert not palettes[name].grey


def test_two_palettes_in_one_source_are_told_apart(simulated: dict[str, Scans]) -> None:
    (one, one_bags), (two, two_bags) = simulated["pidray"], simulated["pidray-vivid"]
    order = np.random.default_rng(0).permutation(48)
    scans, bags = [[*one, *two][place] for place in order], [[*one_bags, *two_bags][place] for place in order]
    found = learning.fit(scans, bags)
    assert len(found) == 2
    side = np.array([palette.nearest(found, scan, bag) for scan, bag in zip(scans, bags, strict=True)])
    right = (side == (order >= 24)).mean()
    assert max(right, 1 - right) > 0.9
    assert [palette.nearest(found[:1], scan, bag) for scan, bag in zip(scans, bags, strict=True)] == [0] * 48


def test_a_grey_source_shows_attenuation_only(palettes: Palettes) -> None:
    grey = palettes["grey"]
    assert grey.grey
    steps = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    levels, material = palette.read(grey, steps)
    assert (np.diff(levels[0].astype(int)) <= 0).all()
    assert set(material[0, palette.DARK :].tolist()) == {MIXED}
    assert np.abs(grey.colours[material, levels].astype(int) - steps).max() <= 1


def test_nothing_to_learn_from_is_a_grey_palette() -> None:
    white, none = np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64), np.uint8)
    for scans, bags in (([], []), ([white] * 3, [none] * 3)):
        (empty,) = learning.fit(scans, bags)
        assert empty.grey
        assert np.isfinite(empty.contrasts).all()


def test_a_scan_without_a_bag_tells_nothing(simulated: dict[str, Scans], palettes: Palettes) -> None:
    scans, bags = (part[:18] for part in simulated["pidray-vivid"])
    white, none = np.full_like(scans[0], 255), np.zeros_like(bags[0])
    (found,) = learning.fit([white, *scans, white, white], [none, *bags, none, none])
    assert all(np.array_equal(getattr(found, f.name), getattr(palettes["pidray-vivid"], f.name)) for f in fields(found))


def test_saved_palettes_come_back(palettes: Palettes, tmp_path: Path) -> None:
    for several in ([], [palettes["sixray"]], list(palettes.values())):
        palette.save(tmp_path / "palettes.npz", several)
        back = palette.load(tmp_path / "palettes.npz")
        assert len(back) == len(several)
        for one, other in zip(several, back, strict=True):
            for field in fields(Palette):
                mine, theirs = getattr(one, field.name), getattr(other, field.name)
                assert type(mine) is type(theirs), field.name
                assert np.array_equal(mine, theirs), field.name


def test_matched_attenuation_keeps_its_order(palettes: Palettes) -> None:
    for source in palettes.values():
        for target in palettes.values():
            table = palette.match(source, target).astype(int)
            assert table.shape == (MATERIALS, LEVELS)
            assert (np.diff(table, axis=1) >= 0).all()
            assert table[:, 0].max() == 0
            assert table.min() >= 0 and table.max() < LEVELS
            if source is target:
                assert (table == np.arange(LEVELS)).all()
    copy = palette.match(palettes["sixray"], replace(palettes["sixray"])).astype(int)
    assert np.abs(copy - np.arange(LEVELS)).max() <= 1


def test_a_scanner_that_shows_twice_the_contrast_is_matched(palettes: Palettes) -> None:
    own = palettes["sixray"]
    table = palette.match(own, replace(own, contrasts=2 * own.contrasts))
    middle = slice(10, 120)
    assert np.abs(table[:, middle] / np.arange(LEVELS)[middle] - 2).max() < 0.15


@given(st.floats(palette.UNIT, LEVELS))
def test_amounts_of_matter_rise_with_what_is_shown_and_come_back(depth: float) -> None:
    to_amount, to_shown = palette.amounts(depth)
    assert to_amount[0] == 0
    assert (np.diff(to_amount) >= 1).all()
    assert (np.diff(to_shown.astype(int)) >= 0).all()
    assert np.array_equal(to_shown[to_amount], np.arange(LEVELS))
    thin = to_amount < 0.2 * depth  # a display is faithful where little lies on the belt
    assert np.abs(to_amount[thin] - np.arange(LEVELS)[thin]).max() <= 0.03 * depth


def test_strength_and_back_is_the_same_material() -> None:
    materials = np.arange(MATERIALS)
    strong = palette.strength(materials)
    assert (np.diff(strong) > 0).all()
    assert strong[-1] == pytest.approx(palette.STRONGEST)
    assert np.allclose(palette.weaken(strong), materials)
    rounded = np.rint(strong).astype(int)
    assert np.array_equal(np.rint(palette.weaken(rounded)), materials)


def test_objects_are_sharpened_for_sharper_scans(palettes: Palettes) -> None:
    own = palettes["pidray"]
    amounts = [palette.sharpening(own, replace(own, acutance=value)) for value in np.linspace(0, 3, 9)]
    assert amounts == sorted(amounts)
    assert amounts[0] < 0 < amounts[-1]
    assert palette.sharpening(replace(own, turned=np.zeros_like(own.turned)), own) == 0


def test_drawn_attenuation_is_what_was_asked(palettes: Palettes) -> None:
    """A palette's colours have exactly the attenuation that they are filed under, as far as grey levels tell."""
    for one in palettes.values():
        found = palette.attenuation(one.colours[:, :300]).astype(int)
        wanted = np.arange(300)[None].repeat(MATERIALS, 0)
        bright = one.colours[:, :300].min(axis=2) > 12  # else a grey level is many codes
        assert np.abs(found - wanted)[bright].max() <= 6


def test_attenuations_of_layers_add_up() -> None:
    clear = cv2.merge([np.arange(0, 256, dtype=np.uint8)[None]] * 3)
    levels = palette.attenuation(clear)[0].astype(int)
    half = levels[127]
    assert levels[255] == 0
    assert half == pytest.approx(palette.UNIT * np.log(2), abs=1)
    assert levels[63] == pytest.approx(2 * half, abs=2)
