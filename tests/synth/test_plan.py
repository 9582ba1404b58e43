"""The plan: a pure function of (config, catalogue, number of scans, index), and the frequencies it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segloc_synth.compose.plan import Catalogue, Pair, Paste, catalogue, plan_pair
from segloc_synth.config import BALANCES, POSITIVES, Config

COUNTS = (180, 45, 5)
IDS = np.repeat([3, 5, 8], COUNTS)
SHARES = np.where(np.arange(len(IDS)) % 3 == 0, 0.2, 0.0)
SHARES[IDS == 8] = 0  # nothing is known of that class
SCANS = 40


def config(**changes: object) -> Config:
    return Config(objects={}, backgrounds={}, **changes)  # type: ignore[arg-type]


def plans(catalogue: Catalogue, count: int, **changes: object) -> list[Pair]:
    made = config(**changes)
    return [plan_pair(made, catalogue, SCANS, index) for index in range(count)]


def every(pairs: list[Pair]) -> list[Paste]:
    return [paste for pair in pairs for view in (pair.key, pair.query) for paste in view.pastes]


PLAIN = catalogue(IDS, SHARES, "instance", distractors=7)

configs = st.builds(
    config,
    seed=st.integers(0, 2**32 - 1),
    blend=st.just("alpha"),
    coefficient=st.just((0.3, 0.9)),
    scale=st.just((0.5, 2.0)),
    occlusion=st.just((0.2, 0.6)),
    items=st.tuples(st.integers(1, 20), st.integers(0, 5)).map(lambda pair: (pair[0], sum(pair))),
    positives=st.sampled_from(POSITIVES),
    distractors=st.floats(0, 1),
)


@given(configs, st.integers(0, 2**40))
def test_a_sample_depends_on_its_config_and_index_alone(made: Config, index: int) -> None:
    pair = plan_pair(made, PLAIN, SCANS, index)
    plan_pair(made, PLAIN, SCANS, index + 1)
    assert plan_pair(made, PLAIN, SCANS, index) == pair
    for paste in every([pair]):
        assert 0.5 <= paste.scale <= 2
        assert 0 <= paste.rotation < 360
        assert 0.3 <= paste.coefficient <= 0.9
        assert 0.2 <= paste.occlusion <= 0.6
        assert all(0 <= position < 1 for position in paste.positions)
        if paste.distractor:
            assert paste.segment == paste.size_of < 7
        else:
            assert IDS[paste.size_of] == IDS[paste.segment]
            assert (SHARES[paste.size_of] > 0) == (IDS[paste.segment] != 8)
    for view in (pair.key, pair.query):
        labelled = [paste for paste in view.pastes if not paste.distractor]
        assert made.items[0] <= len(labelled) <= made.items[1]
        assert tuple(labelled) == view.pastes[: len(labelled)]
        assert all(0 <= scan < SCANS for scan in view.backgrounds)
    subjects = pair.key.pastes[0].segment, pair.query.pastes[0].segment
    assert IDS[subjects[0]] == IDS[subjects[1]]
    assert made.positives == "class" or subjects[0] == subjects[1]


@pytest.mark.parametrize("balance", BALANCES)
def test_classes_are_drawn_as_the_balance_says(balance: str) -> None:
    weights = np.power(COUNTS, {"instance": 1.0, "sqrt": 0.5, "class": 0.0}[balance])
    pairs = plans(catalogue(IDS, SHARES, balance), 3000, items=(2, 2), positives="class")
    for place in (0, 1):  # subjects, and what lies beside them
        drawn = np.array([pair.key.pastes[place].segment for pair in pairs])
        found = np.bincount(IDS[drawn], minlength=9)[[3, 5, 8]] / len(pairs)
        assert np.abs(found - weights / weights.sum()).max() < 0.03
        within = np.bincount(drawn[IDS[drawn] == 5] - 180, minlength=45)  # every segment of a class alike
        assert within.min() > 0 and within.max() < 4 * within.mean()


def test_items_and_look_alikes_come_as_often_as_asked() -> None:
    pairs = plans(PLAIN, 3000, items=(2, 4), distractors=0.25)
    counts = np.array([[len([p for p in v.pastes if not p.distractor]) for v in (x.key, x.query)] for x in pairs])
    assert np.abs(np.bincount(counts.ravel(), minlength=5)[2:] / 6000 - 1 / 3).max() < 0.03
    alike = np.array([[view.pastes[-1].distractor for view in (pair.key, pair.query)] for pair in pairs])
    assert np.abs(alike.mean(0) - 0.25).max() < 0.03
    for both in (counts, alike):
        assert abs(np.corrcoef(both.T)[0, 1]) < 0.06
    assert not any(paste.distractor for paste in every(plans(catalogue(IDS, SHARES, "sqrt"), 50, distractors=1.0)))


def test_positives_of_a_class_are_two_segments_of_it() -> None:
    pairs = plans(PLAIN, 2000, positives="class")
    same = np.mean([pair.key.pastes[0].segment == pair.query.pastes[0].segment for pair in pairs])
    assert same < 0.02


def test_views_are_drawn_independently_and_evenly() -> None:
    pairs = plans(PLAIN, 3000, scale=(0.5, 2.0), blend="alpha", coefficient=(0.5, 1.0), occlusion=(0.0, 0.5))
    for name, low, high in (
        ("scale", 0.5, 2.0),
        ("rotation", 0, 360),
        ("flip", 0, 1),
        ("coefficient", 0.5, 1),
        ("occlusion", 0, 0.5),
    ):
        both = np.array([[getattr(view.pastes[0], name) for view in (pair.key, pair.query)] for pair in pairs], float)
        both = np.log(both / low) / np.log(high / low) if name == "scale" else (both - low) / (high - low)
        assert abs(np.corrcoef(both.T)[0, 1]) < 0.06, name
        bins = np.histogram(both, 2 if name == "flip" else 8, (0, 1))[0]
        assert bins.max() / bins.min() < 1.25, name
    for take in (lambda view: view.backgrounds[0] / SCANS, lambda view: view.pastes[0].pose[1]):
        both = np.array([[take(view) for view in (pair.key, pair.query)] for pair in pairs])
        assert abs(np.corrcoef(both.T)[0, 1]) < 0.06
    scans = np.bincount([pair.query.backgrounds[0] for pair in pairs], minlength=SCANS)
    assert scans.max() / scans.min() < 2.2
