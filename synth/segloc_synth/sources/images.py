"""Reading scans of any kind as 8-bit RGB, and fitting them to the square canvas."""

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from upath import UPath

from segloc_synth.sources import problems
from segloc_synth.sources.listing import remote_bytes
from segloc_synth.sources.text import Unusable

Pixels = NDArray[np.uint8]
Depth = TypeVar("Depth", np.uint8, np.uint16)

MAX_PIXELS = 100_000_000  # a larger picture is taken for a decompression bomb
EXIF_ORIENTATION = 0x0112
UPRIGHT, SIDEWAYS = 1, 5  # orientations: as stored; from here on width and height change places
PAGED = ("TIFF", "WEBP", "PNG", "GIF")  # formats with pages or frames; cameras hide previews in JPEG
WHITE = 255
DEPTHS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # largest values of 8, 10, 12, 14 and 16 bits

Image.MAX_IMAGE_PIXELS = None  # the limit above applies, with a message of ours
warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged tags and the like: what matters is told as a problem


class BadImage(Unusable):
    """A picture that cannot be used; the message is the kind of problem."""


class Lost(BadImage):
    """A picture that is missing or may not be read, which may pass; `fault` is the OSError that names it."""

    def __init__(self, kind: str, fault: OSError) -> None:
        super().__init__(kind)
        self.fault = fault


@contextmanager
def required() -> Iterator[None]:
    """Around reading a picture of a source once listed: one that is lost is an OSError, so that no bytes, and nothing
    that is kept, depend on when it was."""
    try:
        yield
    except Lost as problem:
        raise problem.fault from None


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture opened for decoding; a remote one is read once, whole.

    Raises:
        Lost: missing, or not to be read.
        BadImage: empty, not a picture, too large; also when decoding in the block fails.
        OSError: the disk fails; the picture is not at fault.
        click.ClickException: the remote file system cannot be reached; its pictures are not at fault.
    """
    try:
        if isinstance(path, UPath):
            content = remote_bytes(path)
            size, file = len(content), BytesIO(content)
        else:
            size, file = path.stat().st_size, path
        if size == 0:
            raise BadImage("image file of zero bytes")
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"image of over {MAX_PIXELS // 1_000_000} megapixels")
            yield image
    except FileNotFoundError:
        raise Lost(problems.MISSING, OSError(errno.ENOENT, "vanished from its source", str(path))) from None
    except PermissionError:
        raise Lost("image file may not be read", OSError(errno.EACCES, "may not be read", str(path))) from None
    except (BadImage, click.ClickException):
        raise
    except Exception as error:  # damaged bytes lead decoders to errors of any kind
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        raise BadImage("image file is damaged or no picture") from None


def read_image(
    path: Path, expect: tuple[int, int] | None = None, at_least: int | None = None
) -> tuple[Pixels, list[str]]:
    """Decode a picture as RGB uint8 [H, W, 3], with the kinds of conversion that were needed.

    A picture with an EXIF orientation is turned as the tag says, as viewers and cv2.imread do; unless `expect`, the
    (width, height) that labels state, is the size as stored alone. A picture of another size is refused. `at_least`
    allows a JPEG to be decoded at a half, quarter or eighth as long as its longer side keeps that many pixels
    (libjpeg's scaled decoding).

    Raises:
        BadImage: lost (see `opened`), empty, truncated, not a picture, too large or of another size.
    """
    with opened(path) as image:
        stored = image.size
        turned = _turned(image)
        upright = stored[::-1] if turned >= SIDEWAYS else stored
        if expect is not None and expect != upright:
            if expect != stored:
                raise BadImage("image of another size than its labels say")
            turned = UPRIGHT  # these labels describe the pixels as they are stored
        if at_least is not None and image.format == "JPEG" and turned == UPRIGHT:
            shrink = at_least / max(image.size)
            if shrink < 1:
                image.draft(None, (max(1, int(image.width * shrink)), max(1, int(image.height * shrink))))
        notes = [problems.TURNED] if turned != UPRIGHT else []
        if getattr(image, "n_frames", 1) > 1 and image.format in PAGED:
            notes.append(problems.PAGES)
        return _to_rgb(ImageOps.exif_transpose(image) if turned != UPRIGHT else image, notes)


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture as its EXIF tag turns it, from its header. BadImage as read_image raises it."""
    with opened(path) as image:
        return image.size[::-1] if _turned(image) >= SIDEWAYS else image.size


def _turned(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, UPRIGHT where there is none or no such one."""
    try:
        said = image.getexif().get(EXIF_ORIENTATION, UPRIGHT)
    except Exception:  # whatever a damaged tag does to its parser, the picture is as good as without it
        return UPRIGHT
    return said if type(said) is int and UPRIGHT <= said <= 8 else UPRIGHT


def _to_rgb(image: Image.Image, notes: list[str]) -> tuple[Pixels, list[str]]:
    if image.mode.startswith("I") or image.mode == "F":
        notes.append(problems.DEEP)
        deep = np.asarray(image, np.float64)
        if image.mode == "F":  # nan and infinities are no measurements
            deep = np.where(np.isfinite(deep), deep, 0)
        # Detectors of fewer bits write 16-bit files too; the belt is bright in any scan, so its values show the depth,
        # with noise above it and hot pixels.
        belt = float(np.quantile(deep, 0.99))
        top = next((top for top in (*([1.0] if image.mode == "F" else []), *DEPTHS) if belt <= 1.05 * top), DEPTHS[-1])
        grey = np.clip(np.rint(deep * (WHITE / top)), 0, WHITE).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2), notes
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        if (rgba[..., 3] < WHITE).any():
            notes.append(problems.ALPHA)
            white = Image.new("RGBA", image.size, (WHITE,) * 4)
            image = Image.alpha_composite(white, image.convert("RGBA"))
        elif image.mode != "P":
            notes.append(problems.ALPHA)
    elif image.mode in ("L", "1"):
        notes.append(problems.GREY)
    elif image.mode == "P":
        notes.append(problems.PALETTE)
    return np.asarray(image.convert("RGB")), notes


def corrupt_rows(pixels: Pixels) -> int:
    """How many rows at the lower edge of a scan, RGB uint8 [H, W, 3], are corrupt: 0 to 4.

    A row is corrupt when over a quarter of the belt, seen in the rows above it, turns far darker in it. PIDray's last
    row is such a one, and the lower side of a thin dark frame.
    """
    if len(pixels) < 16:
        return 0
    foot = cv2.cvtColor(pixels[-12:], cv2.COLOR_RGB2GRAY).astype(np.int16)
    above = np.median(foot[:8], axis=0)
    belt = above > max(float(np.percentile(above, 90)) - 40, 100)
    if belt.mean() < 0.2:
        return 0
    dark = (foot[8:] < above - 80)[:, belt].mean(axis=1) > 0.25
    return int(dark[::-1].cumprod().sum())


def resize(pixels: NDArray[Depth], width: int, height: int) -> NDArray[Depth]:
    """Resize 8 or 16 bits to `width` x `height`: by area when shrinking, bilinear when enlarging."""
    shrinks = width <= pixels.shape[1] and height <= pixels.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: NDArray[Depth] = cv2.resize(pixels, (width, height), interpolation=method)
    return resized


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """RGB uint8 [H, W, 3] as a JPEG file of `quality` 0 to 100."""
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return jpeg.tobytes()


def decode_jpeg(jpeg: bytes) -> Pixels | None:
    """RGB uint8 [H, W, 3] of a JPEG file, None where it is damaged."""
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)


def extent(pixels: Pixels, size: int) -> tuple[int, int, int, int]:
    """Left, top, width and height that [H, W, 3] takes up on a square canvas of `size`, aspect kept, centred."""
    scale = size / max(pixels.shape[:2])
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return (size - width) // 2, (size - height) // 2, width, height


def fit_to_canvas(pixels: Pixels, size: int) -> Pixels:
    """Scale RGB [H, W, 3] to fit a white square [size, size, 3], where `extent` says."""
    left, top, width, height = extent(pixels, size)
    canvas = np.full((size, size, 3), WHITE, np.uint8)
    canvas[top : top + height, left : left + width] = resize(pixels, width, height)
    return canvas
