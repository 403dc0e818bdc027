"""A missing or malformed variable stops the start with one sentence that names it."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from config import environment
from tests.processes import ROOT

Ended = subprocess.CompletedProcess[str]

PRODUCTION = {
    "DATABASE_URL": "postgresql://user:word@db.internal/tasks",
    "BROKER_URL": "redis://broker.internal/0",
    "SECRET_KEY": "q7Zr0xWc4LmB9vTn2KsYd8HfGj3PaEu6RiOo1NbVwXkCzMtQ5S",
    "ALLOWED_HOSTS": "tasks.internal",
}


def load_settings(**variables: str) -> Ended:
    base = {name: os.environ[name] for name in ("PATH", "DATA_DIR") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", "import config.settings"],
        cwd=ROOT,
        env={**base, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_production_settings_load() -> None:
    loaded = load_settings(**PRODUCTION)

    assert (loaded.returncode, loaded.stderr) == (0, "")


BAD = [
    ("DATABASE_URL", "mysql://user@host/db"),
    ("DATABASE_URL", "postgresql://user@host"),
    ("DATABASE_URL", "postgresql://user@host:port/db"),
    ("DATABASE_URL", "postgresql://user@host/db?no_such_option=1"),
    ("BROKER_URL", "sqs://guest@host//"),
    ("BROKER_URL", "amqp://guest@host:port//"),
    ("BROKER_URL", "redis://"),
    ("BROKER_URL", "redis://host:port/0"),
    ("BROKER_URL", "redis://host:6379/name"),
    ("BROKER_URL", "redis+socket://"),
    ("SERVICE_SCHEMA", "public"),
    ("SERVICE_SCHEMA", "pg_tasks"),
    ("SERVICE_SCHEMA", "Tasks"),
    ("SERVICE_SCHEMA", "tasks,public"),
    ("SERVICE_SCHEMA", "t" * 64),
    ("WEB_ONLY", "perhaps"),
    ("BROKER_TRANSPORT_OPTIONS", "master_name"),
    ("BROKER_TRANSPORT_OPTIONS", '["main"]'),
    ("ALLOWED_HOSTS", "https://tasks.internal"),
    ("EXPIRES_AFTER_DAYS", "9999999"),
    ("CSRF_TRUSTED_ORIGINS", "://"),
    ("SECRET_KEY", ""),
    ("SECRET_KEY", "short"),
    ("SECRET_KEY", "django-insecure-q7Zr0xWc4LmB9vTn2KsYd8HfGj3PaEu6RiOo1NbVwXkCzMtQ5S"),
    ("SECRET_KEY", "change-me" * 10),
    ("ALLOWED_HOSTS", ""),
    ("DEBUG", "perhaps"),
    ("HTTPS", "2"),
    ("LOG_LEVEL", "LOUD"),
    ("LOST_AFTER_DAYS", "-1"),
    ("MASK_TEXTS", "perhaps"),
    ("RECORD_LOG_LEVEL", "LOUD"),
    ("EXPIRES_AFTER_DAYS", "soon"),
    ("EXPIRES_AFTER_DAYS", "-1"),
    ("EXPIRES_AFTER_DAYS", "nan"),
    ("MOST_WAITING", "1.5"),
    ("LEASE_SECONDS", "0"),
    ("CSRF_TRUSTED_ORIGINS", "tasks.internal"),
    ("TRUSTED_PROXIES", "proxy.internal"),
    ("TRUSTED_PROXIES", "10.0.0.1/8"),
    ("WEB_STATEMENT_SECONDS", "-1"),
    ("TOKEN_RATE", "many"),
]


@pytest.fixture(scope="module")
def starts() -> dict[tuple[str, str], Ended]:
    """Start with each of the bad values, in parallel."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        loaded = pool.map(lambda bad: load_settings(**PRODUCTION | dict([bad])), BAD)
        return dict(zip(BAD, loaded, strict=True))


@pytest.mark.parametrize("bad", BAD, ids=" ".join)
def test_bad_value_stops_the_start_with_one_sentence_that_names_it(
    starts: dict[tuple[str, str], Ended], bad: tuple[str, str]
) -> None:
    name, _ = bad
    loaded = starts[bad]

    assert loaded.returncode == 1
    assert loaded.stdout == ""
    assert len(loaded.stderr.splitlines()) == 1
    assert name in loaded.stderr
    assert loaded.stderr.startswith("System Tasks cannot start: ")


@pytest.mark.parametrize(
    "url",
    [
        "redis://broker",
        "rediss://:word@broker:6380/1",
        "redis+socket:///run/valkey.sock?virtual_host=2",
        "sentinel://one:26379;sentinel://two:26379",
        "amqp://user:word@broker:5672/shop",
        "amqps://broker//",
    ],
)
def test_broker_urls_that_kombu_takes_are_taken(url: str) -> None:
    assert environment.broker(url) == url


@pytest.mark.parametrize(
    "variables",
    [{"DATABASE_URL": ""}, {"BROKER_URL": ""}, {"DEMO_TASKS": "true"}],
    ids=lambda variables: next(iter(variables)),
)
def test_web_only_without_a_project_is_one_sentence(variables: dict[str, str]) -> None:
    loaded = load_settings(**{**PRODUCTION, "WEB_ONLY": "true", **variables})

    assert loaded.returncode == 1
    assert len(loaded.stderr.splitlines()) == 1
    assert {"WEB_ONLY", *variables} <= {*re.findall(r"[A-Z_]+", loaded.stderr)}


@pytest.mark.parametrize("url", ["amqp://", "amqp://broker:port//", "sqs://", "memory://"])
def test_broker_is_one_that_can_be_asked(url: str) -> None:
    with pytest.raises(SystemExit, match="BROKER_URL must"):
        environment.broker(url)


@pytest.mark.parametrize("hosts", ["*", "tasks.internal", ".internal", "127.0.0.1", "[::1],a-b.c"])
def test_hosts_that_django_takes_are_taken(hosts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_HOSTS", hosts)

    assert environment.hosts("ALLOWED_HOSTS", ()) == hosts.split(",")


def test_password_in_a_bad_database_url_is_not_printed() -> None:
    bad = "postgresql://user:hunter22@host/db?no_such_option=1"
    loaded = load_settings(**{**PRODUCTION, "DATABASE_URL": bad})

    assert loaded.returncode == 1
    assert "hunter22" not in loaded.stderr


SECRET = "hunter22"
MISTYPED = [
    ("DATABASE_URL", f"postgresql://user:{SECRET}@host/db?no_such_option=1"),
    ("DATABASE_URL", f"postgresql://user:{SECRET}@ho%zzst/db"),
    ("DATABASE_URL", f"postgresql://user:%zz{SECRET}@host/db"),
    ("DATABASE_URL", f"postgresql://user:{SECRET}/db"),
    ("DATABASE_URL", f"postgresql://host/db?{SECRET}"),
    ("DATABASE_URL", f"postgresql://host/db?password={SECRET}&password"),
    ("DATABASE_URL", f"postgresql://[{SECRET}"),
    ("DATABASE_URL", f"mysql://user:{SECRET}@host/db"),
    ("BROKER_URL", f"redis://:pass/{SECRET}@host/0"),
    ("BROKER_URL", f"redis://user:{SECRET}/0"),
    ("BROKER_URL", f"sqs://user:{SECRET}@host//"),
    ("BROKER_URL", f"amqp://user:{SECRET}@host:port//"),
    ("BROKER_URL", f"redis://[{SECRET}"),
    ("BROKER_TRANSPORT_OPTIONS", f'{{"password": "{SECRET}"'),
    ("ALLOWED_HOSTS", f"https://user:{SECRET}@host"),
    ("CSRF_TRUSTED_ORIGINS", f"https://user:{SECRET}@host"),
    ("CSRF_TRUSTED_ORIGINS", f"https://host/{SECRET}"),
    ("TRUSTED_PROXIES", f"http://user:{SECRET}@proxy"),
]


@pytest.mark.parametrize("mistyped", MISTYPED, ids=" ".join)
def test_start_up_sentence_prints_nothing_that_stood_in_a_url(mistyped: tuple[str, str]) -> None:
    loaded = load_settings(**PRODUCTION | dict([mistyped]))

    assert loaded.returncode == 1
    assert mistyped[0] in loaded.stderr
    assert SECRET not in loaded.stdout + loaded.stderr
    assert len(loaded.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("message", "url", "shown"),
    [
        (
            'connection to server at "10.0.0.1", port 5432 failed: fe_sendauth: no password',
            "postgresql://user:word@10.0.0.1/db",
            'connection to server at "…", port 5432 failed: fe_sendauth: no pass…',
        ),
        (
            'could not translate host name "rover@db1" to address: unknown\nmore',
            "postgresql://user:p@rover@db1/db",
            'could not translate host name "…@…" to address: unknown',
        ),
        (
            "Error -2 connecting to p@ss:6379.",
            "redis://p%40ss:6379/0",
            "Error -2 connecting to …:….",
        ),
    ],
)
def test_error_is_printed_without_the_parts_of_the_url(message: str, url: str, shown: str) -> None:
    assert environment.without_url(message, url) == shown


def test_database_url_keeps_every_libpq_option() -> None:
    database = environment.database(
        "postgresql://user:p%40ss@/tasks?host=/run/postgresql&sslmode=require&application_name=web"
    )

    assert database == {
        "ENGINE": "config.postgres",
        "NAME": "tasks",
        "USER": "user",
        "PASSWORD": "p@ss",
        "HOST": "/run/postgresql",
        "PORT": "",
        "OPTIONS": {"sslmode": "require", "application_name": "web"},
    }


def test_deployment_check_is_clean_in_production() -> None:
    checked = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **PRODUCTION},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (checked.returncode, checked.stderr) == (0, "")
    assert "no issues" in checked.stdout


def test_settings_named_on_the_command_line_are_the_ones() -> None:
    print_name = "from django.conf import settings; print(settings.SETTINGS_MODULE)"
    named = "tests.systemtasks.plain_admin_settings"
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", print_name]
    shell = subprocess.run(
        [*command, "--settings", named],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **PRODUCTION},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (shell.returncode, shell.stdout, shell.stderr) == (0, f"{named}\n", "")


def test_migrations_are_complete() -> None:
    checked = subprocess.run(
        [sys.executable, "manage.py", "makemigrations", "--check", "--dry-run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (checked.returncode, checked.stdout.strip()) == (0, "No changes detected")
