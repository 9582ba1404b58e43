"""Where tasks run: in this process, or over local processes. Results come back in the order of the tasks."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import click
import cv2

Task = TypeVar("Task")
Result = TypeVar("Result")

_stop: Any = None  # the parent's multiprocessing.Event, in a worker


def check_stop() -> None:
    """To be called between units of work: raises KeyboardInterrupt in a worker whose parent was interrupted."""
    if _stop is not None and _stop.is_set():
        raise KeyboardInterrupt


def _start_worker(stop: Any) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, so that files are closed in order
    cv2.setNumThreads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent that was killed cannot say goodbye: without this its workers would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_local(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """Yield function(task) for each task, in order; `function` and tasks must pickle.

    With one worker all runs in this process. On an error or Ctrl-C, running tasks are asked to stop and are
    waited for, so that none leaves a temporary file. click.ClickException when a worker process dies.
    """
    if workers <= 1:
        cv2.setNumThreads(1)
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(stop,))
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) >= 4 * workers:  # bounded, so that a million tasks need no memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise click.ClickException(
            "a worker process died (out of memory?); run the same command again with fewer --workers"
        ) from None
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
