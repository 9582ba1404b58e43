"""Which harmless things lie in a bag, and how often."""

from collections.abc import Callable

import numpy as np

from segloc_synth.phantom.outlines import Rng, ellipse, rect, rounded
from segloc_synth.phantom.physics import ALUMINIUM, BATTERY, STEEL
from segloc_synth.phantom.shapes import Item, Solid
from segloc_synth.phantom.things import hardware
from segloc_synth.phantom.things.belongings import (
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
from segloc_synth.phantom.things.clothing import belt, clothes, hanger, roll, shoe, umbrella
from segloc_synth.phantom.things.electronics import board, cable, charger, gadget, laptop, phone
from segloc_synth.phantom.things.loads import rank

Maker = Callable[[Rng], Item]


EVERYDAY: tuple[tuple[Maker, float], ...] = (
    (bottle, 5), (phone, 2), (charger, 2.5), (cable, 2), (book, 3.5), (cosmetics, 3), (keys, 1.5), (clothes, 2.5),
    (fruit, 1.5), (food, 1.5), (can, 1.5), (coins, 1), (pens, 2), (umbrella, 1.5), (glasses, 1), (gadget, 1.2),
    (laptop, 0.7), (belt, 0.5), (box, 1.5), (cutlery, 0.7), (shoe, 0.3),
)  # fmt: skip


def ranked(rng: Rng) -> Item:
    """A few bottles, tins or jars side by side."""
    return rank(rng, int(rng.integers(1, 3)), int(rng.integers(2, 4)))


PACKED: tuple[tuple[Maker, float], ...] = (
    (clothes, 7), (roll, 3), (shoe, 3), (bottle, 4), (can, 2), (book, 1.2), (charger, 2), (cable, 2.5), (gadget, 1.6),
    (cosmetics, 4), (food, 2.5), (fruit, 1), (umbrella, 1), (belt, 1.4), (hanger, 0.8), (pan, 0.6), (rods, 0.7),
    (box, 1), (ranked, 2.2), (cutlery, 1), (pens, 1.5), (keys, 0.7), (coins, 1), (phone, 0.7), (laptop, 0.35),
    (glasses, 0.6),
)  # fmt: skip


def pick(rng: Rng, table: tuple[tuple[Maker, float], ...], n: int) -> list[Item]:
    """Draw n items from a table of makers and weights."""
    weight = np.array([w for _, w in table])
    return [table[i][0](rng) for i in rng.choice(len(table), n, p=weight / weight.sum())]


def cover(rng: Rng, w: float, h: float) -> Item:
    """Something broad, dense and full of metal edges, to lie on what is to be hidden, w x h cm."""
    w, h = min(max(1.1 * w, 14.0), 30.0), min(max(1.2 * h, 11.0), 20.0)
    kind = int(rng.integers(4))
    steel, cells, casting = (STEEL, rng.uniform(0.06, 0.2)), (BATTERY, rng.uniform(0.5, 1.3)), (ALUMINIUM, 1.8)
    thick = (casting if rng.random() < 0.5 else steel, steel, cells, casting)[kind]
    item: Item = [Solid([rounded(w, h, rng.uniform(0.3, 2))], *thick)]
    item += board(rng, w * rng.uniform(0.85, 1.0), h * rng.uniform(0.85, 1.0))
    spots = hardware.anywhere(rng, rect(0.95 * w, 0.95 * h), 12)
    sizes = rng.uniform(1.5, 0.45 * h, (12, 2)).tolist()
    blocks = [rounded(a, b, 0.3, x, y) for (x, y), (a, b) in zip(spots[0].tolist(), sizes, strict=True)]
    item += [Solid(blocks[:6], STEEL, rng.uniform(0.12, 0.35)), Solid(blocks[6:9], BATTERY, 1.0, 0.4)]
    item += hardware.screws(rng, *spots, 1.2)
    slats = zip(hardware.anywhere(rng, rect(0.6 * w, 0.8 * h), 9)[0].tolist(), rng.normal(0, 0.6, 9), strict=True)
    bars = [rect(w * rng.uniform(0.3, 0.8), rng.uniform(0.5, 1.8), x, y, float(a)) for (x, y), a in slats]
    item += [Solid(bars[:5], STEEL, rng.uniform(0.12, 0.28)), Solid(bars[5:], STEEL, rng.uniform(0.08, 0.18))]
    if kind == 0:  # a drive or a radio: one more sheet, coils, a magnet
        item += [Solid([0.9 * rounded(w, h, 1.0)], ALUMINIUM, 1.0), Solid([ellipse(0.3 * h, 0.3 * h)], STEEL, 0.3)]
    elif kind == 1:  # tools in a tin: bars side by side
        ys = np.arange(-0.42, 0.43, rng.uniform(0.08, 0.16)) * h
        item.append(Solid([rect(w * rng.uniform(0.7, 0.98), 0.05 * h, 0, float(y)) for y in ys], STEEL, 0.3))
    elif kind == 2:
        xs = np.linspace(-0.38, 0.38, int(rng.integers(3, 7))) * w
        item.append(Solid([rounded(0.1 * w, 0.9 * h, 0.4, float(x)) for x in xs], STEEL, 0.25))
    else:  # a laptop's worth of electronics, with its adapter
        item += [*gadget(rng), *charger(rng)]
    return item + cable(rng)
