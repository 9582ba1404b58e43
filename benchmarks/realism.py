"""How real do composites look? PhantomRay across its two scanners, where the truth can be simulated.

Objects are cut from scans of the PIDRAY scanner and pasted onto benign bags of the SIXRAY scanner by every blend mode
that there is; beside them stand real ones: bags of the same make with the object inside, on the SIXRAY scanner.
Prints AUCs of a linear model (segloc-synth probe) and of a small CNN (probe_cnn.py); 0.5 is perfect. The row `truth`
measures the measure: the composites of `hard` re-simulated with the object really inside. Matched are class, size, JPEG
history, kind of bag, and how objects are turned and placed; not matched are pose and scale, which composites vary.

  python benchmarks/realism.py --out realism.json
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from pycocotools import mask as coco_mask

from segloc_synth.config import BLENDS
from segloc_synth.console import cores, progress, run
from segloc_synth.engines import run_local
from segloc_synth.files import write_json
from segloc_synth.phantom import write_phantom
from segloc_synth.phantom.scene import CLASSES
from segloc_synth.realism.crops import CONTROLS, Trial, trials
from segloc_synth.realism.probe import Verdict, linear
from segloc_synth.shards.format import Sample, ShardReader
from segloc_synth.shards.manifest import Layout, shard_path, write_manifest
from segloc_synth.shards.writer import write_shard

sys.path.insert(0, str(Path(__file__).parent))
import probe_cnn
import realism_pictures
import realism_truth

BATCH = 16
WIDTH = 22


def write_real(out: Path, count: int, seed: int, size: int, workers: int) -> None:
    """A COCO data set of `count` scans of the benign scanner with one prohibited item each; whole or absent."""
    if (out / "set.json").exists():
        return
    (out / "images").mkdir(parents=True, exist_ok=True)
    batches = [range(first, min(first + BATCH, count)) for first in range(0, count, BATCH)]
    found = run_local(partial(_write_batch, out, seed, size), batches, workers)
    records = [
        record for batch in progress(found, len(batches), "simulating real scans, in batches") for record in batch
    ]
    write_json(
        out / "set.json",
        {
            "images": [{"id": i, **image} for i, (image, _) in enumerate(records)],
            "annotations": [{"id": i, "image_id": i, **mark} for i, (_, mark) in enumerate(records)],
            "categories": [{"id": i, "name": name} for i, (name, _) in enumerate(CLASSES, 1)],
        },
    )


def _write_batch(out: Path, seed: int, size: int, batch: range) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    records = []
    for index in batch:
        jpeg, mark, (width, height) = realism_truth.real_scan(seed, index, size)
        name = f"P{index + 1:07d}.jpg"
        (out / "images" / name).write_bytes(jpeg)
        records.append(({"file_name": name, "width": width, "height": height}, mark))
    return records


def build(data: Path, out: Path, blend: str, pairs: int, size: int, workers: int) -> None:
    """Run segloc-synth build; it goes on where an earlier run stopped."""
    command = [
        sys.executable,
        "-m",
        "segloc_synth",
        "build",
        "--objects",
        data / "pidray",
        "--backgrounds",
        data / "sixray",
    ]
    command += ["--out", out, "--n", pairs, "--size", size, "--blend", blend, "--workers", workers]
    subprocess.run([str(part) for part in command], check=True, stderr=subprocess.DEVNULL)


def write_truth(data: Path, hard: Path, out: Path, count: int, workers: int) -> None:
    """A build like the first `count` pairs of `hard`, with every picture re-simulated, the object really inside."""
    if (out / "manifest.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    batches = [range(first, min(first + BATCH, count)) for first in range(0, count, BATCH)]
    found = progress(run_local(partial(_true_samples, data, hard), batches, workers), len(batches), "re-simulating")
    manifest = ShardReader(hard).manifest
    summary = write_shard(shard_path(out, 0), (sample for batch in found for sample in batch), "truth", {})
    head = {part: manifest[part] for part in ("config", "sources", "classes") if part in manifest}
    write_manifest(out, {**head, "config_hash": "truth"}, Layout(count, count), [summary])


def _true_samples(data: Path, hard: Path, batch: range) -> list[Sample]:
    truth, reader = realism_truth.Truth(data), ShardReader(hard)
    quality = reader.manifest["config"]["jpeg_quality"]
    samples = []
    for index in batch:
        meta = reader[index].meta
        views = [realism_truth.recoded(truth.view(meta[view]), quality)[1] for view in ("key", "query")]
        for view in ("key", "query"):  # masks as exact as real ones
            rle = coco_mask.encode(np.asfortranarray(truth.outline(meta[view])))
            mask = {"size": rle["size"], "counts": rle["counts"].decode()}
            meta[view]["mask"] = meta[view]["items"][0]["mask"] = mask
        samples.append(Sample(meta, *views))
    return samples


def judge(task: tuple[Path, Path, bool], limit: int, nets: bool) -> dict[str, dict[str, Verdict]]:
    """The verdicts of both adversaries on a build by question, those about real scans alone only if asked for."""
    torch.set_num_threads(1)
    folder, real, controls = task
    return {
        trial.name: _both(trial, nets)
        for trial in trials(folder, real, limit)
        if controls or trial.name not in CONTROLS
    }


def _both(trial: Trial, nets: bool) -> dict[str, Verdict]:
    return linear(trial) | (probe_cnn.cnn(trial) if nets else {})


def compare(task: tuple[Path, Path], count: int) -> dict[str, list[float]]:
    """Mean [grey levels, dE] between `count` composites of a build and their truth, and between two true exposures."""
    data, folder = task
    truth, reader = realism_truth.Truth(data), ShardReader(folder)
    rows = [
        realism_truth.distances(truth, reader[index], reader.manifest["config"]["jpeg_quality"])
        for index in range(count)
    ]
    means = np.mean(rows, axis=0)
    return {"composite": means[0].tolist(), "floor": means[1].tolist()}


def table(results: dict[str, dict[str, dict[str, Verdict]]]) -> Iterable[str]:
    """AUC with 95 % interval of either adversary, and the larger, by blend mode and question."""
    for question in next(iter(results.values())):
        yield f"\n{question}"
        heads = "".join(f"{head:<{WIDTH}}" for head in ("linear", "cnn", "larger"))
        yield f"  {'':<14}{'crops':>6}  {heads}  by edge, ring, noise, colour alone"
        for blend, found in results.items():
            if question not in found:
                continue
            verdicts = found[question]
            nets = [verdict for name, verdict in verdicts.items() if name.startswith("cnn")]
            best = max(nets, key=lambda verdict: verdict.auc, default=None)
            larger = max([verdicts["all"], *nets], key=lambda verdict: verdict.auc)
            parts = "  ".join(f"{verdicts[name].auc:.3f}" for name in ("edge", "ring", "noise", "colour"))
            figures = "".join(f"{_figure(one):<{WIDTH}}" for one in (verdicts["all"], best, larger))
            row = "real" if question in CONTROLS else blend
            yield f"  {row:<14}{larger.ones:>6}  {figures}  {parts}"


def _figure(verdict: Verdict | None) -> str:
    return f"{verdict.auc:.3f} ({verdict.low:.3f}-{verdict.high:.3f})" if verdict else "-"


@click.command()
@click.option("--work", type=click.Path(path_type=Path), help="Folder for data and builds, kept and used again.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON to write.")
@click.option("--pictures", type=click.Path(path_type=Path), help="Folder for picture sheets of best and worst cases.")
@click.option("--blend", "blends", type=click.Choice(BLENDS), multiple=True, default=BLENDS, show_default=True)
@click.option("--labelled", default=2700, show_default=True, help="Labelled scans on the PIDRAY scanners.")
@click.option("--benign", default=2000, show_default=True, help="Benign scans on the SIXRAY scanner.")
@click.option("--real", "reals", default=2000, show_default=True, help="Scans on it with an object inside.")
@click.option("--seeds", nargs=2, default=(41, 43), show_default=True, help="Of composites' sources and of real scans.")
@click.option("--scan-size", default=512, show_default=True, help="Longer side of a scan.")
@click.option("--size", default=256, show_default=True, help="Canvas.")
@click.option("--pairs", default=6000, show_default=True, help="Pairs per blend mode to choose composites from.")
@click.option("--limit", default=1400, show_default=True, help="Most composites to compare.")
@click.option("--truth", "truths", default=600, show_default=True, help="Pairs to re-simulate, for the row `truth`.")
@click.option("--compare", "compared", default=60, show_default=True, help="Composites compared by pixels.")
@click.option("--cnn/--no-cnn", "nets", default=True, show_default=True)
@click.option("--workers", default=cores(), show_default=True)
def main(
    work: Path | None,
    out: Path | None,
    pictures: Path | None,
    blends: tuple[str, ...],
    labelled: int,
    benign: int,
    reals: int,
    seeds: tuple[int, int],
    scan_size: int,
    size: int,
    pairs: int,
    limit: int,
    truths: int,
    compared: int,
    nets: bool,
    workers: int,
) -> None:
    """Measure how real composites look, on PhantomRay across its two scanners."""
    with tempfile.TemporaryDirectory() as tmp:
        work = work or Path(tmp)
        data, real = work / "phantom", work / "real"
        if not data.exists():
            write_phantom(data, labelled, benign, seeds[0], scan_size, workers)
        write_real(real, reals, seeds[1], scan_size, workers)
        folders = {blend: work / blend for blend in ("hard", *blends)}
        for blend, folder in folders.items():
            build(data, folder, blend, pairs, size, workers)
        folders |= {"truth": work / "truth"} if truths else {}
        if truths:
            write_truth(data, folders["hard"], folders["truth"], truths, workers)
        chosen = {blend: folders[blend] for blend in (*blends, "truth") if blend in folders}
        tasks = [(folder, real, not place) for place, folder in enumerate(chosen.values())]
        judged = progress(run_local(partial(judge, limit=limit, nets=nets), tasks, workers), len(tasks), "probing")
        results = dict(zip(chosen, judged, strict=True))
        pixels: dict[str, dict[str, list[float]]] = {}
        if compared:
            tasks = [(data, folders[blend]) for blend in blends]
            found = run_local(partial(compare, count=compared), tasks, workers)
            pixels = dict(zip(blends, progress(found, len(tasks), "comparing"), strict=True))
        for line in table(results):
            click.echo(line)
        click.echo(
            "\nagainst the truth, within 2 px of the mask: RMSE in grey levels, mean dE76 (two exposures of the truth)"
        )
        for blend, means in pixels.items():
            (grey, lab), (grey_floor, lab_floor) = means["composite"], means["floor"]
            click.echo(f"  {blend:<14}{grey:6.1f} ({grey_floor:.1f})   {lab:6.1f} ({lab_floor:.1f})")
        if out:
            values = {b: {q: {n: vars(v) for n, v in vs.items()} for q, vs in qs.items()} for b, qs in results.items()}
            write_json(out, {"auc": values, "pixels": pixels})
        if pictures:
            realism_pictures.write(pictures, data, {blend: folders[blend] for blend in blends})


if __name__ == "__main__":
    run(main)
