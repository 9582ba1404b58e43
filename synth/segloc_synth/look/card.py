"""The data card of a build: README.md with the head that the Hugging Face Hub reads, and its histograms as PNG.

Names no path and no date.
"""

import html
import json
import math
import shlex
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np
from pycocotools import mask as coco_mask

from segloc_synth.files import PathOrUrl, atomic_write
from segloc_synth.look import charts
from segloc_synth.shards.format import Sample, ShardReader
from segloc_synth.sources.listing import spread

LOOKED_AT = 2000  # samples behind the histograms, spread evenly over the build
BINS = 20
NO_MATTER = frozenset({"workers", "engine", "part", "strict"})  # options that change no byte of a build

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
    (10_000_000_000, "1B<n<10B"),
    (100_000_000_000, "10B<n<100B"),
    (1_000_000_000_000, "100B<n<1T"),
)
BLENDS = {
    "hard": "the segment replaces the background",
    "alpha": "c * segment + (1 - c) * background",
    "multiply": "transmissions multiply (Beer-Lambert), the carrier bag divided out, c scales the attenuation",
    "dual-energy": "attenuations add and materials mix, written in the background's colours; c scales the attenuation",
}
TOLD = frozenset({"objects", "backgrounds", "size", "seed", "blend", "coefficient", "scale", "jpeg_quality"})


@dataclass
class Statistics:
    """What the histograms show of `samples` samples, by view: a list of numbers each for "key" and "query".

    Attributes:
        sizes: root of the subject's mask area over the side of the canvas.
        occlusion: the records' field of that name, where they have it.
        overlap: greatest IoU of two masks, of each picture with several items.
    """

    samples: int = 0
    sizes: dict[str, list[float]] = field(default_factory=lambda: {"key": [], "query": []})
    occlusion: dict[str, list[float]] = field(default_factory=lambda: {"key": [], "query": []})
    overlap: dict[str, list[float]] = field(default_factory=lambda: {"key": [], "query": []})

    def add(self, sample: Sample) -> None:
        """Count one sample in."""
        self.samples += 1
        for view in ("key", "query"):
            record = sample.meta[view]
            masks = [item["mask"] for item in record["items"]]
            self.sizes[view].append(math.sqrt(coco_mask.area(masks[0])) / masks[0]["size"][0])
            if "occlusion" in record:
                self.occlusion[view].append(record["occlusion"])
            if len(masks) > 1:
                ious = coco_mask.iou(masks, masks, [0] * len(masks))
                self.overlap[view].append(float(ious[np.triu_indices(len(masks), 1)].max()))


def look(folder: Path) -> Statistics:
    """Statistics of at most LOOKED_AT samples of a finished build."""
    reader, found = ShardReader(folder), Statistics()
    for place in spread(len(reader), LOOKED_AT):
        found.add(reader.complete(place))
    return found


def command_line(context: click.Context) -> str:
    """The command that made a build: the options that differ from their defaults, in the order of the help text.

    Every path stands as its option's name in capitals; what changes no byte, such as --workers, is left out.
    """
    words = ["segloc-synth", context.info_name or ""]
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if option.name in NO_MATTER or value is None or value is False or value in ((), option.get_default(context)):
            continue
        flag = max(option.opts, key=len)
        given = value if isinstance(option, click.Option) and option.multiple else [value]
        for number, one in enumerate(given, 1):
            if isinstance(option.type, PathOrUrl):
                values = [flag.lstrip("-").upper() + (f"_{number}" if len(given) > 1 else "")]
            else:
                values = [] if one is True else [_word(part) for part in (one if isinstance(one, tuple) else [one])]
            words += [flag, *values]
    return " ".join(words)


def _plain(text: str) -> str:
    """Somebody's words in a line of Markdown, whatever they hold."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;")


def _word(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else shlex.quote(str(value))


def card(manifest: dict[str, Any], found: Statistics) -> str:
    """Markdown text of the card for a manifest, whose `command` and `licences` are the user's own words."""
    command, licences = manifest.get("command", ""), tuple(manifest.get("licences", ()))
    config, totals, sources = manifest["config"], manifest["totals"], manifest["sources"]
    samples = totals["samples"]
    size = next((name for limit, name in SIZES if samples < limit), "n>1T")
    names = {str(entry["id"]): entry["name"] for entry in manifest["classes"]}
    rows = "\n".join(
        f"| {class_id} | {_plain(names[class_id])} | {count} | {count / samples:.1%} |"
        for class_id, count in totals["per_class"].items()
    )
    low, high = config["coefficient"]
    problems = "".join(
        f"- {found['count']} views: {kind}, first in {_plain(', '.join(found['first']))}\n"
        for kind, found in totals["problems"].items()
    )
    return f"""---
pretty_name: SegLoc pairs
license: other{_yaml_name(licences)}
task_categories: [image-feature-extraction, object-detection]
tags: [x-ray, security, contrastive-learning, webdataset, synthetic]
size_categories: ["{size}"]
configs:
- config_name: default
  data_files: [{{split: train, path: "segloc-*.tar"}}]
---

# SegLoc pairs

{samples} pairs of baggage X-rays for contrastive pretraining. Each pair shows {_positive(config)} under two
independent transforms, projected onto scans of two different benign bags, with box and mask. Made by segloc-synth.

![pairs](preview.png)

| | |
|---|---|
| pairs | {samples} in {totals["shards"]} shards, {totals["bytes"] / 1e6:.1f} MB |
| picture | {config["size"]} x {config["size"]} px, RGB JPEG of quality {config["jpeg_quality"]}, padded with white |
| blend | `{config["blend"]}`: {BLENDS.get(config["blend"], "")}; c from {low} to {high} |
| scale | {config["scale"][0]} to {config["scale"][1]} times a size drawn from the class's own, relative to the bag |
| seed | {config["seed"]} |
{_further(config)}| config | `{manifest["config_hash"][:16]}` |

{_made_by(command)}## Sources

{_sources(sources)}
The licence of the pictures is that of their sources{_licences(licences)}

## Classes

![pairs by class](classes.png)

| class id | class | pairs | share |
|---|---|---|---|
{rows}
{chr(10) + problems if problems else ""}
## Size and overlap

{_statistics(found)}
## Format

WebDataset tars `segloc-%08d.tar`; a sample has the members `json`, `key.jpg` and `query.jpg`:

- `index`, `class_id`, `class_name`
- `key` and `query`, one record for each picture:
  - `box` [x, y, w, h] in pixels, tight around `mask`, a COCO compressed RLE
  - `segment` and `background`: where both came from
  - `blend`, `coefficient`, `rotation` (degrees, counter-clockwise), `flip`: what was drawn; `scale`: size of the object
    relative to its own scan fitted to the canvas; `pose`: shear, and perspective along x and y, relative to its size
  - `occlusion`: mean darkness, 0 to 1, of the scan under the object; `distractors`: number of unlabelled look-alikes
  - `items`: every pasted object with its `class_id`, `box` and `mask`, the pair's subject first

Beside each tar lies a sidecar `segloc-%08d.json` with count, bytes, sha256, member offsets, the class of each sample,
and the scans that its segments come from (`scans`: names, and for each sample two positions in them, the key's and the
query's). `manifest.json` lists the shards and holds the full config; `problems.json` lists the source records that were
not as they should be.

```python
datasets.load_dataset("webdataset", data_files={{"train": "segloc-*.tar"}}, split="train")
webdataset.WebDataset("segloc-{{00000000..{totals["shards"] - 1:08d}}}.tar").decode("rgb8")
```
"""


def _positive(config: dict[str, Any]) -> str:
    return "two labelled segments of one class" if config.get("positives") == "class" else "one labelled segment"


def _yaml_name(licences: tuple[str, ...]) -> str:
    return f"\nlicense_name: {json.dumps('; '.join(map(_line, licences)))}" if licences else ""


def _licences(licences: tuple[str, ...]) -> str:
    return ", as noted by who built it:\n\n" + "\n".join(f"- {_line(text)}" for text in licences) if licences else "."


def _line(text: str) -> str:
    return " ".join(text.split())


def _made_by(command: str) -> str:
    return f"Made by\n\n```sh\n{command}\n```\n\n" if command else ""


def _further(config: dict[str, Any]) -> str:
    """Rows for the settings that the table does not explain by itself."""
    rows = ""
    for name, value in config.items():
        if name not in TOLD:
            low_to_high = isinstance(value, list) and len(value) == 2
            rows += f"| {name.replace('_', ' ')} | {' to '.join(map(str, value)) if low_to_high else value} |\n"
    return rows


def _sources(sources: dict[str, Any]) -> str:
    rows = "| | kind | fingerprint |\n|---|---|---|\n"
    for name, source in sources.items():
        for one in source if isinstance(source, list) else [source]:
            rows += f"| {name} | {one['kind']} | `{one['fingerprint'][:16]}` |\n"
    return rows


def _statistics(found: Statistics) -> str:
    text = f"From {found.samples} pairs, spread evenly over the build.\n\n![size of the objects](sizes.png)\n\n"
    text += f"Size of the subject, the root of its mask's area over the side of the picture: {_spread(found.sizes)}.\n"
    if any(found.occlusion.values()):
        text += "\n![occlusion](occlusion.png)\n\n"
        text += (
            f"Occlusion, how dark the background under the object is, 0 white to 1 black: {_spread(found.occlusion)}.\n"
        )
    if any(found.overlap.values()):
        pictures = sum(map(len, found.overlap.values()))
        text += "\n![overlap](overlap.png)\n\n"
        text += f"Overlap, the greatest IoU of two objects in one of {pictures} pictures with several: "
        text += f"{_spread(found.overlap)}.\n"
    return text


def _spread(values: dict[str, list[float]]) -> str:
    low, middle, high = np.quantile([*chain.from_iterable(values.values())], (0.05, 0.5, 0.95), method="nearest")
    return f"median {middle:.2f}, nine tenths between {low:.2f} and {high:.2f}"


def _charts(manifest: dict[str, Any], found: Statistics) -> dict[str, bytes]:
    """The card's pictures by file name."""
    names = {str(entry["id"]): entry["name"] for entry in manifest["classes"]}
    counts = {names[class_id]: count for class_id, count in manifest["totals"]["per_class"].items()}
    about = {
        "sizes.png": (found.sizes, "Size of the objects", "root of the mask's area / side of the picture"),
        "occlusion.png": (
            found.occlusion,
            "Occlusion",
            "darkness of the background under the object, 0 white to 1 black",
        ),
        "overlap.png": (found.overlap, "Overlap of objects in one picture", "greatest IoU of two masks"),
    }
    pictures = {"classes.png": charts.bars(counts, "Pairs by class")}
    for name, (values, title, axis) in about.items():
        if any(values.values()):
            top = math.ceil(max(max(row, default=0.0) for row in values.values()) * 10 + 1e-9) / 10
            edges = [round(top * place / BINS, 4) for place in range(BINS + 1)]
            pictures[name] = charts.histogram(values, edges, f"{title}, share of pictures", axis)
    return pictures


def write_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Write README.md and its histograms into the folder of a finished build."""
    found = look(folder)
    contents = _charts(manifest, found) | {"README.md": card(manifest, found).encode(errors="backslashreplace")}
    for name, content in contents.items():
        with atomic_write(folder / name) as file:
            file.write(content)
