"""Hostile values in any parameter of the API and the admin never make the server fail."""

from urllib.parse import quote

import pytest
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.test import Client
from knox.models import AuthToken

from tests import factories

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

ANYWHERE = [
    "", "\0", "a\0b", "\r\nX: y", "\u202e", "'", "\\", "%s", "-1", "1e999", "nan", "1_0", "9" * 30,
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "..", "a" * 5000, "//evil.example",
    "__class__", "{00000000000000000000000000000000}", "<script>alert(1)</script>",
]  # fmt: skip
"""For pages, which take long."""

VALUES = [
    "", " ", "\0", "a\0b", "\r\n", "%0d%0aX: y", "\ud7ff\ue000", "\u202e", "'", '"', "\\", "%",
    "%s", "{}", "-1", "0", "1e999", "1e-999", "nan", "inf", "1_0", "٣", "9" * 30,
    "-" + "9" * 5000, "0x1f", "1.5",
    "true", "null", "[]", "..", "../..", "a" * 10_000, "," * 500, "-" * 50, "id,-id", "__class__",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01", "0000-00-00",
    "2024-02-30", "2024-06-01T25:00:00Z", "2024-06-01T00:00:00+99:99", "1970-01-01T00:00:00Z",
    "00000000-0000-0000-0000-000000000000", "{00000000000000000000000000000000}", "1 OR 1=1",
    "<script>alert(1)</script>", "javascript:alert(1)", "//evil.example", "http://[", "a__b", "pk",
]  # fmt: skip

API = "/api/v3/"
OF_API = {
    "": ("script", "lang", "version", "format"),
    "schema/": ("version", "format", "lang"),
    "events/system_tasks/": (
        *("name", "uid", "status", "search", "ordering", "page", "page_size", "format"),
    ),
    "events/system_tasks/{uuid}/": ("format", "x"),
    "events/task_runs/": (
        *("system_task", "name", "uid", "celery_id", "parent_id", "root_id", "state", "status"),
        *("worker", "queue", "started_from", "started_until", "min_duration", "ordering"),
        *("page", "page_size", "after", "format"),
    ),
    "events/task_runs/{id}/": ("wait", "format"),
    "events/task_runs/summary/": ("started_from", "started_until", "name", "page", "page_size"),
}

LIST = (
    "q",
    "o",
    "p",
    "all",
    "e",
    "_facets",
    "_popup",
    "_to_field",
    "_changelist_filters",
    "x",
    "pk",
)
STARTED = ("started", "from", "until", "status", "start_timestamp__gte", "messages__x")
OF_ADMIN = {
    "": ("x",),
    "login/": ("next",),
    "jsi18n/": ("x",),
    "autocomplete/": ("term", "app_label", "model_name", "field_name", "page"),
    "systemtasks/systemtask/": (*LIST, *STARTED),
    "systemtasks/taskrun/": (*LIST, *STARTED, "system_task", "state", "queue", "worker"),
    "systemtasks/systemtask/{uuid}/change/": ("_changelist_filters", "_to_field", "_popup"),
    "systemtasks/taskrun/{id}/change/": ("_changelist_filters", "_to_field", "_popup"),
    "systemtasks/taskrun/{id}/history/": ("p",),
    "auth/user/": (*LIST, "is_staff__exact", "is_superuser__exact", "groups__id__exact"),
    "auth/user/add/": ("username", "_to_field", "_popup"),
    "auth/user/{user}/change/": ("_changelist_filters", "_to_field", "_popup"),
    "auth/group/": LIST,
    "auth/group/add/": ("name", "permissions"),
    "knox/authtoken/": LIST,
    "knox/authtoken/add/": ("user", "expiry", "_to_field"),
    "knox/authtoken/{token}/change/": ("_changelist_filters", "_popup"),
}

PATHS = [
    "/api/v3/events/system_tasks/{}/", "/api/v3/events/system_tasks/{}/run/",
    "/api/v3/events/task_runs/{}/", "/api/v3/{}/", "/admin/systemtasks/systemtask/{}/change/",
    "/admin/systemtasks/taskrun/{}/change/", "/admin/systemtasks/taskrun/{}/history/",
    "/admin/systemtasks/taskrun/{}/delete/", "/admin/auth/user/{}/change/",
    "/admin/auth/user/{}/password/", "/admin/knox/authtoken/{}/change/", "/admin/{}/", "/{}",
    "/admin/r/{}/1/", "/-/health/{}/",
]  # fmt: skip

FORMS = {
    "/admin/login/": ("username", "password", "next"),
    "/admin/auth/user/": ("action", "_selected_action", "select_across", "index"),
    "/admin/auth/user/add/": ("username", "password1", "password2", "usable_password"),
    "/admin/auth/group/add/": ("name", "permissions"),
    "/admin/knox/authtoken/": ("action", "_selected_action"),
    "/admin/knox/authtoken/add/": (
        *("user", "expiry_0", "expiry_1", "grant-TOTAL_FORMS", "grant-INITIAL_FORMS"),
        *("grant-0-rate", "grant-0-read_only", "grant-0-token"),
    ),
}


@pytest.fixture
def names() -> dict[str, object]:
    """Return the values for the names in the paths above."""
    run = factories.task_run(factories.system_task())
    ops = User.objects.create_superuser("ops")
    Group.objects.create(name="readers")
    factories.token(ops)
    return {
        "uuid": run.system_task_id,
        "id": run.pk,
        "user": ops.pk,
        "token": AuthToken.objects.get().pk,
    }


@pytest.fixture
def client(names: dict[str, object]) -> Client:
    """Return a client whose user may do everything, in the admin and in the API."""
    ops = User.objects.get(username="ops")
    headers = {"authorization": f"Bearer {factories.token(ops)}"}
    made = Client(headers=headers, raise_request_exception=False)
    made.force_login(ops, "events.backends.OneQueryModelBackend")
    return made


def failures(client: Client, urls: list[str]) -> list[tuple[int, str]]:
    """Return the statuses of 500 and above, with their addresses."""
    asked = [(status_of(client, url), url) for url in urls]
    assert min(status for status, _ in asked) < 500
    return [(status, url[:200]) for status, url in asked if status >= 500]


def status_of(client: Client, url: str, form: dict[str, str] | None = None) -> int:
    """Return the status of the answer, and roll back what the request has written."""
    with transaction.atomic():
        answer = client.get(url) if form is None else client.post(url, form)
        transaction.set_rollback(True)
    return answer.status_code


@pytest.mark.parametrize("path", [f"{API}{path}" for path in OF_API])
def test_no_parameter_of_the_api_fails_the_server(
    client: Client, names: dict[str, object], path: str
) -> None:
    parameters = OF_API[path.removeprefix(API)]
    url = path.format(**names)
    # A wait is 0 to 60 seconds: a valid one of a run that has ended is answered at once.
    assert failures(client, [f"{url}?{p}={quote(v)}" for p in parameters for v in VALUES]) == []


@pytest.mark.parametrize("path", [f"/admin/{path}" for path in OF_ADMIN])
def test_no_parameter_of_the_admin_fails_the_server(
    client: Client, names: dict[str, object], path: str
) -> None:
    parameters = OF_ADMIN[path.removeprefix("/admin/")]
    url = path.format(**names)
    assert failures(client, [f"{url}?{p}={quote(v)}" for p in parameters for v in ANYWHERE]) == []


@pytest.mark.parametrize("path", PATHS)
def test_no_part_of_a_path_fails_the_server(client: Client, path: str) -> None:
    assert failures(client, [path.format(quote(value)) for value in ANYWHERE]) == []


@pytest.mark.parametrize("path", FORMS)
def test_no_field_of_a_form_fails_the_server(client: Client, path: str) -> None:
    forms = [{field: value} for field in FORMS[path] for value in ANYWHERE]
    assert [form for form in forms if status_of(client, path, form) >= 500] == []


@pytest.mark.parametrize("header", ["authorization", "accept", "cookie", "host", "if-none-match"])
def test_no_header_fails_the_server(client: Client, header: str) -> None:
    failed = []
    for value in VALUES:
        if value.isascii() and "\n" not in value and "\0" not in value:
            for path in ("/api/v3/events/system_tasks/", "/admin/", "/api/v3/schema/"):
                answer = client.get(path, headers={header: value})
                failed += [(path, value[:100])] if answer.status_code >= 500 else []
    assert failed == []
