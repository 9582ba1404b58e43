"""Odd machines: no name, no home, closed streams, a cache that is full or may not be written."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from segloc_synth.bank import prepare
from segloc_synth.cli import cli
from segloc_synth.console import fault
from segloc_synth.files import cache_dir, new_folder
from segloc_train.data.cache import ShardCache
from tests.synth.conftest import Sources, build, build_args, content
from tests.train.conftest import make_shards

REMEDY = "; name another folder for the cache by $SEGLOC_CACHE"
TRAIN = ["--arch", "resnet18", "--width", "64", "--batch-size", "16", "--epochs", "1", "--workers", "0"]
NOBODY = """
import pwd
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
"""
DETECTOR = """
import json
from pathlib import Path
from segloc_eval.mm.model import build_detector
from segloc_eval.recipe import QUICK
from segloc_train.model.checkpoint import save_tensors
recipe = QUICK.changed(arch="resnet18", width=16, size=64)
save_tensors(Path("detector.pth"), build_detector(recipe, "faster-rcnn", 1, 0).state_dict())
about = {"detector": "faster-rcnn", "recipe": recipe.as_dict(), "classes": [{"id": 1, "name": "Gun"}]}
Path("detector.json").write_text(json.dumps(about))
"""


def run(
    stage: str, *args: object, before: str = "", closed: str = "", cwd: Path | None = None, **env: str | None
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program, after the Python code `before`.

    closed: redirections of a shell. env: changes to the environment, None to leave a variable out.
    """
    script = f"{before}\nfrom segloc_{stage}.cli import main\nmain()"
    changed = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **env}
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script, *map(str, args)]
    left = {name: value for name, value in changed.items() if value is not None}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=left, cwd=cwd)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def run_nobody(stage: str, *args: object) -> tuple[int, str, str]:
    """run() for a user id without an entry in /etc/passwd, who has neither name nor home."""
    names = ("USER", "LOGNAME", "LNAME", "USERNAME", "HOME", "SEGLOC_CACHE", "XDG_CACHE_HOME")
    return run(stage, *args, before=NOBODY, **dict.fromkeys(names))


def test_a_user_without_a_name_and_a_home_trains_and_evaluates(tmp_path: Path) -> None:
    pairs = make_shards(tmp_path / "pairs", 64)
    code, out, err = run_nobody("train", "--shards", pairs, "--summary", *TRAIN)
    assert (code, "resnet18" in out) == (0, True), err
    code, out, err = run_nobody("eval", "predict", "--ckpt", tmp_path / "no.pth", tmp_path, "--out", tmp_path / "out")
    assert (code, err.splitlines()[-1]) == (1, f"Error: {tmp_path}/no.pth: no such file"), err


def test_without_a_home_the_cache_wants_a_name_and_the_rest_works(sources: Sources, tmp_path: Path) -> None:
    told = "Error: this user has no home folder; name a folder for the cache by $SEGLOC_CACHE\n"
    assert run_nobody("synth", *build_args(sources, tmp_path / "out")) == (1, "", told)
    code, out, err = run_nobody("synth", "check", sources[0] / "set.json", "--workers", 1)
    assert (code, "no problem" in out) == (0, True), err


def test_a_home_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGLOC_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(click.ClickException, match=r"^\$SEGLOC_CACHE is ~nobody-of-that-name/cache, .* no home"):
        cache_dir()


def test_with_closed_streams_pairs_are_made(sources: Sources, tmp_path: Path) -> None:
    """Also by worker processes, whose streams are the same; nothing that is printed gets into a file."""
    labelled = sources[0] / "set.json"
    for closed, heard in (("<&-", True), (">&-", False), ("2>&-", True)):
        code, out, _ = run("synth", "check", labelled, "--workers", 1, closed=closed)
        assert code == 0 and ("no problem" in out) == heard, closed
    args = build_args(sources, tmp_path / "out", "--workers", 2)
    assert run("synth", *args, closed="<&- >&- 2>&-", SEGLOC_CACHE=str(tmp_path / "cache"))[0] == 0
    made, whole = content(tmp_path / "out"), content(build(sources, tmp_path / "whole"))
    with_command = {"README.md", "manifest.json"}
    assert made.keys() == whole.keys()
    assert all(made[name] == whole[name] for name in made if name not in with_command)


def test_with_closed_streams_a_backbone_is_trained_and_a_detector_looks(sources: Sources, tmp_path: Path) -> None:
    closed = "<&- >&- 2>&-"
    pairs = make_shards(tmp_path / "pairs", 48)
    assert run("train", "--shards", pairs, "--out", tmp_path / "run", *TRAIN, closed=closed)[0] == 0
    assert (tmp_path / "run" / "backbone.pth").is_file()
    args = ("predict", "--ckpt", tmp_path, sources[1], "--out", tmp_path / "found", "--device", "cpu")
    assert run("eval", *args, before=DETECTOR, closed=closed, cwd=tmp_path)[0] == 0
    assert len(list((tmp_path / "found" / "pictures").iterdir())) == 5


def told(sources: Sources, out: Path) -> str:
    """The line that a build ends with for what the machine does to it."""
    stopped = CliRunner().invoke(cli, build_args(sources, out))
    assert stopped.exit_code == 1 and isinstance(stopped.exception, OSError), stopped.output
    return fault(stopped.exception) or ""


def test_a_full_cache_is_told_with_its_path(sources: Sources, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))"
    cache = tmp_path / "cache"
    for args in (build_args(sources, tmp_path / "out"), ["build", "--n", 4, "--out", tmp_path / "out"]):
        code, out, err = run("synth", *args, before=limit, SEGLOC_CACHE=str(cache))
        line = err.splitlines()[-1]
        assert (code, out) == (1, "") and line.startswith(f"Error: {cache}/"), err
        assert line.endswith(f": File too large{REMEDY}"), line
        assert ".tmp" not in line and not list(cache.rglob(".tmp"))


@pytest.mark.parametrize("name", ["palettes.npz", "pixels.bin", "rows.npz", "names.npy", "names.bin", "states.bin"])
def test_no_file_of_the_bank_meets_a_full_disk_without_its_path(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    @contextmanager
    def filled(folder: Path) -> Iterator[Path]:
        with new_folder(folder) as tmp:
            (tmp / name).symlink_to("/dev/full")
            yield tmp

    monkeypatch.setenv("SEGLOC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare, "new_folder", filled)
    line = told(sources, tmp_path / "out")
    assert line.startswith(f"{tmp_path}/cache/bank/") and line.endswith(f": No space left on device{REMEDY}"), line


def test_a_cache_that_cannot_be_made_is_told_with_its_path(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    make = Path.mkdir

    def refusing(path: Path, *args: object, **options: object) -> None:
        if path.is_relative_to(tmp_path / "locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        make(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refusing)
    for name, words in (("file", "Not a directory"), ("locked/deep", "Permission denied")):
        cache = tmp_path / name
        monkeypatch.setenv("SEGLOC_CACHE", str(cache))
        line = told(sources, tmp_path / "out")
        assert line.startswith(f"{cache}/bank/objects-64-") and line.endswith(f": {words}{REMEDY}"), line
        with pytest.raises(click.ClickException) as refused:
            ShardCache(cache / "shards", 10**9).open(tmp_path / "far.tar", {"sha256": "ab", "filesize": 1})
        assert refused.value.message == f"{cache}/shards: {words}{REMEDY}"
