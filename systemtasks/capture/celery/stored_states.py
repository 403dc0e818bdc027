"""Note the states that a task stores itself. Celery sends no signal for them.

A task that ends by Ignore or Reject has often called `update_state` before, as Celery's
documentation shows it: that state is what its callers see.
"""

from functools import wraps
from types import NoneType
from typing import Any

from celery import Task, states
from celery.backends.base import Backend

from systemtasks.capture.guard import never_raising
from systemtasks.runs import recorder
from systemtasks.runs.kinds import is_of

DONE, TOTAL = ("current", "done"), "total"
"""The keys of a state's metadata for how far a task is. The first ones are of Celery's docs."""

_is_following = False


def follow() -> None:
    """Wrap the methods that store the state of a task. Repeated calls do nothing."""
    global _is_following
    if _is_following:
        return
    _is_following = True
    update_state: Any = Task.update_state
    store_result: Any = Backend.store_result

    @wraps(update_state)
    def noting_update(
        self: Any,  # noqa: ANN401 - a Task
        task_id: Any = None,  # noqa: ANN401
        state: Any = None,  # noqa: ANN401
        meta: Any = None,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        celery_id = self.request.id if task_id is None else task_id
        _note(celery_id, state, meta)
        _note_progress(celery_id, state, meta)
        return update_state(self, task_id, state, meta, **options)

    @wraps(store_result)
    def noting_result(
        self: Any,  # noqa: ANN401 - a Backend
        task_id: Any,  # noqa: ANN401
        result: Any,  # noqa: ANN401
        state: Any,  # noqa: ANN401
        *args: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        _note(task_id, state, result)
        return store_result(self, task_id, result, state, *args, **options)

    setattr(Task, "update_state", noting_update)  # noqa: B010 - mypy refuses an assignment
    setattr(Backend, "store_result", noting_result)  # noqa: B010


@never_raising
def _note_progress(task_id: object, state: object, meta: object) -> None:
    """Report how far a task is, if it stores that in a state of its own, in the usual way."""
    if not is_of(meta, dict) or (type(state) is str and state in states.READY_STATES):
        return
    done = next((dict.get(meta, name) for name in DONE if name in dict.keys(meta)), None)
    total = dict.get(meta, TOTAL)
    if type(done) not in (int, float) or type(total) not in (int, float, NoneType):
        return
    if run := recorder.running(task_id):  # type: ignore[arg-type]
        run.progress(done, total)  # type: ignore[arg-type]


@never_raising
def _note(task_id: object, state: object, meta: object) -> None:
    if run := recorder.running(task_id):  # type: ignore[arg-type]
        run.stored = state, meta
