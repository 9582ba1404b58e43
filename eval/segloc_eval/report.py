"""report.html: one file that needs no network and no scripts, in light and dark, on a phone and in print."""

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from segloc_eval import charts
from segloc_eval.config import RANDOM
from segloc_eval.datasets import ALL, Data, Scan
from segloc_eval.drawing import Mark, draw
from segloc_eval.score import OVERALL
from segloc_synth.files import atomic_write, read_json
from segloc_synth.images import read_image

NAMES = {"bbox": "box", "segm": "mask"}
SHOWN = 2  # scans drawn per test split
STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --dim: #59636e; --line: #d1d9e0; --back: #ffffff;
  --card: #f6f8fa; --good: #1a7f37; --bad: #c0392b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9198a1; --line: #3d444d;
  --back: #0d1117; --card: #161b22; --good: #3fb950; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 62rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--back); }
h1 { font-size: 1.5rem; line-height: 1.3; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; } .dim, figcaption, summary { color: var(--dim); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; margin: .4rem 0; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; } td.best { font-weight: 700; }
.up { color: var(--good); } .down { color: var(--bad); }
img { max-width: 100%; height: auto; display: block; }
figure { margin: 0; } figure img { border-radius: 4px; width: 100%; }
.chart { max-width: 46rem; }
.scans { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr));
  margin: .4rem 0 1.2rem; break-inside: avoid; }
pre { background: var(--card); padding: .7rem; border-radius: 6px; overflow-x: auto; font-size: .82rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def write_report(out: Path, metrics: dict[str, Any], data: Data) -> Path:
    """Write `out`/report.html from the metrics and the results files in `out`; returns its path."""
    arms: dict[str, dict[str, Any]] = metrics["arms"]
    base = RANDOM if RANDOM in arms else next(iter(arms))
    kinds = list(next(iter(arms.values()))["scores"])
    splits = list(next(iter(arms.values()))["scores"][kinds[0]])
    body = [
        f"<h1>{escape(headline(arms, base))}</h1>",
        f"<p>{escape(_setting(metrics, data))}</p>",
        '<p class="dim">One seed per arm and no intervals yet: run other seeds before you trust a difference of a '
        "few points. AP and AR are COCO's, in per cent; a dash means that no such object exists. "
        f"AR@100 counts the best {metrics['config']['recipe']['detections_per_scan']} detections of a scan.</p>",
        "<h2>Average precision per test split</h2>",
        *(_split_table(arms, base, kind, splits) for kind in kinds),
        *(_chart(_split_bars(arms, kind, splits), f"{NAMES[kind]} AP per split") for kind in kinds),
        "<h2>Predictions on scans</h2>",
        *_pictures(out, arms, kinds, data, int(metrics["config"]["seed"])),
        "<h2>Per class</h2>",
        *(_class_part(arms, base, kind, splits[-1]) for kind in kinds),
        "<h2>All numbers</h2>",
        *(_full_table(arms, base, kind, split) for split in splits for kind in kinds),
        "<h2>Fine-tuning</h2>",
        _losses(out, arms),
        _times(arms),
        "<h2>Data</h2>",
        _data(metrics["data"]),
        "<h2>To repeat it</h2>",
        f"<pre>{escape(metrics['command'])}</pre>",
        f"<pre>{escape(json.dumps(metrics['config'], indent=1, ensure_ascii=False))}</pre>",
        f"<pre>{escape(chr(10).join(f'{k} {v}' for k, v in metrics['versions'].items()))}</pre>",
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>SegLoc evaluation: {escape(', '.join(arms))}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
    path = out / "report.html"
    with atomic_write(path) as file:
        file.write(page.encode())
    return path


def headline(arms: dict[str, dict[str, Any]], base: str) -> str:
    """One sentence: which arm is ahead of `base` on all test scans, by how many points of box and mask AP."""
    kinds = list(arms[base]["scores"])

    def overall(arm: str, kind: str) -> float:
        splits = arms[arm]["scores"][kind]
        return 100 * (list(splits.values())[-1]["overall"]["AP"] or 0.0)

    if len(arms) == 1:
        found = " and ".join(f"{overall(base, kind):.1f} {NAMES[kind]} AP" for kind in kinds)
        return f"{base} reaches {found} on the test scans; there is no other arm to compare it with."
    best = max((arm for arm in arms if arm != base), key=lambda arm: overall(arm, kinds[0]))
    parts = []
    for kind in kinds:
        ours, theirs = round(overall(best, kind), 1), round(overall(base, kind), 1)
        gap = f"{abs(ours - theirs):.1f} points {'ahead of' if ours > theirs else 'behind'}"
        parts.append(
            f"{gap if ours != theirs else 'level with'} {base} in {NAMES[kind]} AP ({ours:.1f} against {theirs:.1f})"
        )
    others = "" if len(arms) == 2 else ", the best of the other arms,"
    return f"{best}{others} is {' and '.join(parts)} on all test scans together."


def _setting(metrics: dict[str, Any], data: Data) -> str:
    config, about = metrics["config"], metrics["data"]
    tests = ", ".join(f"{count} {name}" for name, count in about["scans"].items() if name not in ("train", ALL))
    detector = "Cascade Mask R-CNN" if data.masks else "Cascade R-CNN (boxes only: the data have no masks)"
    return (
        f"{detector} on SDANet ({config['arch']}, width {config['width']}), every arm fine-tuned on the same "
        f"{about['scans']['train']} labelled scans for {config['epochs']} epochs at {config['size']} pixels, seed "
        f"{config['seed']}; tested on {tests} scans."
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _difference(value: float | None, base: float | None) -> str:
    if value is None or base is None:
        return ""
    points = round(100 * value, 1) - round(100 * base, 1)  # of the numbers that the reader sees
    kind = "up" if points > 0.05 else "down" if points < -0.05 else "dim"
    sign = {"up": "+", "down": "−", "dim": "±"}[kind]
    return f' <span class="{kind}">({sign}{abs(points):.1f})</span>'


def _table(head: list[str], rows: dict[str, dict[str, float | None]], base: str) -> str:
    """Rows of scores by column; the best in bold, other arms (columns) with their difference to `base`."""
    lines = ["".join(f"<th>{escape(name)}</th>" for name in head)]
    for name, values in rows.items():
        shown = {arm: None if value is None else round(100 * value, 1) for arm, value in values.items()}
        best = max((value for value in shown.values() if value is not None), default=None)
        tied = len(set(shown.values())) == 1
        cells = [f"<td>{escape(name)}</td>"]
        for arm, value in values.items():
            extra = "" if arm == base else _difference(value, values[base])
            mark = ' class="best"' if value is not None and shown[arm] == best and not tied else ""
            cells.append(f"<td{mark}>{_percent(value)}{extra}</td>")
        lines.append("".join(cells))
    return '<div class="wide"><table>' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def _split_table(arms: dict[str, Any], base: str, kind: str, splits: list[str]) -> str:
    rows = {
        split: {arm: about["scores"][kind][split]["overall"]["AP"] for arm, about in arms.items()} for split in splits
    }
    return _table([f"{NAMES[kind]} AP", *arms], rows, base)


def _full_table(arms: dict[str, Any], base: str, kind: str, split: str) -> str:
    rows = {
        name: {arm: about["scores"][kind][split]["overall"][name] for arm, about in arms.items()} for name in OVERALL
    }
    table = _table([f"{split}, {NAMES[kind]}", *arms], rows, base)
    return f"<details><summary>{escape(split)}: {NAMES[kind]}</summary>{table}</details>"


def _class_part(arms: dict[str, Any], base: str, kind: str, split: str) -> str:
    columns = {arm: about["scores"][kind][split]["per_class"] for arm, about in arms.items()}
    classes = list(columns[base])
    rows = {name: {arm: values[name] for arm, values in columns.items()} for name in classes}
    series = {arm: [None if v is None else 100 * v for v in values.values()] for arm, values in columns.items()}
    chart = _chart(
        charts.bars(classes, series, f"{NAMES[kind]} AP, per cent", tall=True), f"{NAMES[kind]} AP per class"
    )
    return chart + _table([f"{split}, {NAMES[kind]} AP", *arms], rows, base)


def _split_bars(arms: dict[str, Any], kind: str, splits: list[str]) -> bytes:
    series = {
        arm: [None if (ap := about["scores"][kind][split]["overall"]["AP"]) is None else 100 * ap for split in splits]
        for arm, about in arms.items()
    }
    return charts.bars(splits, series, f"{NAMES[kind]} AP, per cent")


def _pictures(out: Path, arms: dict[str, Any], kinds: list[str], data: Data, seed: int) -> list[str]:
    """Scans drawn by seed, not by success: the truth, and each arm's best detections, as many as there are objects."""
    parts = [
        f'<p class="dim">{SHOWN} scans per split, drawn at random. Each arm shows as many of its highest-scoring '
        "detections as the scan has objects.</p>"
    ]
    index = {id: number for number, id in enumerate(data.classes)}
    for split, scans in data.tests.items():
        found = {arm: _results_by_scan(out / arm / split, kinds) for arm in arms}
        shown = np.random.default_rng(seed).permutation(len(scans))[:SHOWN]
        for scan in (scans[i] for i in sorted(shown)):
            pixels, _ = read_image(scan.path)
            truth = [
                Mark(thing.box, thing.mask, index[thing.category_id], data.classes[thing.category_id])
                for thing in scan.objects
            ]
            panels = [_panel(draw(pixels, truth), "ground truth")]
            for arm in arms:
                best = found[arm].get(scan.source_id, [])[: max(1, len(truth))]
                marks = [
                    Mark(
                        tuple(r["bbox"]),
                        r.get("segmentation"),
                        index[r["category_id"]],
                        f"{data.classes[r['category_id']]} {r['score']:.2f}",
                    )
                    for r in best
                ]
                panels.append(_panel(draw(pixels, marks), arm if marks else f"{arm}: nothing found"))
            parts += [f"<h3>{escape(_title(split, scan))}</h3>", f'<div class="scans">{"".join(panels)}</div>']
    return parts


def _results_by_scan(folder: Path, kinds: list[str]) -> dict[int | str, list[dict[str, Any]]]:
    """Results by image id, best first, box and mask of a detection joined (both files list them in one order)."""
    files = [read_json(folder / f"results.{kind}.json") for kind in kinds]
    by_scan: dict[int | str, list[dict[str, Any]]] = {}
    for parts in zip(*files, strict=True):
        joined = {key: value for part in parts for key, value in part.items()}
        by_scan.setdefault(joined["image_id"], []).append(joined)
    return {id: sorted(found, key=lambda r: -r["score"]) for id, found in by_scan.items()}


def _title(split: str, scan: Scan) -> str:
    return f"{split}: {scan.path.name}"


def _panel(jpeg: bytes, caption: str) -> str:
    return f"<figure>{_image(jpeg, 'jpeg', caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def _chart(png: bytes, text: str) -> str:
    return f'<div class="chart">{_image(png, "png", text)}</div>'


def _image(content: bytes, kind: str, text: str) -> str:
    return f'<img alt="{escape(text)}" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'


def _losses(out: Path, arms: dict[str, Any]) -> str:
    series = {
        arm: [json.loads(line)["loss"] for line in (out / arm / "log.jsonl").read_text().splitlines()] for arm in arms
    }
    return _chart(charts.curves(series, 10), "training loss per step, running mean over 10 steps")


def _times(arms: dict[str, Any]) -> str:
    lines = ["<tr><th>arm</th><th>weights</th><th>steps</th><th>s a training scan</th><th>s a test scan</th></tr>"]
    for name, about in arms.items():
        training, testing = about["training"], about["testing"]
        digest = about["sha256"][:12] if about["sha256"] else about["source"]
        lines.append(
            f"<tr><td>{escape(name)}</td><td>{escape(digest)}</td><td>{training['steps']}</td>"
            f"<td>{training['seconds_per_scan']:.3f}</td><td>{testing['seconds_per_scan']:.3f}</td></tr>"
        )
    hardware = ", ".join(sorted({about["hardware"] for about in arms.values()}))
    return f'<div class="wide"><table>{"".join(lines)}</table></div><p class="dim">{escape(hardware)}</p>'


def _data(about: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{count}</td><td>{about['objects'][name]}</td></tr>"
        for name, count in about["scans"].items()
    )
    problems = "".join(f"<li>{escape(line)}</li>" for line in about["problems"])
    return (
        f'<div class="wide"><table><tr><th>split</th><th>scans</th><th>objects</th></tr>{rows}</table></div>'
        f'<p class="dim">fingerprint {escape(about["fingerprint"])}</p>'
        + (f"<p>Records with problems:</p><ul>{problems}</ul>" if problems else "<p>Every record was usable.</p>")
    )
