"""Beyond one undisturbed process: parts, pages, Ray, object stores, and processes that die."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import click
import numpy as np
import pytest
import ray
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.synth.conftest import COMMAND, Sources, build, build_args, content
from tests.synth.tasks import die, die_once, fail

from segloc_synth import engines
from segloc_synth.cli import cli
from segloc_synth.files import as_path, remove_left_overs, write_json
from segloc_synth.shards import manifest
from segloc_synth.shards.format import ShardReader
from segloc_synth.shards.manifest import Layout, add_totals, note, page_path

# Parts and pages


@given(st.integers(1, 400), st.integers(1, 9), st.integers(1, 30))
def test_parts_cut_the_shards_and_keep_pages_whole(samples: int, shard_size: int, parts: int) -> None:
    layout = Layout(samples, shard_size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "MAX_LISTED", 3)
        shares = [layout.share(part, parts) for part in range(1, parts + 1)]
        assert [number for share in shares for number in share] == list(range(layout.shards))
        assert sum(map(layout.count, range(layout.shards))) == samples
        assert (layout.pages == 0) == (layout.shards <= 3)
        if layout.pages:
            assert [number for page in range(layout.pages) for number in layout.page(page)] == list(
                range(layout.shards)
            )
            assert sum(map(layout.page_samples, range(layout.pages))) == samples
        if layout.pages >= parts:
            assert all(share.start % 3 == 0 for share in shares)


MET = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=8)


@given(st.lists(MET, max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_totals_do_not_depend_on_how_shards_are_grouped(shards: list[list[tuple[str, int]]], cuts: list[int]) -> None:
    totals = []
    for number, met in enumerate(shards):
        problems: manifest.Problems = {}
        for kind, name in met:
            note(problems, kind, str(name))
        sums = {"samples": number, "bytes": 10, "shards": 1, "per_class": {str(number % 3): number}}
        totals.append({**sums, "problems": problems})
    edges = [0, *sorted(cuts), len(totals)]
    pages = [add_totals(totals[a:b]) for a, b in pairwise(edges)]
    one, two = add_totals(totals), add_totals(pages)
    assert one == two
    assert list(one["problems"]) == list(two["problems"])
    assert all(len(set(entry["first"])) == len(entry["first"]) <= 5 for entry in one["problems"].values())


@pytest.mark.parametrize("listed", [10_000, 3])
def test_parts_in_any_order_make_the_same_folder(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: int
) -> None:
    monkeypatch.setattr(manifest, "MAX_LISTED", listed)
    whole = build(sources, tmp_path / "whole", "--n", 60)  # 8 shards: 3 pages of 3, 3, 2
    for parts in (2, 5) if listed == 3 else (5,):
        out = tmp_path / str(parts)
        for part in random.Random(parts).sample(range(1, parts + 1), parts):
            assert not (out / "manifest.json").exists()
            last = CliRunner().invoke(cli, build_args(sources, out, "--n", 60, "--part", f"{part}/{parts}"))
            assert last.exit_code == 0, last.output
            assert ("run the other parts" in last.output) == (not (out / "manifest.json").exists())
        assert content(out) == content(whole)
    grown = build(sources, build(sources, build(sources, tmp_path / "grown", "--n", 20), "--n", 43), "--n", 60)
    assert content(grown) == content(whole)
    assert len(ShardReader(whole)) == 60
    result = CliRunner().invoke(cli, build_args(sources, tmp_path / "bad", "--part", "3/2"))
    assert result.exit_code == 2
    assert "3/2 is not a share" in result.output


def test_a_build_of_pages_needs_no_listing_and_a_reader_opens_what_it_reads(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "MAX_LISTED", 3)
    out = tmp_path / "out"
    build(sources, out, "--n", 40)
    listed: list[Path] = []

    def recorded(original: Any) -> Any:
        return lambda path, *args: listed.append(path) or original(path, *args)

    for name in ("iterdir", "glob", "rglob"):
        monkeypatch.setattr(Path, name, recorded(getattr(Path, name)))
    build(sources, out, "--n", 60)
    assert listed
    assert out not in listed
    reader = ShardReader(out)
    assert reader[59].meta["index"] == 59
    assert len(reader._shards) == 1
    assert page_path(out, 2).exists()
    page_path(out, 1).write_bytes(page_path(out, 0).read_bytes())
    with pytest.raises(click.ClickException, match=r"shards-0001.jsonl: does not match the manifest; run .* --repair"):
        reader[30]


# Processes that die


@pytest.mark.parametrize("engine", ["local", "ray"])
@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_the_folder_is_the_same(
    sources: Sources, tmp_path: Path, engine: str
) -> None:
    args = ["--n", 1200, "--shard-size", 16, "--workers", 2, "--engine", engine]
    whole = content(build(sources, tmp_path / "whole", *args[:4]))
    chance = random.Random(engine)
    start = 4.0 if engine == "ray" else 0.8
    all_kills = 0
    for trial in range(2 if engine == "ray" else 6):
        out = tmp_path / f"a folder of trial {trial}"
        for kills in range(20):
            command = [*COMMAND, *build_args(sources, out, *args)]
            process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
            try:
                _, message = process.communicate(timeout=start + chance.uniform(0, 2) * (1 + kills / 4))
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                all_kills += 1
        assert process.returncode == 0, message
        assert content(out) == whole, f"after {kills} kills"
    assert all_kills > 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One small local Ray for all tests here."""
    engines._import_ray()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.mark.parametrize("engine", ["run_local", "run_ray"])
def test_a_killed_worker_is_survived_and_a_deadly_task_is_not_tried_for_ever(
    tmp_path: Path, cluster: None, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "RETRIES", 1)
    run = getattr(engines, engine)
    results = list(run(die_once, ((tmp_path, number) for number in range(20)), 2))
    assert [number for number, _ in results] == list(range(20))
    assert os.getpid() not in {pid for _, pid in results}
    assert (tmp_path / "died").exists()
    assert all((tmp_path / str(number)).read_bytes() == b"half whole" for number in range(20))
    remove_left_overs(tmp_path)
    assert not (tmp_path / ".tmp").exists()
    with pytest.raises(click.ClickException, match=r"died 2 times|lost a task's worker 2 times") as caught:
        list(run(die, range(4), 2))
    assert "\n" not in caught.value.message
    with pytest.raises(FileNotFoundError) as missing:
        list(run(fail, [tmp_path] * 3, 2))
    assert missing.value.filename == str(tmp_path / "gone.jpg")


def test_temporaries_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "3600"])
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = os.uname().nodename
    scratch = tmp_path / ".tmp"
    (scratch / f"folder~{host}~{dead.pid}" / "deep").mkdir(parents=True)
    for name in (f"a~{host}~{dead.pid}", f"b~{host}~{child.pid}", "c~elsewhere~7", "d~elsewhere~7"):
        (scratch / name).write_bytes(b"x")
    os.utime(scratch / "d~elsewhere~7", (time.time() - 7200,) * 2)
    remove_left_overs(tmp_path)
    assert sorted(path.name for path in scratch.iterdir()) == [f"b~{host}~{child.pid}", "c~elsewhere~7"]
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for, and as good as dead
    (scratch / "c~elsewhere~7").unlink()
    remove_left_overs(tmp_path)
    assert not scratch.exists()
    child.wait()


def test_ray_makes_the_same_bytes_though_a_worker_is_killed_while_it_writes(
    sources: Sources, tmp_path: Path, cluster: None
) -> None:
    whole = build(sources, tmp_path / "whole", "--n", 400, "--shard-size", 100)
    out = tmp_path / "out"
    code = (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "while True:\n  for path in Path(sys.argv[1]).glob('.tmp/*.tar~*'):\n"
        "    os.kill(int(path.name.rpartition('~')[2]), signal.SIGKILL); print(path.name); sys.exit()\n"
        "  time.sleep(0.002)\n"
    )
    killer = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True)
    build(sources, out, "--n", 400, "--shard-size", 100, "--engine", "ray", "--workers", 2)
    assert "segloc-" in killer.communicate(timeout=600)[0], "no worker was killed"
    assert content(out) == content(whole)


@pytest.mark.slow
def test_ctrl_c_on_ray_leaves_nothing_half_done(sources: Sources, tmp_path: Path) -> None:
    args = ["--n", 4000, "--shard-size", 100, "--workers", 2]
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, *build_args(sources, out, *args, "--engine", "ray")], stderr=subprocess.PIPE, text=True
    )
    while len(list(out.glob("segloc-*.json"))) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=600)
    assert process.returncode == 130, message
    assert message.splitlines()[-1] == "Interrupted."
    assert not (out / "manifest.json").exists(), "it was over before the signal came"
    assert not (out / ".tmp").exists()
    build(sources, out, *args)
    assert content(out) == content(build(sources, tmp_path / "undisturbed", *args))


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, sources: Sources) -> None:
    result = subprocess.run(
        [*COMMAND, *build_args(sources, tmp_path / "out", "--n", 9, "--engine", "ray")],
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "Error: no Ray cluster at 127.0.0.1:9: [Errno 111] Connection refused" in result.stderr.splitlines()


def test_without_ray_one_line_says_what_to_install(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(cli, build_args(sources, tmp_path / "out", "--n", 9, "--engine", "ray"))
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "Error: --engine ray needs Ray: pip install 'segloc[ray]'"


# Object stores


@pytest.fixture(scope="module")
def bucket(s3: Any) -> str:
    """URL of an empty bucket."""
    s3.create_bucket(Bucket="pairs")
    return "s3://pairs"


def keys_of(url: str) -> list[str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    found = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")
    return [entry["Key"] for entry in found.get("Contents", [])]


def stored(url: str) -> dict[str, str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    return {
        key.removeprefix(f"{prefix}/"): hashlib.sha256(
            client.get_object(Bucket=bucket, Key=key)["Body"].read()
        ).hexdigest()
        for key in keys_of(url)
    }


def test_a_build_in_a_store_holds_the_same_bytes_and_is_read_by_ranges(
    sources: Sources, tmp_path: Path, bucket: str
) -> None:
    whole = build(sources, tmp_path / "whole", "--n", 40)
    out = f"{bucket}/deep/run"
    for part in (2, 1):
        build(sources, out, "--n", 16, "--part", f"{part}/2")
    build(sources, out, "--n", 40, "--workers", 2)  # extends
    assert stored(out) == content(whole)
    near, far = ShardReader(whole), ShardReader(as_path(out))
    assert all(near[place] == far[place] for place in range(0, 40, 3))
    assert np.array_equal(near.labels, far.labels)
    boto3.client("s3").put_object(Bucket="pairs", Key="deep/run/segloc-00000001.tar", Body=b"short")
    with pytest.raises(click.ClickException, match=r"s3://pairs/deep/run/segloc-00000001.tar: has 5 bytes"):
        ShardReader(as_path(out))
    build(sources, out, "--n", 40)
    assert stored(out) == content(whole)
    other = CliRunner().invoke(cli, build_args(sources, out, "--n", 40, "--seed", 4))
    assert "another config (seed 0 instead of 4)" in other.output


def test_a_build_into_a_store_killed_and_run_again(sources: Sources, tmp_path: Path, bucket: str) -> None:
    args = ["--n", 70, "--shard-size", 10, "--workers", 2]
    whole = build(sources, tmp_path / "whole", *args)
    out = f"{bucket}/killed"
    process = subprocess.Popen(
        [*COMMAND, *build_args(sources, out, *args)], start_new_session=True, stderr=subprocess.DEVNULL
    )
    while sum(key.endswith(".json") for key in keys_of(out)) < 3 and process.poll() is None:
        time.sleep(0.1)  # the store answers from this process
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert "killed/manifest.json" not in keys_of(out)
    boto3.client("s3").put_object(Bucket="pairs", Key=f"killed/.tmp/x~{os.uname().nodename}~{process.pid}", Body=b"x")
    build(sources, out, *args)
    assert stored(out) == content(whole)


def test_a_store_that_keeps_something_else_is_noticed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_path(f"{bucket}/checked/file.json")
    write_json(path, {"whole": True})
    fs = path.fs  # type: ignore[attr-defined]
    info = fs.info

    def tell(**other: object) -> None:
        """What the store tells of the next object only."""
        monkeypatch.setattr(fs, "info", lambda *args: (monkeypatch.undo(), {**info(*args), **other})[1])

    tell(ETag='"0-1"')  # that of an object sent in parts is no MD5: it is read back
    write_json(path, {"whole": 1})
    tell(size=1)
    with pytest.raises(OSError, match="arrived in the store") as caught:
        write_json(path, {"whole": 2})
    assert caught.value.filename.endswith("file.json")
    assert path.read_bytes() == b'{\n "whole": 1\n}\n'
    assert keys_of(f"{bucket}/checked") == ["checked/file.json"]


def test_a_store_that_nobody_knows_is_wrong_usage(sources: Sources) -> None:
    result = CliRunner().invoke(cli, build_args(sources, "nonsense://x/y", "--n", 9))
    assert result.exit_code == 2
    assert "nonsense://x/y: Unsupported filesystem" in result.output


def test_a_store_that_does_not_answer_is_one_line(sources: Sources, tmp_path: Path, bucket: str) -> None:
    away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    for env, out in (({}, "s3://no-such-bucket/x"), (away, f"{bucket}/x")):
        result = subprocess.run(
            [*COMMAND, *build_args(sources, out, "--n", 9)],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 1
        assert len([line for line in result.stderr.splitlines() if "building" not in line]) == 1, result.stderr


def test_many_writers_share_a_folder(tmp_path: Path) -> None:
    """None is disturbed by another that removes the empty folder of temporaries."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_json(tmp_path / f"{number}.json", number), range(500)))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{number}.json" for number in range(500))
