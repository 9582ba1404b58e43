"""What do pairs cost? A build beside JPEG encoding alone, an idiomatic script, and copy-paste in the training loop.

The yardstick E is what one process takes to do nothing but encode the pictures of a build again. All else is told in
multiples of it: times differ between machines, and on a shared one from minute to minute, the ratios far less. Every
figure is the median of repetitions that take turns; CPU seconds, of a process and its children, are steadier than wall.

A build is measured as a whole process, twice, with few and with many pairs: the difference, over the difference in
pairs, leaves start-up and the fixed work out. `raw` builds from scans as they come, with nothing of them prepared, two
pairs (four uses) a scan; its objects' bank and palettes are there. To have pairs enough, few scans count several times,
under several names. The other tasks time their own loops.

  python benchmarks/synth_speed.py --json speed.json
  python benchmarks/synth_speed.py --scans SIXray/JPEGImage --objects pidray
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from pycocotools.coco import COCO

from segloc_synth.console import cores
from segloc_synth.files import write_json
from segloc_synth.listing import list_images
from segloc_synth.phantom import write_phantom
from segloc_synth.shards import ShardReader

SIZE, QUALITY = 256, 90
FEW, MANY = 500, 2500  # pairs of a build
ENCODED = 500  # pairs of the yardstick
LOOP = 60  # pairs of a script
RAW_SCANS = 600  # scans of the build from raw, at least
JPEG = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
ROOT = Path(__file__).resolve().parent.parent
Cost = dict[str, float]  # wall and cpu seconds, rss: most resident memory of any of its processes in MB


# The tasks: what is timed in a process of its own.


def encode(build: Path) -> Cost:
    """Encode again what a build holds."""
    reader = ShardReader(build)
    pictures = [decoded(jpeg) for place in range(ENCODED) for jpeg in (reader[place].key, reader[place].query)]
    return timed(lambda: [cv2.imencode(".jpg", picture, JPEG) for picture in pictures], ENCODED)


def read(build: Path) -> Cost:
    """Read and decode a build's pairs in random order, as a training loop does."""
    reader = ShardReader(build)
    order = np.random.default_rng(0).permutation(len(reader)).tolist()

    def loop() -> None:
        for place in order:
            sample = reader[place]
            decoded(sample.key), decoded(sample.query)

    return timed(loop, len(order))


def script(scans: Path, annotations: Path, images: Path, out: Path) -> Cost:
    """The idiomatic script: for each pair decode two scans and the object's, paste it turned, write with masks."""
    import webdataset

    rng = np.random.default_rng(0)
    files, coco = scan_files(scans), COCO(annotations)
    marks = [mark for mark in coco.loadAnns(coco.getAnnIds()) if mark.get("segmentation")]

    def loop() -> None:
        with webdataset.TarWriter(str(out / "script.tar")) as sink:
            for index in range(LOOP):
                mark = marks[rng.integers(len(marks))]
                x, y, width, height = cv2.boundingRect(mask := coco.annToMask(mark))
                source = cv2.imread(str(images / coco.loadImgs(mark["image_id"])[0]["file_name"]))
                cut, alpha = (one[y : y + height, x : x + width] for one in (source, mask))
                sample: dict[str, Any] = {"__key__": f"{index:012d}", "json": {"class": mark["category_id"]}}
                for view in ("key", "query"):
                    scan = cv2.imread(str(files[rng.integers(len(files))]))
                    pasted, where = paste(cv2.resize(scan, (SIZE, SIZE), interpolation=cv2.INTER_AREA), cut, alpha, rng)
                    sample[f"{view}.jpg"] = cv2.imencode(".jpg", pasted, JPEG)[1].tobytes()
                    sample[f"{view}.png"] = cv2.imencode(".png", where)[1].tobytes()
                sink.write(sample)

    return timed(loop, LOOP)


def paste(canvas: Any, cut: Any, alpha: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """A canvas with a cut-out, BGR and 0/1, pasted turned and at most half its size; and where."""
    scale = rng.uniform(0.2, 0.5) * SIZE / max(cut.shape[:2])
    side = int(np.ceil(scale * np.hypot(*cut.shape[:2])))
    turn = cv2.getRotationMatrix2D((cut.shape[1] / 2, cut.shape[0] / 2), rng.uniform(0, 360), scale)
    turn[:, 2] += (side / 2 - cut.shape[1] / 2, side / 2 - cut.shape[0] / 2)
    turned, weight = cv2.warpAffine(cut, turn, (side, side)), cv2.warpAffine(alpha * 255, turn, (side, side))
    y, x = rng.integers(0, SIZE - side, 2)
    window = slice(y, y + side), slice(x, x + side)
    share = 0.8 * weight[..., None] / 255.0
    canvas[window] = share * turned + (1 - share) * canvas[window]
    where = np.zeros((SIZE, SIZE), np.uint8)
    where[window] = weight
    return canvas, where


def online(scans: Path) -> Cost:
    """Copy-paste while training, InsLoc's way: a crop of one scan, resized to a box, on another, for each view."""
    rng = np.random.default_rng(0)
    files = scan_files(scans)

    def crop(scan: Any, area: float, aspect: float) -> Any:
        height, width = scan.shape[:2]
        h, w = (area * height * width / aspect) ** 0.5, (area * height * width * aspect) ** 0.5
        h, w = min(int(h), height), min(int(w), width)
        y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        return scan[y : y + h, x : x + w]

    def loop() -> None:
        for _ in range(2 * LOOP):
            scan, other = (cv2.imread(str(files[rng.integers(len(files))])) for _ in range(2))
            below = cv2.resize(crop(other, rng.uniform(0.2, 1), rng.uniform(0.5, 2)), (SIZE, SIZE))
            w, h = rng.integers(SIZE // 2, SIZE, 2).tolist()
            y, x = rng.integers(0, SIZE - h), rng.integers(0, SIZE - w)
            below[y : y + h, x : x + w] = cv2.resize(crop(scan, rng.uniform(0.2, 1), rng.uniform(0.5, 2)), (w, h))

    return timed(loop, LOOP)


def decoded(jpeg: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def scan_files(folder: Path) -> list[Path]:
    return [folder / name for name, _ in list_images(folder)]


def timed(loop: Callable[[], Any], pairs: int) -> Cost:
    cv2.setNumThreads(1)
    wall, cpu = time.perf_counter(), time.process_time()
    loop()
    return {"wall": (time.perf_counter() - wall) / pairs, "cpu": (time.process_time() - cpu) / pairs}


TASKS: dict[str, Callable[..., Cost]] = {"encode": encode, "read": read, "script": script, "online": online}


# Processes.


def whole(command: list[str], cache: Path) -> Cost:
    """Run a command to its end: what it cost, its children included."""
    env = {**os.environ, "SEGLOC_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=told)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        if process.returncode:
            raise click.ClickException(told.read().decode(errors="replace").strip())
    wall = time.perf_counter() - start
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024}


class Bench:
    """Sources, a scratch folder, and how to run things on them."""

    def __init__(self, scans: Path, objects: Path, work: Path) -> None:
        self.scans, self.objects, self.work = scans, objects, work
        self.cache, self.bare = work / "cache", work / "bare"
        self.many_scans = work / "scans"
        files = scan_files(scans)
        for number, file in enumerate(islice(cycle(files), max(RAW_SCANS, len(files)))):
            target = self.many_scans / f"{number // len(files):03d}" / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    @property
    def raw_pairs(self) -> int:
        return 2 * len(scan_files(self.many_scans))

    def build(self, out: str, n: int, blend: str, cache: Path, scans: Path, workers: int = 1) -> Cost:
        folder = self.work / out
        shutil.rmtree(folder, ignore_errors=True)
        sources = ["--objects", str(self.objects), "--backgrounds", str(scans)]
        options = [
            "--n",
            str(n),
            "--blend",
            blend,
            "--size",
            str(SIZE),
            "--workers",
            str(workers),
            "--shard-size",
            "250",
        ]
        command = [sys.executable, "-m", "segloc_synth", "build", *sources, *options, "--out", str(folder)]
        return whole(command, cache)

    def warm(self, blend: str, workers: int = 1) -> Cost:
        few = self.build(f"few-{blend}", FEW, blend, self.cache, self.scans, workers)
        many = self.build(f"many-{blend}", MANY, blend, self.cache, self.scans, workers)
        return per_pair(few, many, MANY - FEW) | {"rss": many["rss"], "rss_few": few["rss"]}

    def raw(self) -> Cost:
        cold = self.work / "cold"
        shutil.rmtree(cold, ignore_errors=True)
        shutil.copytree(self.bare, cold)  # palettes and objects, one pair's scans
        one = self.build("raw-one", 1, "dual-energy", cold, self.many_scans)
        return per_pair(
            one, self.build("raw", self.raw_pairs, "dual-energy", cold, self.many_scans), self.raw_pairs - 1
        )

    def task(self, name: str, *arguments: Path) -> Cost:
        command = [sys.executable, __file__, "--task", name, *map(str, arguments)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    def prepare(self) -> None:
        """Banks and the build that is encoded again."""
        self.build("raw-one", 1, "dual-energy", self.bare, self.many_scans)
        self.build("many-multiply", MANY, "multiply", self.cache, self.scans)

    def rows(self) -> Iterator[tuple[str, Callable[[], Cost]]]:
        """What is measured, by name."""
        multiply = self.work / "many-multiply"
        yield "E", lambda: self.task("encode", multiply)
        for blend in ("multiply", "alpha", "dual-energy", "hard"):
            yield blend, lambda blend=blend: self.warm(blend)  # type: ignore[misc]
        yield "raw", self.raw
        yield "two", lambda: self.warm("multiply", workers=2)
        annotations, images = annotated(self.objects)
        yield "script", lambda: self.task("script", self.scans, annotations, images, self.work)
        yield "online", lambda: self.task("online", self.scans)
        yield "read", lambda: self.task("read", multiply)


def per_pair(few: Cost, many: Cost, pairs: int) -> Cost:
    return {key: (many[key] - few[key]) / pairs for key in ("wall", "cpu")}


def annotated(objects: Path) -> tuple[Path, Path]:
    """(COCO json, folder of its pictures) of a labelled source, a folder."""
    for file in sorted(objects.rglob("*.json")):
        data = json.loads(file.read_bytes())
        if isinstance(data, dict) and data.get("annotations") and "test" not in file.name:
            name = data["images"][0]["file_name"]
            return file, Path(str(next(objects.rglob(name))).removesuffix(name))
    raise click.ClickException(f"{objects}: no COCO json in it, which the script needs")


def table(medians: dict[str, Cost]) -> list[tuple[str, str, str, str]]:
    """Rows of what, goal, by CPU, by wall."""

    def ratio(mine: str, other: str) -> list[str]:
        return [f"{medians[mine][key] / medians[other][key]:.2f}" for key in ("cpu", "wall")]

    rows = [("E, ms a pair", "", *(f"{1e3 * medians['E'][key]:.3f}" for key in ("cpu", "wall")))]
    for name, goal in (("multiply", 2), ("alpha", 2), ("dual-energy", 3), ("hard", 0), ("raw", 6)):
        label = "from raw, 4 uses a scan" if name == "raw" else f"warm, {name}"
        rows.append((f"{label}, in E", f"<= {goal}" if goal else "", *ratio(name, "E")))
    rows.append(("two processes, times one", ">= 1.85", "", ratio("multiply", "two")[1]))
    rss = medians["multiply"]
    rows.append(("memory of a worker, MB", "< 700", f"{rss['rss']:.0f}", f"{rss['rss_few']:.0f} at n = {FEW}"))
    rows.append(("script, in E", "", *ratio("script", "E")))
    rows.append(("script, times warm multiply", ">= 15", *ratio("script", "multiply")))
    rows.append(("script, times raw", ">= 5", *ratio("script", "raw")))
    for name, label in (("online", "copy-paste in the loop"), ("read", "reading our shards")):
        rows.append((f"{label}, ms a pair", "", *(f"{1e3 * medians[name][key]:.3f}" for key in ("cpu", "wall"))))
    rows.append(("copy-paste, times reading", "", *ratio("online", "read")))
    return rows


def default_sources(work: Path) -> tuple[Path, Path]:
    """(benign scans, objects): real ones where they are, else PhantomRay's of the same size."""
    real = Path(os.environ.get("SEGLOC_SCANS", ROOT / "../shared/data")).resolve()
    if (real / "sixray_negatives").is_dir():
        return real / "sixray_negatives", real / "sixray_masks"
    write_phantom(work / "phantom", 40, 70, 0, 1000, cores())
    return work / "phantom" / "sixray", work / "phantom" / "pidray"


@click.command()
@click.option(
    "--scans", type=click.Path(exists=True, path_type=Path), help="Benign scans.  [default: real or simulated]"
)
@click.option("--objects", type=click.Path(exists=True, path_type=Path), help="Folder with a COCO json.")
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Repetitions, taking turns.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Also write all measurements here.")
@click.option("--task", type=click.Choice(list(TASKS)), hidden=True)
@click.argument("arguments", nargs=-1, type=click.Path(path_type=Path))
def main(
    scans: Path | None,
    objects: Path | None,
    repeat: int,
    report: Path | None,
    task: str | None,
    arguments: tuple[Path, ...],
) -> None:
    """Measure what pairs of 256 px cost; prints goals and measurements."""
    if task:
        click.echo(json.dumps(TASKS[task](*arguments)))
        return
    if (scans is None) != (objects is None):
        raise click.UsageError("give both --scans and --objects, or neither")
    with tempfile.TemporaryDirectory(prefix="synth_speed-") as scratch:
        work = Path(scratch)
        default = (scans, objects) if scans and objects else default_sources(work)
        bench = Bench(*default, work)
        bench.prepare()
        rows = list(bench.rows())
        measured: dict[str, list[Cost]] = {name: [] for name, _ in rows}
        loads = [os.getloadavg()[0]]
        for _ in range(repeat):
            for name, run in rows:
                measured[name].append(run())
            loads.append(os.getloadavg()[0])
    medians = {
        name: {key: statistics.median(one[key] for one in costs) for key in costs[0]}
        for name, costs in measured.items()
    }
    told = table(medians)
    for what, goal, cpu, wall in [("", "goal", "CPU", "wall"), *told]:
        click.echo(f"{what:32}{goal:>10}{cpu:>10}{wall:>18}")
    click.echo(f"{cores()} cores, load average {min(loads):.1f} to {max(loads):.1f}, {default[0]}")
    if report:
        write_json(report, {"rows": told, "measured": measured, "load": loads, "cores": cores()})


if __name__ == "__main__":
    main()
