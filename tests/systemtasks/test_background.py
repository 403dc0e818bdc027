"""A background thread runs once a process, is replaced if it dies, and is reset in a child."""

import os
import signal
import threading
from collections.abc import Callable

import pytest

from systemtasks.background import BackgroundThread
from tests.waiting import eventually


def nothing() -> None:
    pass


def thread_of(
    target: Callable[[], None], after_fork: Callable[[], None] = nothing
) -> "BackgroundThread":
    return BackgroundThread(target, name="test-background", after_fork=after_fork)


def test_however_many_start_it_one_thread_runs() -> None:
    started: list[int] = []
    end = threading.Event()

    def work() -> None:
        started.append(threading.get_ident())
        end.wait(30)

    background = thread_of(work)
    together = threading.Barrier(8)

    def start() -> None:
        together.wait(30)
        background.start()

    starters = [threading.Thread(target=start) for _ in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(30)
    background.start()
    alive = background.is_alive
    end.set()
    assert alive
    assert len(started) == 1


def test_a_thread_that_has_ended_is_replaced() -> None:
    started: list[int] = []
    background = thread_of(lambda: started.append(1))
    background.start()
    assert eventually(lambda: not background.is_alive)
    background.start()
    assert eventually(lambda: len(started) == 2)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_begins_without_a_thread_and_may_start_its_own() -> None:
    end = threading.Event()
    noted = ["by the parent"]

    def work() -> None:
        end.wait(30)

    background = thread_of(work, noted.clear)
    background.start()
    assert background.is_alive
    # As if another thread were about to start it at the moment of the fork.
    with background._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # ends the child if it waits for that lock
            before = background.is_alive
            background.start()
            os._exit(0 if not before and background.is_alive and not noted else 1)
    _, status = os.waitpid(child, 0)
    end.set()
    assert os.waitstatus_to_exitcode(status) == 0
    assert noted
