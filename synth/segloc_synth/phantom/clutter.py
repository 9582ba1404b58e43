"""Which harmless things lie in a bag, and how often."""

from collections.abc import Callable

import numpy as np

from segloc_synth.phantom.belongings import (
    book,
    bottle,
    box,
    can,
    coins,
    cosmetics,
    cutlery,
    food,
    fruit,
    glasses,
    keys,
    pan,
    pens,
    rods,
)
from segloc_synth.phantom.clothing import belt, clothes, hanger, roll, shoe, umbrella
from segloc_synth.phantom.electronics import board, cable, charger, gadget, laptop, phone
from segloc_synth.phantom.outlines import (
    Rng,
    apply,
    pose,
    rect,
    rounded,
)
from segloc_synth.phantom.physics import (
    ALUMINIUM,
    PAPER,
    STEEL,
)
from segloc_synth.phantom.shapes import Item, Solid

Maker = Callable[[Rng], Item]


EVERYDAY: tuple[tuple[Maker, float], ...] = (
    (bottle, 5), (phone, 2), (charger, 2.5), (cable, 2), (book, 3.5), (cosmetics, 3), (keys, 1.5), (clothes, 2.5),
    (fruit, 1.5), (food, 1.5), (can, 1.5), (coins, 1), (pens, 2), (umbrella, 1.5), (glasses, 1), (gadget, 1.2),
    (laptop, 0.7), (belt, 0.5), (box, 1.5), (cutlery, 0.7), (shoe, 0.3),
)  # fmt: skip


PACKED: tuple[tuple[Maker, float], ...] = (
    (clothes, 7), (roll, 3), (shoe, 3), (bottle, 4), (can, 2), (book, 2), (charger, 2), (cable, 2.5), (gadget, 1.6),
    (cosmetics, 4), (food, 2.5), (fruit, 1), (umbrella, 1), (belt, 1.4), (hanger, 0.8), (pan, 0.6), (rods, 0.7),
    (box, 2), (cutlery, 1), (pens, 1.5), (keys, 0.7), (coins, 1), (phone, 0.7), (laptop, 0.35), (glasses, 0.6),
)  # fmt: skip


def pick(rng: Rng, table: tuple[tuple[Maker, float], ...], n: int) -> list[Item]:
    """Draw n items from a table of makers and weights."""
    weight = np.array([w for _, w in table])
    return [table[i][0](rng) for i in rng.choice(len(table), n, p=weight / weight.sum())]


def cover(rng: Rng) -> Item:
    """Something broad and dense, to lie on top of what is to be hidden."""
    kind = rng.integers(4)
    stack: Item = []
    for _ in range(int(rng.integers(3, 6)) if kind == 2 else 1):  # books or folders
        at = pose(float(rng.normal()), float(rng.normal()), float(rng.normal(0, 0.1)))
        outline = rect(rng.uniform(22, 30), rng.uniform(16, 22))
        stack.append(Solid([apply(at, outline)], PAPER, rng.uniform(1.5, 3.0)))
    if kind == 0:
        return [*stack, *laptop(rng), *charger(rng)]
    if kind == 1:  # a metal plate
        return [*stack, Solid([rounded(rng.uniform(20, 30), rng.uniform(15, 20), 1.0)], STEEL, rng.uniform(0.1, 0.22))]
    if kind == 2:
        return [*stack, *charger(rng), *cable(rng)]
    case = Solid([rounded(26, 19, 1)], ALUMINIUM, rng.uniform(0.6, 1.4))
    return [*stack, case, *pan(rng), *gadget(rng), *board(rng, rng.uniform(14, 22), rng.uniform(10, 16))]
