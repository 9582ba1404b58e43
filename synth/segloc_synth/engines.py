"""Where tasks run: in this process, over local processes, or on a Ray cluster.

Results come back in the order of the tasks. A task whose worker is lost runs again, so it must be one that can.
"""

import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import click
import cv2

from segloc_synth.console import log

Task = TypeVar("Task")
Result = TypeVar("Result")

RETRIES = 3  # of a task whose worker was lost
AHEAD = 4  # tasks a worker handed out at a time: bounded, so that a million tasks need no memory
LOOK_AGAIN = 10.0  # seconds after which a cluster's size is asked for again: it may grow
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT = 64 << 20  # bytes
_stop: Any = None  # the parent's multiprocessing.Event, in a worker


def check_stop() -> None:
    """To be called between units of work: raises KeyboardInterrupt in a worker whose parent was interrupted."""
    if _stop is not None and _stop.is_set():
        raise KeyboardInterrupt


def _settle() -> None:
    """One core's worth of threads; and what glibc frees stays with the process.

    Else every picture's buffers go back to the kernel and come anew as zeroed pages, which costs as much as the JPEGs.
    """
    cv2.setNumThreads(1)
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_MMAP_THRESHOLD, KEPT // 2)


def _start_worker(stop: Any) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, so that files are closed in order
    _settle()
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent that was killed cannot say goodbye: without this its workers would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@dataclass
class _Waiting(Generic[Task, Result]):
    """A task handed out; `losses` counts the workers lost while it was the next to be finished."""

    task: Task
    future: Future[Result] | None = None
    losses: int = 0


def run_local(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Generator[Result, None, None]:
    """Yield function(task) for each task, in order; `function` and tasks must pickle.

    With one worker all runs in this process. On an error or Ctrl-C, running tasks are asked to stop and are
    waited for, so that none leaves a temporary file. When a worker process dies, unfinished tasks start again in new
    ones; click.ClickException when the same task loses its worker more than RETRIES times.
    """
    if workers <= 1:
        _settle()
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()

    def new_pool() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(stop,))

    pool, rest = new_pool(), iter(tasks)
    waiting: deque[_Waiting[Task, Result]] = deque()
    try:
        while True:
            waiting += map(_Waiting, islice(rest, AHEAD * workers - len(waiting)))
            if not waiting:
                return
            try:
                for task in waiting:
                    task.future = task.future or pool.submit(function, task.task)
                assert waiting[0].future is not None
                result = waiting[0].future.result()
            except BrokenProcessPool:
                pool.shutdown(wait=True)
                waiting[0].losses += 1
                if waiting[0].losses > RETRIES:
                    raise click.ClickException(
                        f"worker processes died {RETRIES + 1} times over the same task (out of memory?); "
                        "take fewer --workers"
                    ) from None
                log.info("a worker process died (out of memory?), its work starts again")
                for task in waiting:
                    if task.future and isinstance(task.future.exception(), BrokenProcessPool):
                        task.future = None
                pool = new_pool()
                continue
            waiting.popleft()
            yield result
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def run_ray(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Generator[Result, None, None]:
    """Yield function(task) for each task, in order, computed on a Ray cluster; `function` and tasks must pickle.

    The cluster is the one that this process is in already or that $RAY_ADDRESS names, else one of `workers` processes
    started here for the time of the call. Each task takes one core. Lost workers are retried RETRIES times, then
    click.ClickException; a task's own error arrives as it was raised. At the end, on an error and on Ctrl-C a cluster
    joined or started here is left, which ends the tasks still running there.
    """
    ray = _import_ray()
    ours = not ray.is_initialized()
    if ours:
        _start_ray(ray, workers)
    remote = ray.remote(_on_ray).options(num_cpus=1, max_retries=RETRIES)
    shared, rest = ray.put(function), iter(tasks)  # sent once to each node
    waiting: deque[Any] = deque()
    looked, most = -LOOK_AGAIN, 0
    try:
        while True:
            if time.monotonic() - looked > LOOK_AGAIN:
                looked, most = time.monotonic(), AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
            waiting += [remote.remote(shared, task) for task in islice(rest, max(0, most - len(waiting)))]
            if not waiting:
                return
            try:
                result = ray.get(waiting[0])
            except ray.exceptions.RayTaskError as error:  # raised by the function
                raise error.cause from None
            except ray.exceptions.RayError as error:
                reason = str(error).strip().partition("\n")[0]
                raise click.ClickException(f"Ray lost a task's worker {RETRIES + 1} times: {reason}") from None
            waiting.popleft()
            yield result
    finally:
        if ours:
            ray.shutdown()  # ends the workers too; ray.cancel has been seen to crash this process


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of a change to come
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise click.ClickException("--engine ray needs Ray: pip install 'segloc[ray]'") from None
    return ray


def _start_ray(ray: Any, workers: int) -> None:
    """Join the cluster that $RAY_ADDRESS names, else start one here; click.ClickException when that fails."""
    address = os.environ.get("RAY_ADDRESS")
    where = {} if address else {"address": "local", "num_cpus": workers, "include_dashboard": False}
    try:
        host, _, port = (address or "").rpartition(":")
        if host and port.isdecimal() and "//" not in host:
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself tries for minutes
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    except (OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(f"no Ray cluster at {address or 'this machine'}: {error}") from None


def _on_ray(function: Callable[[Task], Result], task: Task) -> Result:
    _settle()
    return function(task)
