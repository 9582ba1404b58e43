"""The config of a build: everything that decides a byte of its samples, and nothing else."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from segloc_synth.shards.format import config_hash

Blend = Literal["hard", "alpha", "multiply", "dual-energy"]
BLENDS: tuple[Blend, ...] = get_args(Blend)
Positives = Literal["instance", "class"]
POSITIVES: tuple[Positives, ...] = get_args(Positives)
Balance = Literal["class", "instance", "sqrt"]
BALANCES: tuple[Balance, ...] = get_args(Balance)
# The composition coefficient where the user names none: the paper mixes, physics only varies density.
COEFFICIENTS: dict[Blend, tuple[float, float]] = {
    "hard": (1.0, 1.0),
    "alpha": (0.6, 0.95),
    "multiply": (0.8, 1.0),
    "dual-energy": (0.8, 1.0),
}
# Fields that the config of every build holds; those that come later are held where they are not at their defaults.
FIRST = frozenset(
    [
        "objects",
        "backgrounds",
        "size",
        "seed",
        "shard_size",
        "blend",
        "coefficient",
        "scale",
        "occlusion",
        "items",
        "positives",
        "balance",
        "distractors",
        "bank",
        "jpeg_quality",
    ]
)


@dataclass(frozen=True)
class Config:
    """Settings of a build.

    Attributes:
        objects, backgrounds: {"kind", "fingerprint"} of the sources, never their paths.
        size: side of the square canvas in pixels.
        seed: non-negative; sample i draws from default_rng([seed, i]).
        shard_size: samples in a full shard.
        blend: how a segment is written onto a background, see blend.py.
        coefficient: (low, high) within (0, 1]: the composition coefficient's range; `hard` always has 1.
        scale: (low, high) factor on the object's size, which is drawn from its class's sizes relative to the bag.
        occlusion: (low, high) within [0, 1]: rank of the background's darkness among the places tried in the bag.
        items: (low, high) objects pasted into a picture, the pair's subject among them.
        positives: whether key and query show the same segment or two of one class.
        balance: how classes are drawn, see plan.catalogue.
        distractors: chance, 0 to 1, of a benign look-alike in a picture.
        bank: "raw" or "jpeg", how prepared backgrounds are kept (JPEG changes their pixels a little).
        jpeg_quality: libjpeg quality of the pictures, 1-100.
    """

    objects: dict[str, str]
    backgrounds: dict[str, str]
    size: int = 256
    seed: int = 0
    shard_size: int = 1000
    blend: Blend = "dual-energy"
    coefficient: tuple[float, float] = COEFFICIENTS["dual-energy"]
    scale: tuple[float, float] = (0.9, 1.1)
    occlusion: tuple[float, float] = (0.0, 1.0)
    items: tuple[int, int] = (1, 1)
    positives: Positives = "instance"
    balance: Balance = "instance"
    distractors: float = 0.0
    bank: Literal["raw", "jpeg"] = "raw"
    jpeg_quality: int = 90

    def as_dict(self) -> dict[str, Any]:
        """JSON form, ranges as lists; without later options at their defaults, so that builds keep their hash."""
        later = {field.name: field.default for field in fields(self) if field.name not in FIRST}
        told = {key: value for key, value in asdict(self).items() if key not in later or value != later[key]}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}

    @property
    def hash(self) -> str:
        """sha256 that identifies the build; leaves out n, paths, workers."""
        return config_hash(self.as_dict())
