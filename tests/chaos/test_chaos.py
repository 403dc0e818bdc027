"""Whatever is killed, paused or full: every run that finished is on record, once and right."""


import pytest

from tests.chaos.stage import Scene

pytestmark = pytest.mark.slow


def test_killed_children_lose_no_run(scene: Scene) -> None:
    with scene.worker() as worker:
        scene.send()
        for _ in range(3):
            scene.go_on(scene.count // 6)
            worker.kill_child()
        scene.run_out()
        scene.check_soon()
    scene.check()


@pytest.mark.parametrize("with_children", [True, False], ids=["with children", "alone"])
def test_killed_worker_loses_no_run(scene: Scene, with_children: bool) -> None:
    scene.send()
    with scene.worker() as worker:
        scene.go_on()
        worker.kill(with_children=with_children)
    with scene.worker():
        scene.run_out()
    scene.check()
