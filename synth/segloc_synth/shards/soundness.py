"""What a build says of itself, which may come from a stranger: does it hold what its readers ask of it?"""

from collections.abc import Iterator
from typing import Any

from segloc_synth.rle import rle_pixels
from segloc_synth.shards.manifest import PAGE_NAME, SHA256, is_count, is_entry

MAX_SIDE = 1 << 14  # pixels
TOLD = {"segment": str, "background": str, "blend": str, "coefficient": float, "scale": float, "rotation": float}


def unsound(manifest: dict[str, Any]) -> Iterator[str]:
    """What of a manifest's fields no reader can use, in words, see read_manifest."""
    if not isinstance(manifest.get("config_hash"), str):
        yield "says no config_hash"
    if not _are_classes(manifest.get("classes")):
        yield "its classes are missing or damaged"
    if not _are_totals(manifest.get("totals")):
        yield "its totals are missing or damaged"
    if "pages" in manifest:
        if not _is_list(manifest["pages"], _is_page):
            yield "its pages are damaged"
    elif not _is_list(manifest.get("shardlist"), is_entry):
        yield "its shardlist is no list of shards"


def _is_list(value: Any, good: Any) -> bool:
    return isinstance(value, list) and all(map(good, value))


def _are_classes(value: Any) -> bool:
    return _is_list(value, _is_class) and 0 < len(value) == len({one["id"] for one in value})


def _is_class(value: Any) -> bool:
    known = isinstance(value, dict) and type(value.get("id")) is int and abs(value["id"]) < 2**63
    return known and isinstance(value.get("name"), str)


def _are_totals(value: Any) -> bool:
    good = isinstance(value, dict) and all(is_count(value.get(name)) for name in ("samples", "bytes", "shards"))
    return good and isinstance(value.get("per_class"), dict) and isinstance(value.get("problems"), dict)


def _is_page(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), str) for name in ("url", "sha256"))
        and bool(PAGE_NAME.fullmatch(value["url"]) and SHA256.fullmatch(value["sha256"]))
        and all(is_count(value.get(name)) for name in ("samples", "bytes", "shards"))
    )


def untrue(manifest: dict[str, Any], sources: dict[str, Any]) -> Iterator[str]:
    """What a manifest should say of itself and does not; `sources` are those of the config."""
    if manifest.get("wids_version") != 1:
        yield "its wids_version is not 1"
    if manifest.get("sources") != sources:
        yield "its sources are not those of its config"
    for name, value in own_words(manifest).items():
        if manifest.get(name) != value:
            yield f"says no {name}; the same segloc-synth build writes it anew, --repair leaves it empty"


def own_words(manifest: dict[str, Any]) -> dict[str, Any]:
    """The command and the licences, which are the user's own words; empty where they are missing or damaged."""
    command, licences = manifest.get("command"), manifest.get("licences")
    return {
        "command": command if isinstance(command, str) else "",
        "licences": licences if _is_list(licences, lambda one: isinstance(one, str)) else [],
    }


def contradicted(manifest: dict[str, Any], names: dict[int, str], totals: Any, listed: Any) -> Iterator[str]:
    """Where a manifest is not the one that its shards make.

    Args:
        names: class id -> name, of the samples.
        totals, listed: those of the sidecars; None where not all sidecars are whole, or the list is in pages.
    """
    told: Any = manifest.get("totals")
    if _are_totals(told) and totals:
        counts = {key: count for key, count in told["per_class"].items() if count}
        if {**told, "per_class": counts} != totals:
            yield "its totals are not those of the sidecars"
    shards = manifest.get("shardlist")
    if _is_list(shards, is_entry) and listed is not None and shards != listed:
        yield "its shardlist is not that of the sidecars"
    if not _are_classes(manifest.get("classes")):
        return
    classes = {entry["id"]: entry["name"] for entry in manifest["classes"]}
    known = set(told["per_class"]) if _are_totals(told) else set(map(str, classes))
    if known != set(map(str, classes)) or list(classes) != sorted(classes):
        yield "its classes are not those of its totals, by ascending id"
    for class_id, name in names.items():
        if classes.get(class_id, name) != name:
            yield f"its class {class_id} is {classes[class_id]!r}, in the samples {name!r}"


def is_record(meta: dict[str, Any]) -> bool:
    """Whether a sample's record holds what drawing and exporting it take, with masks that can be decoded."""
    return isinstance(meta.get("class_name"), str) and all(_is_view(meta.get(view)) for view in ("key", "query"))


def _is_view(value: Any) -> bool:
    if not isinstance(value, dict) or not all(_is(value.get(name), kind) for name, kind in TOLD.items()):
        return False
    return bool(value.get("items")) and _is_list(value["items"], _is_item)


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) or (kind is float and type(value) is int)


def _is_item(value: Any) -> bool:
    try:
        mask, box = value["mask"], value["box"]
        height, width = mask["size"]
        if not 0 < min(height, width) <= max(height, width) <= MAX_SIDE:
            return False
        rle_pixels([mask["counts"].encode("ascii")], height * width)
        return type(value["class_id"]) is int and len(box) == 4 and all(_is(number, float) for number in box)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return False
