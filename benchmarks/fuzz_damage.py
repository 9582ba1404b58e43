"""Ways to damage label files and lists: their bytes, values and names."""

import json
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import PurePosixPath

from fuzz_data import PICTURES, Files

Damage = Callable[[bytes, random.Random], bytes]

# Values that stand in for one of a label file. Of json, those of RAW as they are.
RAW = {"@nan": "NaN", "@inf": "-Infinity", "@over": "1e999", "@huge": "9" * 5000, "@deep": "[" * 99_999}
RAW["@closed"] = "[" * 900 + "]" * 900
ODD = "| |0|-1|1e309|nan|inf|1_0|--5|-|٣|²|true|no|../scan1.png|/etc/hostname|C:\\scans\\scan1.png|..|/|.|~|#|,|;|<"
ODD += "|s3://x/scan1.png|a \"b\" 'c'|$(id)|%s{0}|\0|Kni\0fe|\t|\x1b[31m|\u2028|\ufeff|😀|scan1.png|./scan1|&#0;|]]>"
WORDS = [*ODD.split("|"), "images\\scan1.png", "9" * 30, "9" * 400, "a" * 300, "b" * 70_000]
VALUES = json.loads('[null, true, false, 0, 1, -1, 2.5, 1e300, -1e12, [], {}, [[]], [null], [{}], {"a": 1}, "\\ud800"]')
VALUES += [10**11, 10**30, *RAW, *WORDS]
BOMB = f"a: &a [{', '.join('x' * 9)}]\n"
BOMB += "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in pairwise("abcdefghi"))
YAML = "&x [*x]|*i|{0: *i}|[*i]|!!python/object/apply:os.getpid []|!!binary aGk=|2020-01-01|no|~|{}|[]|[[]]|{? [1] : 2}"
YAML += (
    "|{0: {}}|{a: b}|{0: a, 0: b}|{-1: a}|[1, 2.5, null]|[a, a]|'\t'|'\\0'|\"\\ud800\"|<<: 1|0x1F|1:2:3|!!set {a, b}"
)
YAML += "|..|.|../..|images|[images, images]|[images/train, images/val]|labels|data.yaml|train.txt|https://x/y.zip|---"
NEW_NAMES = "a b.#|it's.#|back\\slash.#|new\nline.#|名前.#|\udcff.#|-rf.#|#|x.#.bak|train.#|test.#|UP.#"


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
    elif isinstance(value, list):
        here[key] = value * rng.choice((2, 20, 2000))
    else:
        here[key] = rng.choice((data["images"], data["categories"], here))
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
    value = rng.choice(
        [*YAML.split("|"), "[" * 3000, "a/" * 3000, "/dev/zero", *(word for word in WORDS if len(word) < 1000)]
    )
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
    new = rng.choice(NEW_NAMES.split("|")).replace("#", file.rpartition(".")[2])
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
