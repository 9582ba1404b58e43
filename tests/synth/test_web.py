"""Builds on a plain web server, which gives whole files, and stores that cannot be reached."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.synth.test_scale import Sources, build

from segloc_synth.console import fault
from segloc_synth.files import as_path
from segloc_synth.shards import ShardReader


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


@pytest.mark.parametrize("library", ["httpx", "httpcore", "httpx2", "httpcore2", "aiohttp.client_exceptions"])
def test_a_store_that_cannot_be_reached_is_one_line(library: str) -> None:
    error = type("ConnectError", (Exception,), {"__module__": library})("no such host\nin detail")
    assert fault(error) == "no such host"
