"""Rows for tests, with the values that a recorder would write, unless the test gives others."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from django.contrib.auth.models import Permission, User
from knox.models import AuthToken

from events.models import TokenGrant
from systemtasks.ids import system_task_uuid
from systemtasks.models import SearchChange, SearchText, SystemTask, TaskRun, search_document
from systemtasks.states import State, Status

START = datetime(2024, 6, 1, 12, tzinfo=UTC)
_numbers = count(1)


def log_event(event: str = "Cleaned up", **fields: Any) -> dict[str, Any]:
    """Return a message as it is stored."""
    return {
        "timestamp": "2024-06-01T12:00:00.500000Z",
        "log_level": "info",
        "logger": "tests.clean_up",
        "event": event,
        "attributes": {},
        **fields,
    }


def system_task(name: str = "tests.clean_up", uid: str = "", **fields: Any) -> SystemTask:
    """Return a saved SystemTask, whose last run took 1.25 seconds and was successful."""
    defaults: dict[str, Any] = {
        "uuid": system_task_uuid(name, uid),
        "description": "Clean up what nobody needs.",
        "start_timestamp": START,
        "finish_timestamp": START + timedelta(seconds=1.25),
        "duration": 1.25,
        "status": Status.SUCCESSFUL,
        "messages": [log_event()],
        "expires": START + timedelta(days=30),
        "sort_timestamp": fields.get("start_timestamp", START),
    }
    return SystemTask.objects.create(name=name, uid=uid, **{**defaults, **fields})


def search_texts() -> None:
    """Write the texts of all tasks for the search, as the housekeeping does."""
    SearchChange.objects.all().delete()
    documents = SystemTask.objects.values_list("uuid", search_document())
    SearchText.objects.bulk_create(SearchText(uuid=key, document=text) for key, text in documents)


def task_run(task: SystemTask, **fields: Any) -> TaskRun:
    """Return a saved TaskRun of that task, successful, with its arguments on record."""
    defaults: dict[str, Any] = {
        "celery_id": f"run-{next(_numbers)}",
        "attempt": 1,
        "state": State.SUCCESS,
        "status": Status.SUCCESSFUL,
        "queue": "celery",
        "start_timestamp": task.start_timestamp,
        "sort_timestamp": fields.get("start_timestamp", task.start_timestamp),
        "finish_timestamp": task.finish_timestamp,
        "args": [],
        "kwargs": {},
        "arguments_intact": True,
        "sent_options": {},
    }
    return TaskRun.objects.create(system_task=task, **{**defaults, **fields})


def user(username: str = "reader", *permissions: str, **fields: Any) -> User:
    """Return a saved user with these permissions: codenames, or `view` and `run` of SystemTask."""
    made = User.objects.create_user(username, **fields)
    codenames = [name if "_" in name else f"{name}_systemtask" for name in permissions]
    made.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return made


def token(of: User, expiry: timedelta | None = None) -> str:
    """Return the text of a new token of that user."""
    _, text = AuthToken.objects.create(of, expiry=expiry)
    return str(text)


def grant(of_token: str, **fields: Any) -> TokenGrant:
    """Return a saved grant of that token."""
    stored = AuthToken.objects.get(token_key=of_token[:15])
    return TokenGrant.objects.create(token=stored, **fields)
