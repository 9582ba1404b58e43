"""Schedules in scans seen, and recipes that survive their JSON."""

import json
from dataclasses import replace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segloc_eval.recipe import LIMITS, PAPER, QUICK, RECIPES, Recipe, choose_detector, kinds

PIDRAY = 29_457  # training scans of its first release


def test_the_published_schedule_on_the_whole_of_pidray() -> None:
    """Batch 16, 12 epochs, linear warm-up of 500 steps from a third, a tenth after epochs 8 and 11."""
    per_epoch = PIDRAY / 16
    assert PAPER.steps(PIDRAY) == int(12 * per_epoch)

    def lr(step: float) -> float:
        return PAPER.lr_at(16 * round(step), PIDRAY)

    assert lr(0) == pytest.approx(0.02 / 3) and lr(250) == pytest.approx(0.02 * 2 / 3, rel=1e-3)
    assert lr(499) < 0.02 and lr(502) == 0.02 and lr(8 * per_epoch - 2) == 0.02
    assert lr(8 * per_epoch + 2) == pytest.approx(0.002) == pytest.approx(lr(11 * per_epoch - 2))
    assert lr(11 * per_epoch + 2) == pytest.approx(0.0002)


@given(
    scans=st.integers(1, 1000), batch=st.integers(1, 64), epochs=st.integers(1, 30), name=st.sampled_from([*RECIPES])
)
def test_every_schedule_is_a_function_of_the_share_seen(scans: int, batch: int, epochs: int, name: str) -> None:
    recipe = RECIPES[name].changed(batch_size=batch, epochs=epochs)
    total = recipe.total_samples(scans)
    assert total % batch == 0 and (total <= scans * epochs or total == batch)
    rates = [recipe.lr_at(seen, scans) for seen in range(0, total, batch)]
    assert all(0 < rate <= recipe.lr for rate in rates) and recipe.lr == pytest.approx(
        RECIPES[name].lr * batch / RECIPES[name].batch_size
    )
    peak = rates.index(max(rates))
    assert sorted(rates[: peak + 1]) == rates[: peak + 1] and sorted(rates[peak:], reverse=True) == rates[peak:]
    by_samples = replace(recipe, epochs=1, samples=scans * epochs)
    assert [by_samples.lr_at(seen, scans) for seen in range(0, total, batch)] == rates


def test_a_recipe_survives_its_json_and_no_other_passes() -> None:
    for recipe in (QUICK, PAPER, QUICK.changed(samples=800, lr=1e-3)):
        text = json.dumps(recipe.as_dict())
        assert Recipe.from_dict(json.loads(text), "x") == recipe
    good = QUICK.as_dict()
    for bad in ({}, None, {**good, "more": 1}, {**good, "size": "128"}, {**good, "samples": "all"}):
        with pytest.raises(click.ClickException, match=r"^x: "):
            Recipe.from_dict(bad, "x")
    for bad in ({**good, "optimiser": "adam"}, {**good, "drops": ["late"]}, {**good, "size": 12.5}):
        with pytest.raises(click.ClickException, match=r"^x: "):
            Recipe.from_dict(bad, "x")
    for name, (least, most) in LIMITS.items():
        for value in (least, most):
            assert getattr(Recipe.from_dict({**good, name: value}, "x"), name) == value
        for value in (least - 1, most + 1, float(least)):
            with pytest.raises(click.ClickException, match=rf"^x: the recipe's {name} .* cannot be used"):
                Recipe.from_dict({**good, name: value}, "x")


def test_boxes_only_drop_the_mask_head_and_semantic_needs_masks() -> None:
    assert (
        choose_detector("cascade", True) == "cascade-mask-rcnn" and choose_detector("cascade", False) == "cascade-rcnn"
    )
    assert choose_detector("mask-rcnn", False) == choose_detector("faster-rcnn", True) == "faster-rcnn"
    assert kinds("mask-rcnn") == ("bbox", "segm") and kinds("cascade-rcnn") == ("bbox",)
    with pytest.raises(click.ClickException, match="needs masks"):
        choose_detector("semantic", False)
    assert kinds(choose_detector("semantic", True)) == ("semantic",)
