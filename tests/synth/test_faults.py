"""What the world does to a build: full disks, forbidden folders, files that vanish or change, all told in one line."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tests.conftest import write_benign, write_labelled
from tests.synth.conftest import COMMAND, Sources, build, build_args, content

from segloc_synth.builds import build as building
from segloc_synth.builds import pipeline
from segloc_synth.cli import cli
from segloc_synth.compose import sample
from segloc_synth.console import fault
from segloc_synth.look import card
from segloc_synth.shards import manifest
from segloc_synth.shards.format import ShardReader


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("building shards")]


# verify


def cut(out: Path) -> set[str]:
    os.truncate(out / "segloc-00000001.tar", 3 * 512)
    return {"segloc-00000001.tar: has 1536 bytes, the manifest says", "segloc-00000001.json: does not agree"}


def alter(out: Path) -> set[str]:
    path = out / "segloc-00000004.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return {"segloc-00000004.tar: was altered", "segloc-00000004.json: does not agree"}


def remove(out: Path) -> set[str]:
    (out / "segloc-00000000.tar").unlink()
    (out / "segloc-00000007.json").unlink()
    return {"segloc-00000000.tar: is missing", "segloc-00000007.json: is missing"}


def lie(out: Path) -> set[str]:
    """Sidecars that are valid but say something else: another offset, another config."""
    for number, key, value in ((2, "offsets", None), (3, "config_hash", "f" * 64)):
        path = out / f"segloc-{number:08d}.json"
        side = json.loads(path.read_text())
        side[key] = value or [[offset + 512 for offset in row] for row in side[key]]
        path.write_text(json.dumps(side) + "\n")
    return {"segloc-00000002.json: does not agree with its shard", "segloc-00000003.json: is of another config"}


def total(out: Path) -> set[str]:
    content = json.loads((out / "manifest.json").read_text())
    content["totals"]["per_class"]["11"] += 1
    (out / "manifest.json").write_text(json.dumps(content))
    return {"manifest.json: its totals are not those of the sidecars"}


def config(out: Path) -> set[str]:
    (out / "config.json").write_text("{")
    return {"config.json: holds no config"}


@pytest.fixture(scope="module", params=[10_000, 3])
def good(request: pytest.FixtureRequest, sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A build that is in order, with and without pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "MAX_LISTED", request.param)
        out = build(sources, tmp_path_factory.mktemp("good") / "out", "--n", 60)
        found = run("verify", out, "--workers", 1)
        assert (found.exit_code, found.stdout) == (0, "")
        yield out


@pytest.mark.parametrize("damage", [cut, alter, remove, lie, total, config])
def test_verify_names_damage_and_repairs_just_that(
    sources: Sources, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: object
) -> None:
    out = shutil.copytree(good, tmp_path / "out")
    whole = content(out)
    expected = damage(out)  # type: ignore[operator]
    damaged = content(out)
    found = run("verify", out, "--workers", 1)
    assert found.exit_code == 1
    told = [line.removeprefix(f"{out}/") for line in found.stdout.splitlines()]
    assert all(any(line.startswith(words) for line in told) for words in expected), told
    assert len(told) == len(expected)
    assert content(out) == damaged
    made: list[int] = []
    write = building.write_shard
    monkeypatch.setattr(building, "write_shard", lambda path, *args: made.append(path.name) or write(path, *args))
    mended = run(
        "verify", out, "--workers", 1, "--json", "--repair", "--objects", sources[0], "--backgrounds", sources[1]
    )
    assert mended.exit_code == 0, mended.output
    wrong = json.loads(mended.stdout)["wrong"]
    assert len(wrong) == len(expected)
    assert sorted(set(made)) == sorted(
        {f"segloc-{finding['shard']:08d}.tar" for finding in wrong if finding["shard"] is not None}
    )
    assert content(out) == whole
    assert run("verify", out, "--workers", 1).exit_code == 0


def test_verify_names_a_damaged_page_and_makes_it_anew(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "MAX_LISTED", 3)
    out = build(sources, tmp_path / "out", "--n", 60)
    whole = content(out)
    (out / "shards-0000.jsonl").write_text((out / "shards-0001.jsonl").read_text())
    (out / "shards-0001.json").unlink()
    marker = json.loads((out / "shards-0002.json").read_text())
    marker["totals"]["bytes"] += 1
    (out / "shards-0002.json").write_text(json.dumps(marker))
    found = run("verify", out, "--workers", 1)
    assert [line.removeprefix(f"{out}/") for line in found.stdout.splitlines()] == [
        "shards-0000.jsonl: was altered: its sha256 is not the manifest's",
        "shards-0001.json: is missing or not valid JSON",
        "shards-0002.json: does not agree with the sidecars of its shards",
    ]
    args = ["--workers", 1, "--repair", "--objects", sources[0], "--backgrounds", sources[1]]
    assert run("verify", out, *args).exit_code == 0
    assert content(out) == whole


def test_repair_refuses_other_sources_and_verify_an_unfinished_build(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = build(sources, tmp_path / "out", "--n", 20)
    (out / "segloc-00000001.tar").unlink()
    before = content(out)
    monkeypatch.setattr(pipeline, "read_sources", lambda **_: pytest.fail("sources were read"))
    bare = run("verify", out, "--workers", 1, "--repair")
    assert bare.exit_code == 1 and "--objects OBJECTS" in bare.output and "; --repair needs the --obj" in bare.output
    monkeypatch.undo()
    other = write_benign(tmp_path / "other", 3)
    found = run("verify", out, "--workers", 1, "--repair", "--objects", sources[0], "--backgrounds", other)
    assert found.exit_code == 1
    assert f"Error: {other}: is not the source that {out} was built from" in found.output
    assert content(out) == before
    data = json.loads(write_labelled(tmp_path / "mixed").read_text())
    data["annotations"][0] |= {"segmentation": [], "bbox": [18, 18, 54, 18]}
    (tmp_path / "mixed" / "set.json").write_text(json.dumps(data))
    boxes = build((tmp_path / "mixed", sources[1]), tmp_path / "boxes", "--n", 20, "--masks-from-boxes")
    whole = content(boxes)
    (boxes / "segloc-00000001.tar").unlink()
    args = ["--workers", 1, "--repair", "--objects", tmp_path / "mixed", "--backgrounds", sources[1]]
    told = run("verify", boxes, *args).output.splitlines()[-1]
    assert f"Error: {tmp_path / 'mixed'}: is not the source" in told
    assert "--classes, --images, --masks-from-boxes and --min-trust" in told
    assert run("verify", boxes, *args, "--masks-from-boxes").exit_code == 0
    assert content(boxes) == whole
    short = build(sources, tmp_path / "short", "--n", 12)  # as where an extension to 32 was interrupted
    longer = build(sources, tmp_path / "longer", "--n", 32)
    for name in ("segloc-00000001.tar", "segloc-00000001.json", "segloc-00000003.tar", "segloc-00000003.json"):
        shutil.copy(longer / name, short / name)
    before = content(short)
    found = run("verify", short, "--workers", 1, "--repair", "--objects", sources[0], "--backgrounds", sources[1])
    assert found.exit_code == 1 and "run the same segloc-synth build again with its larger --n" in found.output
    assert content(short) == before
    (out / "manifest.json").unlink()
    unfinished = run("verify", out)
    assert unfinished.exit_code == 1
    assert "no manifest.json, so no finished build; run segloc-synth build" in unfinished.output


def test_a_reader_refuses_a_sidecar_of_another_config(sources: Sources, tmp_path: Path) -> None:
    out = build(sources, tmp_path / "out", "--n", 20)
    lie_about = out / "segloc-00000001.json"
    side = json.loads(lie_about.read_text())
    lie_about.write_text(json.dumps({**side, "config_hash": "0" * 64}))
    with pytest.raises(
        click.ClickException, match=r"segloc-00000001.json: does not match the manifest; run segloc-synth verify"
    ):
        ShardReader(out)


# Faults while building


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB: a mount where that is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "none", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_one_line_and_a_rerun_finishes(sources: Sources, tmp_path: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    args = ["--n", 160, "--shard-size", 20, "--workers", 2]
    command = [*COMMAND, *build_args(sources, out, *args)]
    full = subprocess.run(command, capture_output=True, text=True, check=False)
    assert full.returncode == 3, full.stderr
    (line,) = lines(full.stderr)
    assert line.startswith(f"Error: {out}/segloc-")
    assert "No space left on device; the shards that are done stay, the same command finishes the rest" in line
    assert not (out / ".tmp").exists()
    done = content(out)
    assert sum(name.endswith(".tar") for name in done) > 0
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    build(sources, out, *args)
    assert content(out) == content(build(sources, tmp_path / "undisturbed", *args))
    assert {name: content(out)[name] for name in done} == done


def test_a_file_size_limit_is_told_as_a_full_disk_is(sources: Sources, tmp_path: Path) -> None:
    """The same where no mount is allowed: a write that fails in a worker, with its file's name."""
    out = tmp_path / "out"
    code = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000)); from segloc_synth.cli import main; main()"
    build(sources, tmp_path / "warm", "--n", 1)  # the bank is prepared without the limit
    args = build_args(sources, out, "--n", 160, "--shard-size", 20)[0:]
    failed = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert lines(failed.stderr) == [f"Error: {out}/segloc-00000000.tar: File too large"]
    assert sorted(path.name for path in out.iterdir()) == ["config.json"]


def test_a_folder_that_may_not_be_written_is_one_line(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = subprocess.run(
        [*COMMAND, *build_args(sources, tmp_path / "file" / "out", "--n", 9)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    (line,) = lines(found.stderr)
    assert "Not a directory" in line or "is not an empty folder" in line
    out = build(sources, tmp_path / "out", "--n", 20)
    (out / "segloc-00000003.tar").mkdir()  # the name of a shard is taken
    found = subprocess.run(
        [*COMMAND, *build_args(sources, out, "--n", 60)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 3
    (line,) = lines(found.stderr)
    assert "Is a directory" in line
    assert str(out) in line


@pytest.mark.parametrize(
    ("file", "opening"),  # colours learnt, segments cut; colours learnt, look-alikes cut, scan prepared
    [
        ("images/scan 3 (a).png", 0),
        pytest.param("images/scan 3 (a).png", 1, marks=pytest.mark.slow),
        *(pytest.param("N0000001.png", n, marks=pytest.mark.slow) for n in range(2)),
        ("N0000001.png", 2),
    ],
)
def test_a_passing_loss_of_access_leaves_nothing_in_the_bank(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, opening: int
) -> None:
    lost = sources["/" not in file] / file
    args = ["--n", 8, "--distractors", 1]
    whole = content(build(sources, tmp_path / "whole", *args))
    monkeypatch.setenv("SEGLOC_CACHE", str(tmp_path / "cache"))
    opened: list[Path] = []
    open_picture = Image.open

    def refusing(path: Path, *more: object) -> Image.Image:
        if path == lost:
            opened.append(path)
            if len(opened) == opening + 1:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return open_picture(path, *more)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", refusing)
        stopped = run(*build_args(sources, out, *args))
        assert isinstance(stopped.exception, OSError), stopped.output
        assert fault(stopped.exception) == f"{lost}: may not be read"
    assert content(build(sources, out, *args)) == whole


def test_a_source_file_that_vanishes_is_one_line_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = write_labelled(tmp_path / "labelled").parent, write_benign(tmp_path / "benign", 40)
    monkeypatch.setenv("SEGLOC_CACHE", str(tmp_path / "cache"))  # with a bank that is still empty
    make = sample.make_sample

    def vanishing(materials: sample.Materials, index: int) -> object:
        if index == 24:  # scans that no earlier sample needed are not in the bank yet
            sources[1].rename(tmp_path / "moved")
            sources[1].mkdir()
        return make(materials, index)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(building, "make_sample", vanishing)
        stopped = run(*build_args(sources, out, "--n", 60))
    assert stopped.exit_code == 3
    (line,) = [line for line in stopped.output.splitlines() if line.startswith("Error: ")]
    assert f"Error: {sources[1]}/N00000" in line
    assert ".png: vanished from its source; the shards that are done stay" in line
    assert len(list(out.glob("*.tar"))) == 3
    sources[1].rmdir()
    (tmp_path / "moved").rename(sources[1])
    build(sources, out, "--n", 60)
    monkeypatch.setenv("SEGLOC_CACHE", str(tmp_path / "another cache"))
    whole = build(sources, tmp_path / "whole", "--n", 60)
    assert content(out) == content(whole)
    with monkeypatch.context() as patch:  # after the shards
        patch.setattr(card, "write_card", lambda *args: Path("/nowhere/file").read_bytes())
        assert run(*build_args(sources, tmp_path / "late", "--n", 20)).exit_code == 3
    assert content(build(sources, tmp_path / "late", "--n", 60)) == content(whole)
