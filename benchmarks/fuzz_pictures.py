"""Ways to damage pictures, of scans and of class ids."""

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
from fuzz_damage import BYTES, Damage, flipped, somewhere
from fuzz_data import PICTURES, Files
from PIL import Image


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def other_format(content: bytes, rng: random.Random) -> bytes:
    format = rng.choice(
        ("JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "ICO", "TGA", "PCX", "JPEG2000", "DDS", "SGI", "PDF", "EPS")
    )
    return saved(opened(content).convert("RGB"), format)


MODES = ("1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F")


def odd_mode(content: bytes, rng: random.Random) -> bytes:
    mode, picture = rng.choice(MODES), opened(content).convert("RGB")
    if mode in ("I", "I;16", "F"):
        values = np.asarray(picture.convert("L")).astype({"I": np.int32, "I;16": np.uint16, "F": np.float32}[mode])
        values = values * values.dtype.type(rng.choice((1, 4, 16, 257)))
        if mode == "F" and rng.random() < 0.5:
            values[:: rng.choice((1, 9))] = rng.choice((np.nan, np.inf, -np.inf, 1e38, -1))
        return saved(Image.fromarray(values), "TIFF")
    odd = picture.convert("LA").convert("PA") if mode == "PA" else picture.convert(mode)
    return saved(odd, "PNG" if mode in ("1", "L", "LA", "P", "RGBA") else "TIFF")


def oriented(content: bytes, rng: random.Random, damaged: bool = False) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = rng.choice((*range(10), 255))
    exif[0x010F], exif[0x0132], exif[0x011A] = "maker", "2026", 72.0
    bare = exif.tobytes()
    if damaged:
        bare = bare[:6] + flipped(bare[6:], rng)
    return saved(opened(content).convert("RGB"), rng.choice(("JPEG", "PNG", "WEBP", "TIFF")), exif=bare)


def paged(content: bytes, rng: random.Random) -> bytes:
    first = opened(content).convert("RGB")
    format = rng.choice(("TIFF", "WEBP", "GIF", "PNG"))
    pages = [first.rotate(90, expand=rng.random() < 0.5), Image.new("RGB", (9, 9))]
    if format != "TIFF":
        pages = [page.resize(first.size) for page in pages]
    whole = saved(first, format, save_all=True, append_images=pages)
    return rng.choice((whole, whole, flipped(whole, rng), whole[: somewhere(whole, rng)]))


def declared(content: bytes, rng: random.Random) -> bytes:
    """A header that states another size than the pixels have."""
    width, height = rng.choice(
        ((2**31 - 1, 1), (10**5, 10**5), (65535, 65535), (9999, 9999), (0, 5), (1, 10**8), (61, 52))
    )
    if rng.random() < 0.6:
        png = bytearray(saved(opened(content).convert("RGB"), "PNG"))
        png[16:24] = struct.pack(">II", width, height)
        png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
        return bytes(png)
    bmp = bytearray(saved(opened(content).convert("RGB"), "BMP"))
    bmp[18:26] = struct.pack("<ii", width, -height)
    return bytes(bmp)


def large(content: bytes, rng: random.Random) -> bytes:
    """A grey PNG of 16 megapixels of 8 or 16 bits, some 20 kB."""
    depth = rng.choice((8, 16))
    row = bytes(1 + 4000 * depth // 8)
    packer = zlib.compressobj(1)
    data = b"".join([packer.compress(row * 100) for _ in range(40)]) + packer.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 4000, 4000, depth, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(own)) + kind + own + struct.pack(">I", zlib.crc32(kind + own)) for kind, own in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(content: bytes, rng: random.Random) -> bytes:
    """A TIFF with damaged tags or strips."""
    way = rng.choice((None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits", "group4"))
    picture = opened(content).convert("1" if way == "group4" else "RGB")
    whole = saved(picture, "TIFF", compression=way)
    tags = whole[-260:] if rng.random() < 0.7 else whole
    return whole[: len(whole) - len(tags)] + flipped(tags, rng)


PICTURE_DAMAGE: dict[str, Damage] = {
    "picture truncated": BYTES["truncated"],
    "picture's bytes flipped": flipped,
    "picture's header flipped": lambda content, rng: flipped(content, rng, 64),
    "picture empty": BYTES["zero bytes"],
    "JPEG damaged": lambda content, rng: flipped(
        saved(opened(content).convert("RGB"), "JPEG"), rng, rng.choice((None, 700))
    ),
    "WebP or GIF damaged": lambda content, rng: flipped(
        saved(opened(content).convert("RGB"), rng.choice(("WEBP", "GIF"))), rng
    ),
    "TIFF damaged": tiff,
    "other format": other_format,
    "odd mode": odd_mode,
    "EXIF orientation": oriented,
    "EXIF damaged": lambda content, rng: oriented(content, rng, damaged=True),
    "pages or frames": paged,
    "size as declared": declared,
    "another size": lambda content, rng: saved(
        opened(content).resize(rng.choice(((1, 1), (1, 3000), (3000, 2), (52, 60), (61, 52))), 0), "PNG"
    ),
    "16 megapixels": large,
    "other bytes": lambda content, rng: rng.choice(
        (rng.randbytes(300), b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n")
    ),
}
RARE = "16 megapixels"


def damage_picture(files: Files, rng: random.Random) -> str:
    """Damage one to three pictures, masks among them, under their names; tells in what way."""
    kind = rng.choice(list(PICTURE_DAMAGE))
    if kind == RARE and rng.random() < 0.9:  # seconds each
        kind = "odd mode"
    names = sorted(name for name in files if name.endswith(PICTURES))
    for name in rng.sample(names, 1 if kind == RARE else rng.randint(1, 3)):
        try:
            files[name] = PICTURE_DAMAGE[kind](files[name], rng)
        except Exception:  # damaged before, or no format for such a picture
            files[name] = flipped(files[name], rng)
    return kind
