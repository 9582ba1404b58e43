"""Bar charts of the data card as PNG, drawn in pixels so that the same numbers give the same bytes."""

import io

from PIL import Image, ImageDraw, ImageFont

WIDTH, PLOT, ROW = 1240, 300, 38  # pixels, for a card that shows them at about half the size
LEFT, RIGHT, TOP, BOTTOM = 96, 28, 64, 84
PAPER, INK, DIM, LINE = (255, 255, 255), (28, 31, 36), (92, 99, 110), (217, 219, 223)
HUES = ((176, 0, 122), (47, 129, 216))
FONT, SMALL = 26, 22


def histogram(series: dict[str, list[float]], edges: list[float], title: str, axis: str) -> bytes:
    """Shares of each series' values by bin, as bars side by side; PNG.

    `edges` are ascending and of equal distance. A value counts in the bin whose lower edge it reaches; what lies
    outside goes to the first or last bin.
    """
    bins = len(edges) - 1
    step = edges[1] - edges[0]
    shares = {}
    for name, values in series.items():
        counts = [0] * bins
        for value in values:
            counts[min(bins - 1, max(0, int((value - edges[0]) / step + 1e-9)))] += 1
        shares[name] = [count / max(1, len(values)) for count in counts]
    top = max((share for row in shares.values() for share in row), default=0) or 1.0
    image, draw = _canvas(TOP + PLOT + BOTTOM, title)
    small = ImageFont.load_default(SMALL)
    floor, wide = TOP + PLOT, WIDTH - LEFT - RIGHT
    for part in (0.0, 0.5, 1.0):
        y = floor - round(part * PLOT)
        draw.line((LEFT, y, WIDTH - RIGHT, y), LINE, 2)
        draw.text((LEFT - 10, y), f"{part * top:.1%}", DIM, small, "rm")
    for place, (name, row) in enumerate(shares.items()):
        hue = HUES[place % len(HUES)]
        for number, share in enumerate(row):
            slot = wide / bins
            left = LEFT + number * slot + slot * (0.08 + 0.84 * place / len(shares))
            box = (round(left), floor - round(PLOT * share / top), round(left + slot * 0.84 / len(shares)) - 1, floor)
            if box[1] < floor:
                draw.rectangle(box, hue)
        if len(shares) > 1:
            x = WIDTH - RIGHT - 150 * (len(shares) - place)
            draw.rectangle((x, 20, x + 22, 42), hue)
            draw.text((x + 32, 31), name, INK, small, "lm")
    draw.line((LEFT, floor, WIDTH - RIGHT, floor), DIM, 2)
    for number in range(0, bins + 1, max(1, bins // 10)):
        draw.text((LEFT + number * wide / bins, floor + 10), f"{edges[number]:g}", DIM, small, "mt")
    draw.text((LEFT + wide / 2, floor + 44), axis, INK, small, "mt")
    return _png(image)


def bars(counts: dict[str, int], title: str) -> bytes:
    """One horizontal bar for each name, its count at the end; PNG."""
    image, draw = _canvas(TOP + ROW * len(counts) + 16, title)
    small = ImageFont.load_default(SMALL)
    left = 30 + round(max(small.getlength(name) for name in counts))
    left = min(left, WIDTH // 2)
    room = WIDTH - RIGHT - left - 130
    most = max(counts.values()) or 1
    for number, (name, count) in enumerate(counts.items()):
        y = TOP + number * ROW
        draw.text((left - 12, y + ROW // 2), name, INK, small, "rm")
        end = left + round(room * count / most)
        if count:
            draw.rectangle((left, y + 5, end, y + ROW - 6), HUES[1])
        draw.text((end + 10, y + ROW // 2), f"{count}", DIM, small, "lm")
    return _png(image)


def _canvas(height: int, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((16, 16), title, INK, ImageFont.load_default(FONT))
    return image, draw


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
