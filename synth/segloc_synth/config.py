"""The config of a build: everything that decides a byte of its samples, and nothing else."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from segloc_synth.shards import config_hash

Blend = Literal["hard", "alpha", "multiply"]
BLENDS: tuple[Blend, ...] = get_args(Blend)


@dataclass(frozen=True)
class Config:
    """Settings of a build.

    Attributes:
        objects, backgrounds: {"kind", "fingerprint"} of the sources, never their paths.
        size: side of the square canvas in pixels.
        seed: non-negative; sample i draws from default_rng([seed, i]).
        shard_size: samples in a full shard.
        blend: how a segment is written onto a background, see compose.blend.
        coefficient: (low, high) within (0, 1]: the composition coefficient's range; `hard` always has 1.
        scale: (low, high) factor on the object's size as it appears in its own scan fitted to the canvas.
        jpeg_quality: libjpeg quality of the pictures, 1-100.
    """

    objects: dict[str, str]
    backgrounds: dict[str, str]
    size: int = 256
    seed: int = 0
    shard_size: int = 1000
    blend: Blend = "alpha"
    coefficient: tuple[float, float] = (0.6, 0.95)
    scale: tuple[float, float] = (0.7, 1.4)
    jpeg_quality: int = 90

    def as_dict(self) -> dict[str, Any]:
        """JSON form, ranges as lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def hash(self) -> str:
        """sha256 that identifies the build; leaves out n, paths, workers."""
        return config_hash(self.as_dict())
