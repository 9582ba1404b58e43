"""Dual-energy X-ray physics: materials, and scanners that turn attenuation into pseudo-colour.

A ray that crosses thicknesses t_i of materials with linear attenuation coefficients mu_i is weakened by
exp(-sum mu_i t_i) (Beer-Lambert), so attenuations add, whatever the order of the layers.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Mu = tuple[float, float]  # linear attenuation coefficients at the low and the high energy, 1/cm

# Mass attenuation coefficients of NIST (XCOM) at about 70 and 120 keV, times density.
# "Bulk" materials (cloth, paper, clay-like battery filling) have the density that they have when packed.
WATER: Mu = (0.193, 0.161)
PLASTIC: Mu = (0.190, 0.158)
CLOTH: Mu = (0.042, 0.035)
SYNTHETIC: Mu = (0.058, 0.047)
PAPER: Mu = (0.170, 0.138)
FOOD: Mu = (0.175, 0.145)
LEATHER: Mu = (0.210, 0.165)
WOOD: Mu = (0.125, 0.104)
RUBBER: Mu = (0.340, 0.240)
PVC: Mu = (0.40, 0.255)
GLASS: Mu = (0.55, 0.375)
ALUMINIUM: Mu = (0.632, 0.418)
BOARD: Mu = (0.75, 0.45)  # glass-fibre board with its copper layers
BATTERY: Mu = (1.15, 0.60)  # wound foils of copper, aluminium and lithium oxides
STEEL: Mu = (6.50, 2.19)
BRASS: Mu = (9.2, 2.85)
LEAD: Mu = (37.0, 24.0)

# Where ratios of low to high attenuation lie on the scale of material: 0 organic, 0.45 mixed, 1 metal.
RATIOS = (1.22, 1.34, 1.50, 1.70, 2.00)
SCALE = (0.0, 0.25, 0.45, 0.68, 1.0)
LEVELS = 256  # of darkness in a colour map
MATERIALS = 64  # steps of the material scale in a colour map
FLOOR = 4e-4  # least transmission that the detectors report


@dataclass(frozen=True)
class Scanner:
    """One make of scanner: colours, gain, sharpness, noise.

    `ramps` gives, for each step of SCALE, RGB colours (hexadecimal) at the darknesses `knots`; darkness is
    1 - exp(-gain * mean attenuation of the two energies), 0 to 1.
    """

    name: str
    knots: tuple[float, ...]
    ramps: tuple[str, ...]
    gain: float
    photons: float  # per pixel and energy on the empty belt
    electronic: float  # standard deviation of the read-out noise, in transmission
    blur: float  # point spread, standard deviation in pixels of a 256 px scan
    sharpen: float  # unsharp masking after the colouring
    lines: float  # row-wise gain errors, in transmission
    white: float  # mean darkness of 3 x 3 pixels below which they are shown as pure white; 0 is never
    grain: float  # noise of the display, in grey levels
    jpeg: int | None = None  # quality of the stored file; None is PNG

    @cached_property
    def colour_map(self) -> Image:
        """RGB table, uint8 [MATERIALS, LEVELS, 3]."""
        dark = np.linspace(0, 1, LEVELS)
        ramps = np.array([[list(bytes.fromhex(colour)) for colour in ramp.split()] for ramp in self.ramps], np.float64)
        rows = np.array([[np.interp(dark, self.knots, ramp[:, c]) for c in range(3)] for ramp in ramps])
        steps = np.linspace(0, 1, MATERIALS)
        flat = rows.reshape(len(ramps), -1)
        table = np.array([np.interp(steps, SCALE, flat[:, i]) for i in range(flat.shape[1])])
        return np.rint(table.T.reshape(MATERIALS, 3, LEVELS).transpose(0, 2, 1)).astype(np.uint8)


_KNOTS = (0.0, 0.06, 0.17, 0.34, 0.50, 0.65, 0.80, 0.92, 1.0)

PIDRAY = Scanner(
    name="pidray",
    knots=_KNOTS,
    ramps=(
        "ffffff fdfaf1 f5eeda e0d3ac c3b480 9e905a 726b3c 3e3f20 0a0e10",
        "ffffff fbfcf5 ebf0dc cad5b2 a4b28a 7c8f66 546948 2a3a28 060e12",
        "ffffff f7fbf6 deebdd aec7b2 80a08e 587970 344f54 162636 040a16",
        "ffffff f2f7fa ccdbe4 8ca8bc 567494 304a70 16284e 091330 030716",
        "ffffff eaf0f8 bac8e2 6680b0 304a80 14285a 08143a 030a20 02040e",
    ),
    gain=0.62,
    photons=3e3,
    electronic=1.6e-3,
    blur=0.45,
    sharpen=0.9,
    lines=3e-3,
    white=0.0,
    grain=2.4,
)

PIDRAY_VIVID = Scanner(
    name="pidray-vivid",
    knots=_KNOTS,
    ramps=(
        "ffffff fef8f4 fbe9de f4cbb2 ea9c72 e0622e cc380c 7a2208 140806",
        "ffffff f9faf2 eaeeda ccd4aa aab06a 908634 6a6a22 363c12 080c08",
        "ffffff f0fbf0 d4f2d4 a2e2a4 62c46c 329c48 1e7032 103e20 040c08",
        "ffffff ecf6f2 c2dcd4 80b0a4 447c70 24585a 143a42 0a1e2a 02060c",
        "ffffff e8eef6 b8c8dc 6c88ac 3a507c 1c2e52 0c1a34 060c1c 010308",
    ),
    gain=1.05,
    photons=5e3,
    electronic=1.2e-3,
    blur=0.45,
    sharpen=0.7,
    lines=1.5e-3,
    white=0.01,
    grain=0.8,
)

SIXRAY = Scanner(
    name="sixray",
    knots=_KNOTS,
    ramps=(
        "ffffff fcf0e0 f8dcb8 efbe78 e6a340 d08e26 a88414 76700f 100c0a",
        "ffffff f6f3da e4deb0 c6bf70 b0ac44 8c962e 66801c 42620e 0a0c0a",
        "ffffff eaf7e2 c6e6b4 9cd07c 7cc452 58a836 3c8c26 206a1c 060c0a",
        "ffffff e2f5ee b4ded0 70c0a6 3ea684 268c6e 1a765f 0f5052 040a0e",
        "ffffff def0ff a8d4fc 62b2fa 3294ec 1c7ad6 1264b8 0e5094 030712",
    ),
    gain=0.60,
    photons=2.5e3,
    electronic=1.0e-3,
    blur=0.32,
    sharpen=0.9,
    lines=0.0,
    white=0.016,
    grain=0.0,
    jpeg=75,
)


def material(low: Array, high: Array) -> Array:
    """Material scale (0 organic to 1 metal) of attenuations at the two energies, float32 [H, W].

    Where the low energy has gone black, and around, the ratio says nothing: only metal stops so much.
    """
    low = cv2.blur(low, (3, 3))
    ratio = (low + 0.012) / (cv2.blur(high, (3, 3)) + 0.01)
    scale = np.interp(ratio, RATIOS, SCALE).astype(np.float32)
    lost = np.clip(cv2.dilate(low, np.ones((3, 3), np.uint8)) - 6.4, 0, 1)
    return np.asarray(scale + (1 - scale) * lost, np.float32)


def develop(attenuation: Array, scanner: Scanner, rng: np.random.Generator) -> Image:
    """Measure and colour a scan.

    attenuation: float32 [2, H, W], low and high energy, without unit. Returns RGB uint8 [H, W, 3].
    """
    _, height, width = attenuation.shape
    through = np.exp(-attenuation)
    sigma = scanner.blur * max(height, width) / 256
    noise = rng.standard_normal((2, height, width), np.float32)
    rows = np.zeros((2, height, 1), np.float32)
    if scanner.lines:
        rows += scanner.lines * rng.standard_normal((2, height, 1), np.float32)
        rows -= scanner.lines * rng.gamma(0.12, 10.0, (1, height, 1)).astype(np.float32)
    measured = []
    for energy in range(2):
        image = cv2.GaussianBlur(through[energy], (0, 0), sigma) if sigma > 0.25 else through[energy]
        spread = np.sqrt(image * np.float32(1 / scanner.photons) + np.float32(scanner.electronic**2))
        image = image + spread * noise[energy] + rows[energy] * image
        measured.append(-np.log(np.clip(image, FLOOR, 1.0)))
    low, high = measured
    kind = material(low, high)
    dark = 1 - np.exp(np.float32(-0.5 * scanner.gain) * (low + high))
    if scanner.white:
        dark[cv2.blur(dark, (3, 3)) < scanner.white] = 0
    column = np.rint(dark * (LEVELS - 1)).astype(np.intp)
    row = np.rint(kind * (MATERIALS - 1)).astype(np.intp)
    colours = scanner.colour_map.reshape(-1, 3)[row * LEVELS + column]
    if scanner.sharpen:
        soft = cv2.GaussianBlur(colours, (0, 0), 1.0)
        colours = cv2.addWeighted(colours, 1 + scanner.sharpen, soft, -scanner.sharpen, 0)
    if scanner.grain:
        grain = (scanner.grain * noise[0] * (1 - 0.6 * dark))[..., None]
        colours = np.clip(colours + grain * (0.7, 0.8, 1.3), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(colours)
