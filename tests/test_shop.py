"""The example project with System Tasks, installed as the docs say, and without."""

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest

from tests import processes, projects
from tests.processes import ROOT
from tests.wheel import blocks, build, environment, run

pytestmark = pytest.mark.slow

SHOP = ROOT / "examples" / "shop"
SEND = """
import json
from accounts.models import User
from orders.models import Order
from orders.tasks import charge, clean_up, confirm, ship
customer = User.objects.create_user("ann@example.com")
cheap, dear = (
    Order.objects.create(customer=customer, article="tea", amount=amount) for amount in (1, 101)
)
results = []
for task, *args in (
    (charge, cheap.pk, "4111111111111111"), (charge, dear.pk), (ship, cheap.pk), (clean_up,),
    (confirm, cheap.pk),
):
    sent = task.delay(*args)
    value = sent.get(timeout=60, propagate=False)
    results.append([task.name, sent.state, repr(value)])
results.append(list(Order.objects.values_list("amount", "is_paid")))
print(json.dumps(results))
"""

RUNS = """
import json
from systemtasks.models import TaskRun
rows = TaskRun.objects.values_list(
    "system_task__name", "attempt", "state", "status", "exception", "queue"
)
print(json.dumps([list(row) for row in rows]))
"""

ASK = """
import io, json
from django.core.management import call_command
from django.test import Client
from accounts.models import User
printed = io.StringIO()
call_command("create_token", "grafana@example.com", "--create-user", stdout=printed)
bearer = {"authorization": f"Bearer {printed.getvalue().strip()}", "accept-language": "de"}
tasks = "/api/v3/events/system_tasks/"
answers = [Client().get(tasks, headers=bearer) for _ in range(8)]
boss = Client()
boss.force_login(User.objects.create_superuser("boss@example.com", "x"))
office = boss.get("/office/systemtasks/taskrun/").content.decode()
print(json.dumps({
    "statuses": [answer.status_code for answer in answers],
    "tasks": {task["name"]: task["status"] for task in answers[0].json()["results"]},
    "stranger": Client().get(tasks).json(),
    "document": Client().get("/api/v3/schema/", {"format": "json"}).json()["info"]["title"],
    "office": "Fehlgeschlagen" in office and "orders.tasks.charge" in office,
}))
"""

VOLATILE = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>"),
    (r"in [0-9.e-]+s\b", "in <seconds>"),
    (r'"duration_ms": [0-9.]+', '"duration_ms": <ms>'),
    (r"line [0-9]+, in", "line <n>, in"),
    (r"/\S*/(site-packages|shop|lib/python3\.[0-9]+)/", r"<\1>/"),
    (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|\+[0-9:]+)?", "<time>"),
)
"""The texts that differ between any two runs of the shop."""

OF_CONTRIB_POSTGRES = r"register_type_handlers|SELECT oid, typarray FROM pg_type"
"""The queries that django.contrib.postgres, which the docs ask for, adds to a new connection."""


def steady(text: str) -> str:
    """Return the text without the parts that differ between any two runs."""
    for volatile, mark in VOLATILE:
        text = re.sub(volatile, mark, text)
    return text


class Shop:
    """The shop in its own folder, environment and database."""

    def __init__(self, folder: Path, python: Path, database: str) -> None:
        self.folder = folder
        self.python = python
        self.variables = {
            "SHOP_DATABASE": database,
            "SHOP_BROKER": projects.broker(),
            "SHOP_SENTRY_FILE": str(folder / "sentry.jsonl"),
        }
        copytree(SHOP, folder, dirs_exist_ok=True, ignore=ignore_patterns("__pycache__"))

    def manage(self, *words: str) -> str:
        return run(self.python, "manage.py", *words, cwd=self.folder, **self.variables)

    def shell(self, code: str) -> Any:
        return json.loads(self.manage("shell", "-v0", "-c", code).splitlines()[-1])

    def tests(self) -> list[str]:
        """Run the shop's own tests. Assert that all pass, and return a line for each."""
        command = (self.python, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider")
        said = run(*command, cwd=self.folder, **self.variables)
        return sorted(re.findall(r"^PASSED .*", said, re.M))

    def work(self) -> "Worked":
        """Send the shop's tasks to a worker, and return their results."""
        log = self.folder / "worker.log"
        options = ["-n", "shop@host", "--concurrency", "1", "--loglevel", "INFO"]
        options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with log.open("wb") as output:
            worker = subprocess.Popen(
                [self.python, "-m", "celery", "-q", "-A", "shop", "worker", *options],
                cwd=self.folder,
                env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), **self.variables},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            results = self.shell(SEND)
        finally:
            processes.stop(worker)
        return Worked(results, log.read_text(), (self.folder / "sentry.jsonl").read_text())


class Worked:
    """The results of the shop's tasks, with their logs and Sentry's events."""

    def __init__(self, results: Any, log: str, sentry: str) -> None:
        self.results = results
        # The lines of each logger are in an order of their own: two processes write them.
        self.lines: dict[str, list[str]] = defaultdict(list)
        for line in log.splitlines():
            logger = re.search(r'"logger": "([^"]+)"', line)
            self.lines[logger[1] if logger else ""].append(steady(line))
        events = [json.loads(line) for line in sentry.splitlines()]
        self.sentry = sorted(json.dumps(essence(event), sort_keys=True) for event in events)


def essence(event: Any) -> Any:
    """Return what Sentry shows of an event or a transaction, and what does not differ by itself."""
    exceptions = event.get("exception", {}).get("values", [])
    crumbs = event.get("breadcrumbs", {}).get("values", [])
    return {
        "type": event["type"],
        "level": event.get("level"),
        "logger": event.get("logger"),
        "transaction": event.get("transaction"),
        "message": steady(str(event.get("logentry"))),
        "exceptions": [
            (
                one["type"],
                steady(one["value"]),
                [frame["function"] for frame in one["stacktrace"]["frames"]],
            )
            for one in exceptions
        ],
        "breadcrumbs": [
            steady(f"{crumb.get('category')}: {crumb.get('message')}") for crumb in crumbs
        ],
        "spans": [
            steady(f"{span['op']}: {span.get('description')}")
            for span in event.get("spans", [])
            if not re.search(OF_CONTRIB_POSTGRES, str(span.get("description")))
        ],
        "tags": {name: steady(str(tag)) for name, tag in (event.get("tags") or {}).items()},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop")


@pytest.fixture(scope="module")
def without(folder: Path) -> Iterator[Shop]:
    python = environment(folder, "-r", str(SHOP / "requirements.txt"), django=False)
    with projects.database() as database:
        shop = Shop(folder / "without" / "shop", python, database)
        shop.manage("migrate", "-v0")
        yield shop


@pytest.fixture(scope="module")
def installed(folder: Path) -> Iterator[Shop]:
    """Yield the shop with System Tasks, installed as docs/project.md and docs/admin.md say."""
    packages = ("-r", str(SHOP / "requirements.txt"), f"{build(folder)}[api,binary]")
    python = environment(folder, *packages, "drf-spectacular-sidecar", django=False)
    with projects.database() as database:
        shop = Shop(folder / "with" / "shop", python, database)
        package = shop.folder / "shop"
        with (package / "settings.py").open("a") as file:
            file.write(blocks("project.md", "settings.py"))
            file.write(f"SYSTEMTASKS = {{'JOURNAL_DIR': {str(folder / 'journal')!r}}}\n")
        with (package / "urls.py").open("a") as file:
            file.write(blocks("project.md", "urls.py"))
        admin = re.search(
            r"```python\n(from systemtasks.admin .*?)```",
            (ROOT / "docs" / "admin.md").read_text(),
            re.S,
        )
        assert admin
        with (package / "office.py").open("a") as file:
            file.write(admin[1])
        shop.manage("migrate", "-v0")
        yield shop


def test_shops_own_tests_pass_as_they_do_without(without: Shop, installed: Shop) -> None:
    expected = without.tests()
    assert len(expected) == 10
    assert installed.tests() == expected


def test_shop_has_nothing_to_complain_of_and_no_migration_is_missing(installed: Shop) -> None:
    installed.manage("check", "--fail-level", "WARNING", "--database", "default")
    installed.manage("makemigrations", "--check")


def test_document_of_the_shops_api_is_the_same(without: Shop, installed: Shop) -> None:
    document = without.manage("spectacular")
    assert "/api/orders/" in document
    assert installed.manage("spectacular") == document


def test_work_is_done_logged_and_reported_as_without_and_is_on_record(
    without: Shop, installed: Shop
) -> None:
    expected = without.work()
    assert [result[:2] for result in expected.results[:-1]] == [
        ["orders.tasks.charge", "SUCCESS"],
        ["orders.tasks.charge", "FAILURE"],
        ["orders.tasks.ship", "SUCCESS"],
        ["orders.tasks.clean_up", "PENDING"],
        ["orders.tasks.confirm", "SUCCESS"],
    ]
    assert "orders.tasks" in expected.lines
    assert any("DeclinedError" in event for event in expected.sentry)

    found = installed.work()
    assert found.results == expected.results
    assert found.lines == expected.lines
    assert found.sentry == expected.sentry

    declined = "orders.tasks.DeclinedError: 101 is too much"
    runs = [(name.removeprefix("orders.tasks."), *rest) for name, *rest in installed.shell(RUNS)]
    assert sorted(runs) == sorted(
        [
            ("charge", 1, "success", "successful", "", "celery"),
            ("confirm", 1, "success", "warning", "", "celery"),
            ("charge", 1, "failure", "error", declined, "celery"),
            ("ship", 1, "retry", "warning", "ConnectionError: no carrier", "celery"),
            ("ship", 2, "success", "successful", "", "celery"),
            ("clean_up", 1, "success", "successful", "", "celery"),
            ("confirm", 1, "success", "warning", "", "celery"),
        ]
    )

    asked = installed.shell(ASK)
    assert asked["statuses"] == [200] * 8  # the shop throttles its own views after five
    assert asked["tasks"]["orders.tasks.charge"] == "error"
    assert asked["stranger"]["code"] == "not_authenticated"
    assert asked["document"] == "System Tasks"
    assert asked["office"]


def test_shop_is_as_before_when_system_tasks_has_left(without: Shop, installed: Shop) -> None:
    delete = "from knox.models import AuthToken; AuthToken.objects.all().delete()"
    assert delete in (ROOT / "docs" / "project.md").read_text()
    installed.manage("shell", "-c", delete)
    for app in ("systemtasks", "systemtasks_api", "knox"):
        installed.manage("migrate", app, "zero", "-v0")
    for name in ("settings", "urls", "office"):
        path = installed.folder / "shop" / f"{name}.py"
        path.write_text((SHOP / "shop" / f"{name}.py").read_text())
    installed.manage("remove_stale_contenttypes", "--include-stale-apps", "--noinput", "-v0")
    assert installed.tests() == without.tests()
    tables = "import json; from django.db import connection as c; "
    tables += "print(json.dumps(sorted(c.introspection.table_names())))"
    assert installed.shell(tables) == without.shell(tables)
