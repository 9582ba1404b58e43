"""Textures that stand for folds, weave, lumps and clouds."""

from functools import cache

import cv2
import numpy as np

from segloc_synth.phantom.physics import Array


@cache
def textures() -> list[Array]:
    """Eight tileable 512 px textures in 0 to 1: 0-3 folds, 4-5 fine combed weave, 6 lumps, 7 clouds."""
    rng = np.random.default_rng(20231012)
    size = 512

    def noise(cells_x: int, cells_y: int) -> Array:
        grid = np.tile(rng.random((cells_y, cells_x), np.float32), (3, 3))
        big = cv2.resize(grid, (3 * size, 3 * size), interpolation=cv2.INTER_CUBIC)
        return np.asarray(big[size : 2 * size, size : 2 * size], np.float32)

    def unit(image: Array) -> Array:
        low, high = np.quantile(image, [0.02, 0.98])
        return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)

    grid_y, grid_x = np.mgrid[0:size, 0:size].astype(np.float32)
    out = []
    for index in range(8):
        if index < 4:  # creases: ridges of stretched noise, bent by slow noise
            base = 1 - np.abs(2 * noise(6 + 3 * index, 3) - 1) ** 0.6
            fine = 1 - np.abs(2 * noise(22, 7) - 1) ** 0.5
            image = base + 0.5 * fine + 0.8 * noise(4, 4) + 0.25 * noise(90, 24)
        elif index < 6:
            image = noise(120, 5) + 0.7 * noise(60, 8) + 0.9 * noise(5, 4) + 0.3 * noise(160, 160)
        elif index == 6:
            image = 1 - np.abs(2 * noise(26, 26) - 1) + 0.5 * noise(8, 8)
        else:
            image = noise(5, 5) + 0.5 * noise(12, 12) + 0.2 * noise(160, 160)
        bend = 0.2 if index in (4, 5) else 1.0
        bend_x, bend_y = 60 * noise(4, 4) + 20 * noise(9, 9), 60 * noise(4, 4) + 20 * noise(9, 9)
        bent = cv2.remap(image, grid_x + bend * bend_x, grid_y + bend * bend_y, cv2.INTER_LINEAR, None, cv2.BORDER_WRAP)
        out.append(unit(np.asarray(bent, np.float32)))
    return out
