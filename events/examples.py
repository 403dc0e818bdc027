"""Example responses for the OpenAPI document; the tests compare them with real ones."""

from typing import Any

UUID = "cc975be9-3b08-5ae3-b47c-24a0db2d178f"

MESSAGE = {
    "timestamp": "2024-06-01T12:00:00.500000Z",
    "log_level": "info",
    "logger": "app.tasks",
    "event": "Removed 15 expired sessions",
    "attributes": {"removed": 15},
}
TASK = {
    "uuid": UUID,
    "name": "app.clean_sessions",
    "full_name": "app.clean_sessions",
    "uid": "",
    "description": "Remove the sessions that have expired.",
    "start_timestamp": "2024-06-01T12:00:00Z",
    "finish_timestamp": "2024-06-01T12:00:01.250000Z",
    "duration": 1.25,
    "status": "successful",
    "messages": [MESSAGE],
    "expires": "2024-07-01T12:00:01.250000Z",
    "expiring": True,
}
RUN = {
    "id": "018fd3b9-e41c-7a4e-9f64-2b3c1d0a5e6f",
    "system_task": UUID,
    "name": "app.clean_sessions",
    "uid": "",
    "celery_id": "0b9c5d0e-5cf5-4d64-8d6f-0e2e0a0c8b1e",
    "attempt": 1,
    "number": 1,
    "redelivered": False,
    "replaces": None,
    "replaced_by": None,
    "state": "success",
    "status": "successful",
    "queue": "celery",
    "worker": "celery@worker",
    "sender": "celerybeat@beat",
    "parent_id": "",
    "parent_run": None,
    "root_id": "0b9c5d0e-5cf5-4d64-8d6f-0e2e0a0c8b1e",
    "sent_timestamp": "2024-06-01T11:59:59.900000Z",
    "eta_timestamp": None,
    "start_timestamp": "2024-06-01T12:00:00Z",
    "finish_timestamp": "2024-06-01T12:00:01.250000Z",
    "wait": 0.1,
    "duration": 1.25,
    "args": [],
    "kwargs": {"older_than": 30},
    "context": {},
    "exception": "",
    "messages": [MESSAGE],
    "expires": "2024-07-01T12:00:01.250000Z",
}
SUMMARY = {
    "system_task": UUID,
    "name": "app.clean_sessions",
    "uid": "",
    "runs": 1,
    "failures": 0,
    "duration_p50": 1.25,
    "duration_p95": 1.25,
    "duration_max": 1.25,
    "last_success": "2024-06-01T12:00:01.250000Z",
    "next_run": None,
}
_ONE_PAGE = {
    "next": 0,
    "previous": 0,
    "count": 1,
    "current": 1,
    "total_pages": 1,
    "start_index": 1,
    "end_index": 1,
}
NOT_FOUND = {"detail": "Not found.", "code": "not_found"}
NO_SUCH_PAGE = {"detail": "Invalid page.", "code": "not_found"}
UNKNOWN_STATUS = {
    "status": ["Select a valid choice. done is not one of the available choices."],
    "code": "invalid",
}


def _page(row: dict[str, Any], **position: str) -> dict[str, Any]:
    return {"pagination": {**_ONE_PAGE, **position}, "results": [row], "autocomplete": {}}


EVERYWHERE: dict[str, Any] = {
    "406": {
        "detail": "Could not satisfy the request Accept header.",
        "code": "not_acceptable",
    },
    "500": {"detail": "A server error occurred.", "code": "error"},
}
TO_A_TOKEN: dict[str, Any] = {
    "403": {"detail": "Authentication credentials were not provided.", "code": "not_authenticated"},
    "429": {
        "detail": "Request was throttled. Expected available in 20 seconds.",
        "code": "throttled",
    },
}
TO_A_GET: dict[str, Any] = {
    "412": {
        "detail": "The answer is not the one that was asked for.",
        "code": "precondition_failed",
    },
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "events_system_tasks_list": {
        "200": _page(TASK),
        "400": UNKNOWN_STATUS,
        "404": NO_SUCH_PAGE,
    },
    "events_system_tasks_retrieve": {
        "200": TASK,
        "400": {"uuid": ["Must be a valid UUID."], "code": "invalid"},
        "404": NOT_FOUND,
    },
    "events_system_tasks_run_create": {
        "400": {
            "non_field_errors": [
                "No run of this task is on record, and no entry of the schedule names it, "
                "so its arguments are unknown."
            ],
            "code": "invalid",
        },
        "404": NOT_FOUND,
        "500": {
            "detail": "The task was not enqueued: the broker does not answer.",
            "code": "error",
        },
    },
    "events_task_runs_list": {
        "200": _page(RUN, after=""),
        "400": UNKNOWN_STATUS,
        "404": NO_SUCH_PAGE,
    },
    "events_task_runs_retrieve": {
        "200": RUN,
        "400": {"id": ["Must be a valid UUID."], "code": "invalid"},
        "404": NOT_FOUND,
    },
    "events_task_runs_summary_list": {
        "200": _page(SUMMARY),
        "400": {
            "started_from": [
                "Datetime has wrong format. Use one of these formats instead: "
                "YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z]."
            ],
            "code": "invalid",
        },
        "404": NO_SUCH_PAGE,
    },
    "schema_retrieve": {"404": NOT_FOUND},
}
"""Examples by operation, and then by status."""
