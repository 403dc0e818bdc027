"""Find the Celery app that owns a task. A process may have several."""

from celery import Celery, _state, current_app


def app_of(name: str) -> Celery:
    """Return the app in which the task of this name is registered.

    That is the current app if it knows the task, or if no app of this process does.
    """
    app: Celery = current_app._get_current_object()  # type: ignore[attr-defined]
    if name in app.tasks:
        return app
    # Celery's list of the apps of a process has no public name.
    for other in tuple(_state._get_active_apps()):  # type: ignore[attr-defined]
        # An app that is not in use yet is left as it is: `tasks` would finalize it.
        if other.finalized and name in other.tasks:
            return other  # type: ignore[no-any-return]
    return app
