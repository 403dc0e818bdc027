"""Schemathesis calls every operation of the served document, and runs all of its checks."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection

from events.serializers import LogLevel
from systemtasks.models import SystemTask
from tests import factories

pytestmark = pytest.mark.slow

CONFIG: dict[str, Any] = {
    "checks": {
        # The document calls `ordering` a text and `page` an integer, as authentik's does, and so
        # cannot say which of them are refused with 400.
        "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "403", "404"]},
        # It wants 401 where the Authorization header is missing; the contract says 403.
        "missing_required_header": {"enabled": False},
    },
}
api = schemathesis.openapi.from_wsgi(
    "/api/v3/schema/?format=json",
    get_wsgi_application(),
    config=schemathesis.Config.from_dict(CONFIG),
)


@api.auth(refresh_interval=None)
class Bearer:
    """Sends the token of a user with all permissions, unless a check removes it."""

    token = ""

    def get(self, *_: Any) -> str:
        return self.token

    def set(self, case: Any, token: str, _: Any) -> None:
        case.headers["Authorization"] = f"Bearer {token}"


@pytest.fixture
def token(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Create a token, and keep the connection with the test's transaction open."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    token = factories.token(factories.user("robot", "view", "run", "view_taskrun"))
    monkeypatch.setattr(Bearer, "token", token)
    yield
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture
def task(db: None) -> SystemTask:
    messages = [factories.log_event(log_level=level) for level in LogLevel.values]
    return factories.system_task(uid="uid", messages=messages)


@pytest.fixture
def answered(request: pytest.FixtureRequest) -> Iterator[set[tuple[str, int]]]:
    """Yield the statuses that were returned. A test in which no request was accepted fails."""
    answers: set[tuple[str, int]] = set()
    yield answers
    assert answers & {("GET", 200), ("POST", 400)}


@api.parametrize()
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.usefixtures("token")
def test_every_operation_keeps_its_word(case: Any) -> None:
    # An empty parameter, which no enumeration contains, is the same as none.
    is_empty = "" in (case.query or {}).values()
    case.call_and_validate(excluded_checks=[negative_data_rejection] if is_empty else [])


@api.include(path_regex="system_tasks").parametrize()
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.usefixtures("token")
def test_every_operation_keeps_its_word_of_a_task_that_is_there(
    case: Any, task: SystemTask, answered: set[tuple[str, int]]
) -> None:
    if "uuid" in case.path_parameters:
        case.path_parameters["uuid"] = str(task.uuid)
    answer = case.call_and_validate(excluded_checks=[negative_data_rejection])
    answered.add((case.method, answer.status_code))


@api.include(path_regex="task_runs").parametrize()
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.usefixtures("token")
def test_every_operation_keeps_its_word_of_a_run_that_is_there(
    case: Any, task: SystemTask, answered: set[tuple[str, int]]
) -> None:
    # It cannot be sent again, which would need a broker.
    run = factories.task_run(
        task, messages=task.messages, kwargs={"a": [None]}, arguments_intact=False
    )
    if "id" in case.path_parameters:
        case.path_parameters["id"] = str(run.id)
    answer = case.call_and_validate(excluded_checks=[negative_data_rejection])
    answered.add((case.method, answer.status_code))
