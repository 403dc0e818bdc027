"""Finished runs are on record once and correctly, even if anything is killed, paused or full."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.chaos.books import Notes
from tests.chaos.stage import CHILDREN, Scene
from tests.waiting import eventually

# A disk of 16 KiB for the journal, in a mount namespace that ends with the worker.
SMALL_DISK = (
    *("unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])),
    *("sh", "-c", 'mount -t tmpfs -o size=16k none "$JOURNAL_DIR" && exec "$@"', "sh"),
)

BEGINNINGS = 3
"""The number of workers that are killed when their tasks begin."""

pytestmark = pytest.mark.slow


def test_killed_children_lose_no_run(scene: Scene) -> None:
    with scene.worker() as worker:
        for _ in range(scene.rounds):
            scene.work(scene.count // scene.rounds)
            worker.kill_child()
        scene.run_out()
        scene.check_soon()
    scene.check()


def test_killed_worker_loses_no_run(scene: Scene) -> None:
    with scene.worker() as worker:
        scene.work(scene.count)
        worker.kill()
    with scene.worker():
        scene.run_out()
        scene.check_soon()
    scene.check()


@pytest.mark.parametrize(
    ("pool", "is_sent_by_us"),
    [("prefork", True), ("prefork", False), ("threads", True), ("solo", True)],
)
def test_run_whose_worker_is_killed_before_its_first_batch_has_an_end(
    scene: Scene, pool: str, is_sent_by_us: bool
) -> None:
    for _ in range(BEGINNINGS):
        with scene.worker("--pool", pool) as worker:
            # A solo worker runs one task at a time.
            scene.send_to_kill(1 if pool == "solo" else CHILDREN, is_recorded=is_sent_by_us)
            worker.wait_until_killed()
    begun = Notes.read(scene.notes).begun
    assert len(begun) >= BEGINNINGS
    with scene.worker("--pool", pool):
        eventually(lambda: not scene.unended(begun))
        assert scene.unended(begun) == []
        assert eventually(lambda: not scene.left())


def test_killed_postgres_holds_up_no_task_and_loses_no_run(scene: Scene) -> None:
    with scene.worker():
        for _ in range(scene.rounds):
            scene.work(scene.count // scene.rounds // 2)
            scene.postgres.kill()
            scene.work(scene.count // scene.rounds // 2)
            scene.postgres.start()
        scene.run_out()
        scene.check_soon()
    scene.check()


def test_paused_postgres_holds_up_no_task_and_loses_no_run(scene: Scene) -> None:
    with scene.worker():
        scene.work(scene.count // 2)
        scene.postgres.pause()
        scene.work(scene.count // 2)
        scene.postgres.resume()
        scene.run_out()
        scene.check_soon()
    scene.check()


@pytest.mark.parametrize("how", ["kill", "shut_down"])
def test_worker_that_ends_while_postgres_is_paused_leaves_its_runs_to_the_next(
    scene: Scene, how: str
) -> None:
    with scene.worker() as worker:
        scene.work(scene.count // 2)
        scene.postgres.pause()
        scene.work(scene.count // 2)
        getattr(worker, how)()
    assert scene.left()
    scene.postgres.resume()
    with scene.worker():
        scene.run_out()
        scene.check_soon()
    scene.check()


def test_broker_that_loses_its_queue_loses_no_run(scene: Scene) -> None:
    with scene.worker() as worker:
        scene.work(scene.count // 2)
        scene.lose_queue()
        # Kombu may fail when it closes its connection, which ends the worker. A supervisor would
        # start the next one.
        with scene.worker():
            scene.work(scene.count // 2)
            scene.run_out()
            worker.note_if_it_has_ended()
            scene.check_soon()
    scene.check()


def test_warm_shutdown_has_written_every_run_and_leaves_the_others_to_the_next_worker(
    scene: Scene,
) -> None:
    with scene.worker() as worker:
        scene.work(scene.count)
        worker.shut_down()
    scene.check()
    with scene.worker():
        scene.run_out()
    scene.check()
    assert set(Notes.read(scene.notes).numbers.values()) == set(range(scene.count))


def test_cold_shutdown_loses_no_run(scene: Scene) -> None:
    with scene.worker() as worker:
        scene.work(scene.count)
        worker.shut_down(cold=True)
    with scene.worker():
        scene.run_out()
        scene.check_soon()
    scene.check()


def test_children_that_are_replaced_lose_no_run(scene: Scene) -> None:
    scene.send(scene.count)
    with scene.worker("--max-tasks-per-child", "10"):
        scene.run_out()
    scene.check()
    assert len(list(scene.notes.iterdir())) >= scene.count // 10


def test_full_disk_holds_up_no_task_and_loses_no_run(scene: Scene) -> None:
    environment = {**os.environ, "JOURNAL_DIR": str(scene.journal)}
    tried = subprocess.run(
        [*SMALL_DISK, "true"], env=environment, capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"This account cannot mount a disk of its own: {tried.stderr}")

    with scene.worker(launcher=SMALL_DISK) as worker:
        disk = Path(f"/proc/{worker.process.pid}/root{scene.journal}")
        scene.work(scene.count // 2)
        scene.postgres.pause()
        scene.work(scene.count // 2)
        assert "Runs are in memory only until they are rows" in worker.log.read_text()
        scene.postgres.resume()
        scene.run_out()
        scene.check_soon()
        assert eventually(lambda: not any(path.stat().st_size for path in disk.iterdir()))
    scene.check()
