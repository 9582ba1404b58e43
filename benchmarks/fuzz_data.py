"""Small labelled data of every layout, and the ways to damage them: bytes, values, names, lists and pictures."""

import io
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

Files = dict[str, bytes]  # path below the data set's folder -> content
Damage = Callable[[bytes, random.Random], bytes]
NAMES = ("Knife", "螺丝刀")
WIDTH, HEIGHT = 60, 52  # pixels
BLADE = (10, 10, 34, 14, 33, 20, 11, 18)
PICTURES = (".png", ".jpg")


class Layout(NamedTuple):
    """A sound data set; `path` below its folder is what commands are given, `masks`: its objects have masks."""

    files: Files
    path: str = ""
    masks: bool = True
    benign: bool = False


def scan(number: int) -> tuple[bytes, np.ndarray]:
    """A bag with a blade and, on most, a disc: a PNG, and the class-id mask, uint8 [HEIGHT, WIDTH]."""
    rng = np.random.default_rng(number)
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    picture[4:-4, 4:-4] = (110, 178, 236)
    for x, y, r in rng.integers((6, 6, 2), (54, 46, 7), (10, 3)).tolist():
        cv2.circle(picture, (x, y), r, rng.integers(60, 220, 3).tolist(), -1)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [np.array(BLADE).reshape(-1, 2)], 1)
    if number % 3:
        cv2.circle(mask, (42, 36), 7, 2, -1)
    picture[mask > 0] = (90, 60, 30)
    return cv2.imencode(".png", picture)[1].tobytes(), mask


def boxes(mask: np.ndarray) -> list[tuple[int, tuple[int, int, int, int]]]:
    return [(v, cv2.boundingRect((mask == v).astype(np.uint8))) for v in (1, 2) if (mask == v).any()]


def coco(folder: str, numbers: range) -> tuple[Files, bytes]:
    images: list[Any] = []
    annotations: list[Any] = []
    files = {f"{folder}/scan{n}.png": scan(n)[0] for n in numbers}
    for n in numbers:
        images.append({"id": n, "file_name": f"scan{n}.png", "width": WIDTH, "height": HEIGHT})
        for value, box in boxes(scan(n)[1]):
            own = (scan(n)[1] == value).astype(np.uint8)
            flat = own.flatten(order="F")
            runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])).tolist()
            packed = coco_mask.encode(np.asfortranarray(own))["counts"].decode()
            shape: Any = [list(BLADE)] if value == 1 else {"size": [HEIGHT, WIDTH], "counts": (runs, packed)[n % 2]}
            record = {"id": len(annotations), "image_id": n, "category_id": value, "bbox": list(box), "iscrowd": 0}
            annotations.append({**record, "segmentation": shape, "area": int(own.sum())})
    categories = [{"id": id, "name": name} for id, name in enumerate(NAMES, 1)]
    return files, json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()


def per_picture(
    pictures: str, labels: str, numbers: range, write: Callable[[int, np.ndarray], bytes], end: str
) -> Files:
    files = {f"{pictures}/scan{n}.png": scan(n)[0] for n in numbers}
    return files | {f"{labels}/scan{n}{end}": write(n, scan(n)[1]) for n in numbers}


def mask_png(_: int, mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()


def xml(_: int, mask: np.ndarray) -> bytes:
    things = "".join(
        f"<object><name>{NAMES[value - 1]}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for value, (x, y, w, h) in boxes(mask)
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    return f"<?xml version='1.0' encoding='utf-8'?><annotation>{size}{things}</annotation>".encode()


def opixray(n: int, mask: np.ndarray) -> bytes:
    lines = [f"scan{n}.png {NAMES[value - 1]} {x} {y} {x + w} {y + h}\n" for value, (x, y, w, h) in boxes(mask)]
    return "".join(lines).encode()


def yolo(_: int, mask: np.ndarray) -> bytes:
    centres = [
        (v - 1, (x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT) for v, (x, y, w, h) in boxes(mask)
    ]
    return "".join(f"{' '.join(map(str, row))}\n" for row in centres).encode()


def polygons(_: int, mask: np.ndarray) -> bytes:
    shares = [f"{c / (HEIGHT if i % 2 else WIDTH):.4f}" for i, c in enumerate(BLADE)]
    return f"0 {' '.join(shares)}\n".encode()


def lines(folder: str, numbers: range, end: str = "") -> bytes:
    return "".join(f"{folder}scan{n}{end}\n" for n in numbers).encode()


def rows(train: range, flags: str = ",1,-1") -> bytes:
    return ("name,Knife,Gun\n" + "".join(f"scan{n}{flags}\n" for n in train)).encode()


def layouts() -> dict[str, Layout]:
    """A sound data set of each layout, of 5 scans to learn from and 3 others where it has splits."""
    train, rest, both = range(5), range(5, 8), range(8)
    (a, a_json), (b, b_json), (c, c_json) = coco("train", train), coco("easy", rest), coco("images", both)
    names, stated = "\n".join(NAMES).encode(), f"names: [{', '.join(NAMES)}]\nnc: 2\n"
    voc = per_picture("JPEGImages", "Annotations", both, xml, ".xml")
    masks = per_picture("JPEGImages", "SegmentationClass", both, mask_png, ".png")
    sixray = {name.replace("scan", "P0000"): content for name, content in {}.items()}
    sixray |= per_picture("JPEGImage", "Annotation", both, xml, ".xml")
    mixed = per_picture("images", "labels", both, polygons, ".txt")
    bare = {f"JPEGImage/scan{n}.png": scan(n)[0] for n in train}
    return {
        "PIDray": Layout({**a, **b, "annotations/xray_train.json": a_json, "annotations/xray_test_easy.json": b_json}),
        "COCO": Layout({**c, "set.json": c_json}),
        "COCO, a json": Layout({**c, "annotations/set.json": c_json}, "annotations/set.json"),
        "Roboflow": Layout(
            {**a, **{k.replace("easy", "test"): v for k, v in b.items()}}
            | {f"{k}/_annotations.coco.json": v for k, v in (("train", a_json), ("test", b_json))}
        ),
        "class ids": Layout({**per_picture("images", "masks", both, mask_png, ".png"), "classes.txt": names}),
        "VOC masks": Layout(
            {**masks, "labelmap.txt": b"background\n" + names}
            | {f"ImageSets/Segmentation/{k}.txt": lines("", v) for k, v in (("train", train), ("val", rest))}
        ),
        "VOC": Layout(
            {**voc} | {f"ImageSets/Main/{k}.txt": lines("", v) for k, v in (("train", train), ("val", rest))},
            masks=False,
        ),
        "SIXray": Layout(
            {**sixray, "ImageSet/10/train.csv": rows(train), "ImageSet/10/test.csv": rows(rest)}, masks=False
        ),
        "OPIXray": Layout(
            per_picture("train/train_image", "train/train_annotation", train, opixray, ".txt")
            | per_picture("test/test_image", "test/test_annotation", rest, opixray, ".txt"),
            masks=False,
        ),
        "YOLO": Layout(
            per_picture("images/train", "labels/train", train, yolo, ".txt")
            | per_picture("images/val", "labels/val", rest, yolo, ".txt")
            | {"data.yaml": f"path: .\ntrain: images/train\nval: images/val\n{stated}".encode()},
            masks=False,
        ),
        "YOLO lists": Layout(
            {
                **mixed,
                "train.txt": lines("./images/", train, ".png"),
                "val.txt": lines("images/", rest, ".png"),
                "data.yaml": f"train: train.txt\nval: val.txt\n{stated}".encode(),
            },
            "data.yaml",
        ),
        "YOLO beside": Layout(
            {**per_picture("data", "data", both, yolo, ".txt"), "data/classes.txt": names}, "data", masks=False
        ),
        "benign csv": Layout(
            {**bare, "ImageSet/10/train.csv": rows(train, ",-1,-1")}, "ImageSet/10/train.csv", benign=True
        ),
        "benign list": Layout({**bare, "scans.txt": lines("JPEGImage/", train, ".png")}, "scans.txt", benign=True),
    }


# Values that stand in for one of a label file. Of json, those of RAW as they are.
RAW = {
    "@nan": "NaN",
    "@inf": "-Infinity",
    "@huge": "9" * 5000,
    "@over": "1e999",
    "@deep": "[" * 99999,
    "@closed": "[" * 900 + "]" * 900,
}
WORDS = (
    "",
    " ",
    "0",
    "-1",
    "1e309",
    "nan",
    "inf",
    "1_0",
    "--5",
    "-",
    "٣",
    "²",
    "true",
    "no",
    "9" * 30,
    "9" * 400,
    "a" * 300,
    "b" * 70000,
)
WORDS += (
    "../scan1.png",
    "/etc/hostname",
    "C:\\scans\\scan1.png",
    "..",
    "/",
    ".",
    "~",
    "s3://x/scan1.png",
    "a \"b\" 'c'",
    "$(id)",
    "%s{0}",
)
WORDS += (
    "\0",
    "Kni\0fe",
    "\t",
    "\x1b[31m",
    "\u2028",
    "\ufeff",
    "😀" * 9,
    "scan1.png",
    "./scan1",
    "images\\scan1.png",
    "#",
    ",",
    ";",
    "&#0;",
    "<",
    "]]>",
)
VALUES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2.5,
    1e300,
    -1e12,
    10**11,
    10**30,
    [],
    {},
    [[]],
    [None],
    [{}],
    {"a": 1},
    "\ud800",
    *RAW,
    *WORDS,
)
BOMB = (
    "a: &a ["
    + ", ".join(["x"] * 9)
    + "]\n"
    + "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi"))
)
YAML = (
    "&x [*x]",
    "*i",
    "{0: *i}",
    "[*i]",
    "!!python/object/apply:os.getpid []",
    "!!binary aGk=",
    "2020-01-01",
    "no",
    "~",
    "{}",
    "[]",
    "[[]]",
    "{? [1] : 2}",
)
YAML += (
    "{0: {}}",
    "{a: b}",
    "{0: a, 0: b}",
    "{-1: a}",
    "[1, 2.5, null]",
    "[a, a]",
    "'\t'",
    '"\\0"',
    '"\\ud800"',
    "[" * 3000,
    "<<: 1",
    "0x1F",
    "1:2:3",
    "!!set {a, b}",
)
YAML += (
    "..",
    ".",
    "../..",
    "images",
    "[images, images]",
    "[images/train, images/val]",
    "labels",
    "data.yaml",
    "train.txt",
    "https://x/y.zip",
    "a" * 300,
    "%YAML 9.9",
    "---",
)
NEW_NAMES = (
    "a b.{0}",
    "it's.{0}",
    'say "hi".{0}',
    "back\\slash.{0}",
    "new\nline.{0}",
    "名前.{0}",
    "\udcff.{0}",
    "-rf.{0}",
    "{0}",
    "x.{0}.bak",
    "train.{0}",
    "test.{0}",
    "UP.{0}",
)


def somewhere(content: bytes, rng: random.Random) -> int:
    return rng.randrange(len(content) + 1)


def flipped(content: bytes, rng: random.Random, head: int | None = None) -> bytes:
    """Some bytes (of the `head`) changed."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 20)) if found else 0):
        found[rng.randrange(min(head or len(found), len(found)))] = rng.choice((0, 255, 10, 34, rng.randrange(256)))
    return bytes(found)


def inserted(content: bytes, rng: random.Random, what: bytes | None = None) -> bytes:
    at = somewhere(content, rng)
    return content[:at] + (rng.randbytes(rng.choice((1, 2, 40))) if what is None else what) + content[at:]


def repeated(content: bytes, rng: random.Random) -> bytes:
    a, b = sorted((somewhere(content, rng), somewhere(content, rng)))
    return content[:b] + content[a:b] * rng.choice((1, 1, 50)) + content[b:]


def cut(content: bytes, rng: random.Random) -> bytes:
    a, b = sorted((somewhere(content, rng), somewhere(content, rng)))
    return content[:a] + content[b:]


def recoded(content: bytes, rng: random.Random) -> bytes:
    text = content.decode(errors="replace")
    name = rng.choice(
        ("gbk", "utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1252", "utf-7", "unicode_escape", "euc-jp")
    )
    told = re.sub("encoding='utf-8'", f"encoding='{rng.choice((name, 'hex', 'utf-7', 'nonsense', 'idna'))}'", text)
    return rng.choice((text, told)).encode(name, "replace")


BYTES: dict[str, Damage] = {
    "truncated": lambda content, rng: content[: somewhere(content, rng)],
    "bytes flipped": flipped,
    "bytes inserted": inserted,
    "part repeated": repeated,
    "part cut out": cut,
    "zero bytes": lambda content, rng: b"",
    "encoding": recoded,
    "line ends": lambda content, rng: content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n\n", b" \n", b"\x0b"))),
    "nested": lambda content, rng: inserted(
        content, rng, rng.choice((b"[", b'{"a":', b"<a>", b"- ")) * rng.choice((50, 99999))
    ),
}


def json_value(content: bytes, rng: random.Random) -> bytes:
    """One value replaced, taken out, repeated, wrapped or renamed, on a random way down."""
    data = json.loads(content)
    here = data
    while True:
        key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
        if not (isinstance(here[key], dict | list) and here[key]) or rng.random() < 0.15:
            break
        here = here[key]
    value = here[key]
    how = rng.randrange(9)
    if how < 4:
        here[key] = rng.choice(VALUES)
    elif how == 4:
        del here[key]
    elif how == 5 and isinstance(here, list):
        here.append(value)
    elif how == 5:
        here[rng.choice(("Id", "filename", "file_name", "images", key.upper()))] = here.pop(key)
    elif how == 6:
        here[key] = [value] if rng.random() < 0.5 else {"0": value}
    elif how == 7:
        here[key] = json.dumps(value)
    elif isinstance(value, int | float):
        here[key] = rng.choice((float(value), -value, value + 0.5, value * 10**6, value + 1, str(value)))
    else:
        here[key] = (
            rng.choice([one for one in (data["images"], data["categories"], here) if one])
            if how < 8
            else value * 2
            if isinstance(value, list)
            else None
        )
    try:
        text = json.dumps(data)
    except ValueError:  # it holds itself
        text = json.dumps({})
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}"', raw)
    return text.encode()


def xml_value(content: bytes, rng: random.Random) -> bytes:
    """The text of one element, or a tag, replaced; elements repeated or nested; a document type."""
    text = content.decode()
    spots = list(re.finditer(rng.choice((r"(?<=>)[^<>]+(?=<)", r"(?<=<)/?\w+", r"<(\w+)>[^<]*</\1>")), text))
    a, b = rng.choice(spots).span()
    own = text[a:b]
    new = rng.choice(
        (
            rng.choice(WORDS),
            rng.choice(WORDS),
            own * 2,
            own * 5000,
            f"<a>{own}</a>",
            f"<!-- {own} -->",
            f"<![CDATA[{own}]]>",
            "&lol;",
            "&#x110000;",
            "object",
        )
    )
    if rng.random() < 0.05:
        return ("<!DOCTYPE x [<!ENTITY lol 'ha'>]>" + text[:a] + "&lol;" + text[b:]).encode()
    return (text[:a] + new + text[b:]).encode("utf-8", "surrogatepass")


def text_value(content: bytes, rng: random.Random) -> bytes:
    """One word or line replaced, taken out, repeated or moved; another separator."""
    text = content.decode(errors="replace")
    spots = list(re.finditer(rng.choice((r"[^\s,]+", r"[^\n]+")), text)) or list(re.finditer("", text))
    a, b = rng.choice(spots).span()
    own = text[a:b]
    new = rng.choice(
        (
            rng.choice(WORDS),
            rng.choice(WORDS),
            rng.choice(WORDS),
            "",
            f"{own} {own}",
            f"{own}\n" * 3,
            f'"{own}"',
            f"{own},",
            f"/{own}",
            f"../{own}",
            own.replace(" ", "\t"),
        )
    )
    return (text[:a] + new + text[b:]).encode("utf-8", "surrogatepass")


def yaml_value(content: bytes, rng: random.Random) -> bytes:
    """The value of one key replaced, or a line added, behind nested anchors where these are used."""
    told = content.decode().splitlines()
    at = rng.randrange(len(told))
    value = rng.choice((*YAML, *(word for word in WORDS if len(word) < 1000)))
    key = rng.choice((told[at].partition(":")[0], "names", "path", "train", "test", "kpt_shape", "{}"))
    told[at if rng.random() < 0.7 else len(told) :] = [f"{key}: {value}", *told[at + 1 :]]
    return ((BOMB if "*i" in value else "") + "\n".join(told)).encode("utf-8", "surrogatepass")


VALUES_OF: dict[str, Damage] = {
    ".json": json_value,
    ".xml": xml_value,
    ".yaml": yaml_value,
    ".txt": text_value,
    ".csv": text_value,
}


def mutate(files: Files, rng: random.Random) -> str:
    """Damage one file that is no picture, or the files' names; tells in what way."""
    labels = sorted(name for name in files if not name.endswith(PICTURES)) or sorted(files)
    rare = [name for name in labels if not re.search(r"scan\d", name)]  # lists, names of classes: one of each
    name = rng.choice(rare if rare and rng.random() < 0.5 else labels)
    kind = rng.choice(("value", "value", "value", "value", "file", *BYTES))
    if kind == "value":
        suffix = PurePosixPath(name).suffix
        try:
            files[name] = VALUES_OF.get(suffix, flipped)(files[name], rng)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError):  # damaged before
            files[name] = flipped(files[name], rng)
        return f"value in {suffix or 'a file'}"
    if kind == "file":
        return file_change(files, name, rng)
    files[name] = BYTES[kind](files[name], rng)
    return kind


def file_change(files: Files, name: str, rng: random.Random) -> str:
    other = rng.choice(sorted(files))
    folder, _, file = name.rpartition("/")
    how = rng.randrange(5)
    if how == 0:
        files[name], files[other] = files[other], files[name]
        return "files swapped"
    if how == 1:
        del files[name]
        return "file removed"
    new = rng.choice(NEW_NAMES).format(file.rpartition(".")[2])
    new = f"{folder}/{new}" if folder else new
    if how == 2:
        files[new] = files[name]
        return "file copied"
    stem = name.rpartition(".")[0].rpartition("/")[2]
    for own in [own for own in files if PurePosixPath(own).stem == stem] if how == 3 else [name]:
        end = own.rpartition(".")[2]
        base = own.rpartition("/")[0]
        target = new.rpartition("/")[2].removesuffix(file.rpartition(".")[2]) + end
        files[f"{base}/{target}" if base else target] = files.pop(own)
    return "file renamed"


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
    """A grey PNG of 49 megapixels of 8 or 16 bits, some 100 kB."""
    depth = rng.choice((8, 16))
    row = bytes(1 + 7000 * depth // 8)
    packer = zlib.compressobj(1)
    data = b"".join([packer.compress(row * 100) for _ in range(70)]) + packer.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 7000, 7000, depth, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
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
    "49 megapixels": large,
    "other bytes": lambda content, rng: rng.choice(
        (rng.randbytes(300), b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n")
    ),
}
RARE = "49 megapixels"


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
