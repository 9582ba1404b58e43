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

import contextlib
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

import click
from synth_tasks import scan_files

from segloc_synth.console import cores
from segloc_synth.files import write_json
from segloc_synth.phantom import write_phantom

SIZE = 256  # pixels
FEW, MANY = 500, 2500  # pairs of a build
RAW_SCANS = 600  # scans of the build from raw, at least
ROOT = Path(__file__).resolve().parent.parent
Cost = dict[str, float]  # wall and cpu seconds; MB of memory: rss of any of its processes at most, worker of a child


def whole(command: list[str], cache: Path) -> Cost:
    """Run a command to its end: what it cost, its children included."""
    env = {**os.environ, "SEGLOC_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=told)
        worker = 0.0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            worker = max(worker, most_of_a_child(process.pid))
            time.sleep(0.02)
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        if process.returncode:
            raise click.ClickException(told.read().decode(errors="replace").strip())
    wall = time.perf_counter() - start
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024, "worker": worker}


def most_of_a_child(pid: int) -> float:
    """MB that a child process, of those alive now, has held at most; 0 without children or /proc."""
    most = [0]
    for child in " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split():
        with contextlib.suppress(OSError, IndexError):  # it may end any moment
            most.append(int(Path(f"/proc/{child}/status").read_text().split("VmHWM:")[1].split()[0]))
    return max(most) / 1024


def one_build(n: int, work: Path) -> str:
    """What a build of `n` pairs of the simulated default costs on all cores, its scans made before."""
    command = [sys.executable, "-m", "segloc_synth", "build", "--size", str(SIZE), "--workers", str(cores())]
    whole([*command, "--n", "1", "--out", str(work / "first")], work / "scans")
    cold = work / "cold"
    shutil.copytree(work / "scans", cold, ignore=lambda folder, names: [x for x in names if x == "bank"])
    cost = whole([*command, "--n", str(n), "--out", str(work / "full")], cold)
    size = sum(path.stat().st_size for path in (work / "full").iterdir())
    return (
        f"{n} pairs: {cost['wall']:.0f} s on {cores()} cores, {1e3 * cost['cpu'] / n:.2f} ms of CPU a pair, "
        f"{size / 1e9:.2f} GB; {cost['rss']:.0f} MB in the largest process, {cost['worker']:.0f} MB in a worker"
    )


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
        command = [sys.executable, str(ROOT / "benchmarks/synth_tasks.py"), name, *map(str, arguments)]
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
@click.option(
    "--full", type=click.IntRange(min=1), metavar="N", help="Instead: one build of N pairs, nothing prepared."
)
def main(
    scans: Path | None,
    objects: Path | None,
    repeat: int,
    report: Path | None,
    full: int | None,
) -> None:
    """Measure what pairs of 256 px cost; prints goals and measurements."""
    if (scans is None) != (objects is None):
        raise click.UsageError("give both --scans and --objects, or neither")
    with tempfile.TemporaryDirectory(prefix="synth_speed-") as scratch:
        work = Path(scratch)
        if full:
            click.echo(one_build(full, work))
            return
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
