"""A manifest that is damaged, or says what the sidecars do not: readers say so in one line, verify makes it anew."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.synth.test_scale import Sources, build, content

from segloc_synth.cli import cli

Change = Callable[[dict[str, Any]], Any]
NONE = object()
KNIFE, RING = {"id": 11, "name": "Knife"}, {"id": 13, "name": "Ring"}


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def good(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(sources, tmp_path_factory.mktemp("good") / "out", "--n", 20)


def put(*path: Any, value: Any = NONE) -> Change:
    """Set what lies at `path` of a manifest, or take it out."""

    def change(manifest: Any) -> None:
        for part in path[:-1]:
            manifest = manifest[part]
        if value is NONE:
            del manifest[path[-1]]
        else:
            manifest[path[-1]] = value

    return change


def damaged(good: Path, out: Path, change: Change) -> Path:
    shutil.copytree(good, out)
    manifest = json.loads((out / "manifest.json").read_text())
    change(manifest)
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


CLASSES, TOTALS, LIST = "its classes are missing", "its totals are missing", "its shardlist is no list of shards"
UNREADABLE = {
    "no classes": (put("classes"), CLASSES),
    "an empty list of classes": (put("classes", value=[]), CLASSES),
    "a nameless class": (put("classes", 0, "name", value=None), CLASSES),
    "a class twice": (put("classes", value=[KNIFE, RING, KNIFE]), CLASSES),
    "no totals": (put("totals"), TOTALS),
    "null totals": (put("totals", value=None), TOTALS),
    "a number of samples in words": (put("totals", "samples", value="20"), TOTALS),
    "a negative number of samples": (put("totals", "samples", value=-1), TOTALS),
    "no list": (put("shardlist"), LIST),
    "a null list": (put("shardlist", value=None), LIST),
    "text for a list": (put("shardlist", value="segloc-00000000.tar"), LIST),
    "a list of nulls": (put("shardlist", value=[None] * 3), LIST),
    "a shard elsewhere": (put("shardlist", 0, "url", value="../../etc/passwd"), LIST),
    "a null digest": (put("shardlist", 1, "sha256", value=None), LIST),
    "null pages": (put("pages", value=None), "its pages are damaged"),
    "no config_hash": (put("config_hash"), "says no config_hash"),
}
UNTRUE = {
    "a class renamed": (put("classes", 0, "name", value="Gun"), "its class 11 is 'Gun', in the samples 'Knife'"),
    "a class more": (put("classes", value=[KNIFE, {"id": 12, "name": "Gun"}, RING]), "its classes are not those of"),
    "classes in another order": (put("classes", value=[RING, KNIFE]), "its classes are not those of its totals"),
    "a shard too few": (put("shardlist", value=[]), "its shardlist is not that of the sidecars"),
    "too few samples": (put("totals", "samples", value=19), "its totals are not those of the sidecars"),
    "samples without end": (put("totals", "samples", value=10**12), "its totals are not those of the sidecars"),
    "no version": (put("wids_version"), "its wids_version is not 1"),
    "no sources": (put("sources"), "its sources are not those of its config"),
    "no command": (put("command"), "says no command"),
    "null licences": (put("licences", value=None), "says no licences"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_reader_names_a_manifest_that_it_cannot_use(good: Path, tmp_path: Path, kind: str) -> None:
    change, words = UNREADABLE[kind]
    out = damaged(good, tmp_path / "out", change)
    result = run("preview", out)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith(f"Error: {out / 'manifest.json'}: {words}")
    assert line.endswith(f"; run segloc-synth verify {out} --repair")


@pytest.mark.parametrize("kind", [*UNREADABLE, *UNTRUE])
def test_verify_names_what_is_wrong_with_a_manifest(good: Path, tmp_path: Path, kind: str) -> None:
    change, words = {**UNREADABLE, **UNTRUE}[kind]
    out = damaged(good, tmp_path / "out", change)
    found = run("verify", out, "--workers", 1)
    assert isinstance(found.exception, SystemExit), found.exception
    assert found.exit_code == 1
    told = [line.removeprefix(f"{out}/manifest.json: ") for line in found.stdout.splitlines()]
    assert any(line.startswith(words) for line in told), told


@pytest.mark.parametrize("kind", ["no classes", "null pages", "a shard too few", "samples without end", "no command"])
def test_repair_makes_a_manifest_anew(sources: Sources, good: Path, tmp_path: Path, kind: str) -> None:
    out = damaged(good, tmp_path / "out", {**UNREADABLE, **UNTRUE}[kind][0])
    mended = run("verify", out, "--workers", 1, "--repair", "--objects", sources[0], "--backgrounds", sources[1])
    assert mended.exit_code == 0, mended.output
    assert run("verify", out, "--workers", 1).stdout == ""
    if kind == "no command":  # the user's own words are lost
        build(sources, out, "--n", 20)
    assert content(out) == content(good)


def test_a_manifest_that_may_not_be_read_need_not_be_made_anew(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    told = f"Error: {good / 'manifest.json'}: cannot be read (Permission denied); make it readable\n"
    assert run("verify", good).output == told
