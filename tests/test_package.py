"""The wheel, installed alone into a project that has nothing else."""

import json
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import yaml
from django.conf import settings
from packaging.specifiers import SpecifierSet
from psycopg import sql

from tests.processes import ROOT
from tests.wheel import INSTALLED_AS, blocks, build, environment, run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

CELERYS = {
    "amqp",
    "billiard",
    "click",
    "click-didyoumean",
    "click-plugins",
    "click-repl",
    "kombu",
    "packaging",
    "prompt-toolkit",
    "python-dateutil",
    "six",
    "typing-extensions",
    "tzdata",
    "tzlocal",
    "vine",
    "wcwidth",
}
"""The dependencies of Celery, Django and psycopg."""

RECORD = """
from celery import shared_task
from django.contrib.auth.models import User
from django.test import Client
from systemtasks.models import TaskRun
from systemtasks.storage.writer import writer

@shared_task(name="shop.charge")
def charge():
    "Charge a card."

charge.apply()
assert writer.flush()
client = Client()
client.force_login(User.objects.create_superuser("admin"))
pages = [client.get(f"/admin/systemtasks/{model}/") for model in ("systemtask", "taskrun")]
print(TaskRun.objects.count(), *(page.status_code for page in pages))
"""

RECORD_AND_ASK = """
import io, json
from celery import shared_task
from django.core.management import call_command
from django.test import Client
from systemtasks.storage.writer import writer

@shared_task(name="shop.charge")
def charge():
    "Charge a card."

charge.apply()
assert writer.flush()
printed = io.StringIO()
call_command("create_token", "admin", "--create-user", stdout=printed)
token = printed.getvalue().strip()
answer = Client().get("/api/v3/events/system_tasks/", headers={"authorization": f"Bearer {token}"})
print(json.dumps(answer.json()["results"]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    return build(folder)


@pytest.fixture(scope="module")
def python(folder: Path, wheel: Path) -> Path:
    """Return the interpreter of an environment with the wheel and the dependencies of the API."""
    return environment(folder, f"{wheel}[api,binary]", "drf-spectacular-sidecar")


@pytest.fixture(scope="module")
def recording_python(folder: Path, wheel: Path) -> Path:
    """Return the interpreter of an environment with the wheel and the dependencies of recording."""
    return environment(folder, f"{wheel}[binary]")


@pytest.fixture
def database(django_db_setup: None) -> Iterator[dict[str, str]]:
    """Yield a new database in the Postgres of the tests."""
    given = settings.DATABASES["default"]
    server = {key: str(given[key]) for key in ("USER", "PASSWORD", "HOST", "PORT")}
    name = f"package_{uuid4().hex}"
    with psycopg.connect(
        dbname="postgres",
        user=server["USER"],
        password=server["PASSWORD"],
        host=server["HOST"],
        port=server["PORT"] or None,
        autocommit=True,
    ) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield {**server, "NAME": name}
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def write_project(
    python: Path, folder: Path, database: Mapping[str, str], *, api: bool = True
) -> Path:
    """Create an empty project with the additions of docs/project.md, with or without the API."""
    until = "" if api else "Serve the API as well"
    run(python, "-m", "django", "startproject", "shop", folder, cwd=folder)
    package = folder / "shop"
    with (package / "settings.py").open("a") as file:
        given = {"ENGINE": "django.db.backends.postgresql", **database}
        file.write(f"\nDATABASES = {{'default': {given!r}}}\nALLOWED_HOSTS = ['*']\n")
        file.write(f"SYSTEMTASKS = {{'JOURNAL_DIR': {str(folder / 'journal')!r}}}\n")
        file.write(blocks("project.md", "settings.py", until=until))
    if api:
        with (package / "urls.py").open("a") as file:
            file.write(blocks("project.md", "urls.py"))
    for name in ("celery.py", "__init__.py"):
        (package / name).write_text(blocks("project.md", name))
    return folder


@pytest.mark.slow
def test_wheel_holds_all_that_is_no_cache_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        str(installed / path.relative_to(ROOT / name))
        for name, installed in ((name, Path(to)) for name, to in INSTALLED_AS.items())
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert held == expected
    assert {"systemtasks/py.typed", "systemtasks_api/py.typed"} <= held


@pytest.mark.slow
def test_project_with_an_app_events_of_its_own_has_both(
    python: Path, tmp_path: Path, database: dict[str, str]
) -> None:
    project = write_project(python, tmp_path, database)
    manage = (python, "-Werror", "manage.py")
    run(*manage, "startapp", "events", cwd=project)
    (project / "events" / "models.py").write_text(
        "from django.db import models\n\nclass Concert(models.Model):\n    pass\n"
    )
    with (project / "shop" / "settings.py").open("a") as file:
        file.write("INSTALLED_APPS += ['events']\n")
    run(*manage, "makemigrations", "events", cwd=project)
    run(*manage, "migrate", cwd=project)

    (task,) = json.loads(run(*manage, "shell", "-v0", "-c", RECORD_AND_ASK, cwd=project))
    assert (task["name"], task["status"]) == ("shop.charge", "successful")


@pytest.mark.slow
def test_empty_project_with_the_wheel_migrates_records_and_serves(
    python: Path, tmp_path: Path, database: dict[str, str]
) -> None:
    project = write_project(python, tmp_path, database)
    manage = (python, "-Werror", "manage.py")

    run(*manage, "check", "--fail-level", "WARNING", cwd=project)
    run(*manage, "migrate", cwd=project)
    run(*manage, "makemigrations", "--check", cwd=project)
    (task,) = json.loads(run(*manage, "shell", "-v0", "-c", RECORD_AND_ASK, cwd=project))

    assert (task["name"], task["status"]) == ("shop.charge", "successful")
    assert task["description"] == "Charge a card."
    found = run(*manage, "findstatic", "systemtasks/admin.css", cwd=project)
    assert str(python.parent.parent) in found


@pytest.mark.slow
def test_recording_alone_needs_little_and_runs_without_the_api(
    recording_python: Path, tmp_path: Path, database: dict[str, str]
) -> None:
    listed = run(
        Path(sys.executable).with_name("uv"),
        "pip",
        "list",
        "--format",
        "json",
        "--python",
        recording_python,
        cwd=tmp_path,
    )
    found = {package["name"] for package in json.loads(listed)}
    theirs = {"asgiref", "celery", "django", "sqlparse", *CELERYS}
    assert found - theirs == {"orjson", "psycopg", "psycopg-binary", "system-tasks"}

    project = write_project(recording_python, tmp_path, database, api=False)
    manage = (recording_python, "-Werror", "manage.py")
    run(*manage, "check", "--fail-level", "WARNING", "--database", "default", cwd=project)
    run(*manage, "migrate", cwd=project)
    run(*manage, "makemigrations", "--check", cwd=project)
    assert run(*manage, "shell", "-v0", "-c", RECORD, cwd=project).split() == ["1", "200", "200"]


def test_docs_have_a_project_add_apps_and_change_no_other_setting() -> None:
    given: dict[str, object] = {"INSTALLED_APPS": [], "__builtins__": {}}
    exec(blocks("project.md", "settings.py"), given)
    assert given.keys() == {"INSTALLED_APPS", "__builtins__"}


def test_hooks_before_a_commit_run_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    lint = re.findall(r"^\t\$\(BIN\)/(.+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        words = hook["entry"].removesuffix(" --force-exclude").removeprefix(".venv/bin/")
        assert any(command.removesuffix(" .") == words for command in lint)


def test_classifiers_name_the_versions_that_the_package_allows() -> None:
    (django,) = [text for text in PROJECT["dependencies"] if re.match(r"django[<>=]", text)]
    allowed = {
        "Python": SpecifierSet(PROJECT["requires-python"]),
        "Framework :: Django": SpecifierSet(django.removeprefix("django")),
    }
    for kind, specifier in allowed.items():
        named = [
            text.rpartition(" :: ")[2]
            for text in PROJECT["classifiers"]
            if re.search(rf"{kind} :: (3\.\d+|\d\.\d)$", text)
        ]
        assert named
        assert [name for name in named if f"{name}.5" not in specifier] == []
    assert (
        f"Framework :: Django :: {'.'.join(version('django').split('.')[:2])}"
        in (PROJECT["classifiers"])
    )


@pytest.mark.parametrize("name", ["test", "local", "production"])
def test_pinned_packages_have_the_newest_django_that_each_python_may_have(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    found = re.findall(r"^django==(\d+\.\d+)\.\S+ ; python_full_version (\S+ '\S+')", text, re.M)
    assert found == [("5.2", "< '3.12'"), ("6.1", ">= '3.12'")]
