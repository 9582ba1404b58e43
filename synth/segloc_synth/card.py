"""The data card of a build: README.md with the head that the Hugging Face Hub reads. Names no path and no date."""

from pathlib import Path
from typing import Any

from segloc_synth.files import atomic_write

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
BLENDS = {
    "hard": "the segment replaces the background",
    "alpha": "c * segment + (1 - c) * background",
    "multiply": "transmissions multiply (Beer-Lambert), the carrier bag divided out, c scales the attenuation",
}


def card(manifest: dict[str, Any]) -> str:
    """Markdown text of the card for a manifest."""
    config, totals, sources = manifest["config"], manifest["totals"], manifest["sources"]
    samples = totals["samples"]
    size = next((name for limit, name in SIZES if samples < limit), "10M<n<100M")
    names = {str(entry["id"]): entry["name"] for entry in manifest["classes"]}
    rows = "\n".join(
        f"| {class_id} | {names[class_id]} | {count} | {count / samples:.1%} |"
        for class_id, count in totals["per_class"].items()
    )
    low, high = config["coefficient"]
    problems = "".join(
        f"- {found['count']} views: {kind}, first in {', '.join(found['first'])}\n"
        for kind, found in totals["problems"].items()
    )
    return f"""---
pretty_name: SegLoc pairs
license: other
task_categories: [image-feature-extraction, object-detection]
tags: [x-ray, security, contrastive-learning, webdataset, synthetic]
size_categories: ["{size}"]
configs:
- config_name: default
  data_files: [{{split: train, path: "segloc-*.tar"}}]
---

# SegLoc pairs

{samples} pairs of baggage X-rays for contrastive pretraining. Each pair shows one labelled segment under two
independent transforms, composited onto two different benign scans, with box and mask. Made by segloc-synth.

![pairs](preview.png)

| | |
|---|---|
| pairs | {samples} in {totals["shards"]} shards, {totals["bytes"] / 1e6:.1f} MB |
| picture | {config["size"]} x {config["size"]} px, RGB JPEG of quality {config["jpeg_quality"]}, padded with white |
| blend | `{config["blend"]}`: {BLENDS[config["blend"]]}; c from {low} to {high} |
| scale | {config["scale"][0]} to {config["scale"][1]} times the object's size in its own scan |
| seed | {config["seed"]} |
| objects | {sources["objects"]["kind"]}, fingerprint `{sources["objects"]["fingerprint"][:16]}` |
| backgrounds | {sources["backgrounds"]["kind"]}, fingerprint `{sources["backgrounds"]["fingerprint"][:16]}` |
| config | `{manifest["config_hash"][:16]}` |

The licence of the pictures is that of their sources.

| class id | class | pairs | share |
|---|---|---|---|
{rows}
{chr(10) + problems if problems else ""}
## Format

WebDataset tars `segloc-%08d.tar`; a sample has the members `json`, `key.jpg` and `query.jpg`:

- `index`, `class_id`, `class_name`
- `key` and `query`, one record for each picture:
  - `box` [x, y, w, h] in pixels, tight around `mask`, a COCO compressed RLE
  - `segment` and `background`: where both came from
  - `blend`, `coefficient`, `scale`, `rotation` (degrees, counter-clockwise), `flip`: what was drawn
  - `items`: every pasted object with its `class_id`, `box` and `mask`, the pair's subject first

Beside each tar lies a sidecar `segloc-%08d.json` with count, bytes, sha256, member offsets and the class of each
sample. `manifest.json` lists the shards and holds the full config; `problems.json` lists the source records that were
not as they should be.

```python
datasets.load_dataset("webdataset", data_files={{"train": "segloc-*.tar"}}, split="train")
webdataset.WebDataset("segloc-{{00000000..{totals["shards"] - 1:08d}}}.tar").decode("rgb8")
```
"""


def write_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Write README.md into a build's folder."""
    with atomic_write(folder / "README.md") as file:
        file.write(card(manifest).encode())
