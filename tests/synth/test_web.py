"""Builds on a plain web server, which gives whole files and takes none, and stores that cannot be reached."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.synth.test_scale import Sources, build, build_args

from segloc_synth import phantom
from segloc_synth.cli import cli
from segloc_synth.console import fault
from segloc_synth.files import as_path
from segloc_synth.shards.format import ShardReader


class Quiet(SimpleHTTPRequestHandler):
    """Knows no ranges."""

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def pairs(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(sources, tmp_path_factory.mktemp("web") / "pairs", "--n", 20)


@pytest.fixture(scope="module")
def url(pairs: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(pairs)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_pairs_are_read_where_ranges_are_not_known(pairs: Path, url: str) -> None:
    near, far = ShardReader(pairs), ShardReader(as_path(url))
    assert [far[place] for place in (0, 9, 19)] == [near[place] for place in (0, 9, 19)]


@pytest.mark.parametrize("command", ["build", "preview"])
def test_a_store_that_can_only_be_read_takes_no_output(
    sources: Sources, pairs: Path, url: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segloc_synth.bank.prepare.prepare_objects", None)  # it is refused before
    args = build_args(sources, f"{url}/new") if command == "build" else ["preview", str(pairs), "--out", f"{url}/a.png"]
    error = CliRunner().invoke(cli, args).exception
    assert isinstance(error, Exception)
    line = fault(error)
    assert line and line.startswith(f"{url}/") and "this store can only be read; name a folder" in line


def test_the_output_is_looked_at_before_anything_is_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    monkeypatch.setattr(phantom, "default_phantom", None)
    result = CliRunner().invoke(cli, ["build", "--out", str(tmp_path), "--n", "4"])
    assert result.output == f"Error: {tmp_path}: is not an empty folder; name another --out\n"


@pytest.mark.parametrize("library", ["httpx", "httpcore", "httpx2", "httpcore2", "aiohttp.client_exceptions"])
def test_a_store_that_cannot_be_reached_is_one_line(library: str) -> None:
    error = type("ConnectError", (Exception,), {"__module__": library})("no such host\nin detail")
    assert fault(error) == "no such host"


@pytest.mark.parametrize("command", ["preview", "verify", "probe"])
def test_a_build_that_cannot_be_reached_is_named(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "http://127.0.0.1:1/pairs"])
    assert result.output.startswith("Error: http://127.0.0.1:1/pairs: ") and result.exit_code == 1
    assert len(result.output.splitlines()) == 1
