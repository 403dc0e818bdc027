"""Start the stacks that are compared: the service, the conventional one twice, and two limits.

The service and the bare view set run in the service's own web server, the others in Granian's.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import Permission, User
from knox.models import AuthToken
from rest_framework.authtoken.models import Token

WEB = ("config.web",)
GRANIAN = ("granian", "--interface", "wsgi", "--workers", "2", "--blocking-threads", "4", "--no-ws")
"""As many processes and threads as the service's own server has."""
READY_TIMEOUT = 60.0  # seconds

SERVICE = "service"
CONVENTIONAL = "conventional, connections kept"
DEFAULTS = "conventional"
BARE = "bare view set"
LIMIT = "limit"


@dataclass(frozen=True)
class Stack:
    """A program that answers requests."""

    name: str
    server: tuple[str, ...]
    """The module of the server, and its arguments."""
    authorization: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Server:
    """A stack that is running."""

    stack: Stack
    url: str
    process: int


def prepare() -> list[Stack]:
    """Return the stacks, with tokens of the same user, who may view tasks and runs."""
    user = User.objects.create_user("reader")
    codenames = ("view_systemtask", "view_taskrun")
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    _, ours = AuthToken.objects.create(user, expiry=None)
    theirs = Token.objects.create(user=user, key=secrets.token_hex(20)).key
    environment = {
        **os.environ,
        "DATABASE_URL": settings.EMBEDDED.database_url(),
        "BROKER_URL": settings.EMBEDDED.broker_url(),
        "SECRET_KEY": settings.SECRET_KEY,
        "ALLOWED_HOSTS": "127.0.0.1",
        "HTTPS": "false",
    }
    service, conventional, bare = (
        {**environment, "DJANGO_SETTINGS_MODULE": module}
        for module in (
            "config.settings",
            "benchmarks.serving.conventional",
            "benchmarks.serving.bare",
        )
    )
    defaults = {**conventional, "CONN_MAX_AGE": "0"}
    wsgi = (*GRANIAN, "benchmarks.serving.wsgi:application")
    return [
        Stack(SERVICE, WEB, f"Bearer {ours}", service),
        Stack(CONVENTIONAL, wsgi, f"Token {theirs}", conventional),
        Stack(DEFAULTS, wsgi, f"Token {theirs}", defaults),
        Stack(BARE, WEB, f"Bearer {ours}", bare),
        Stack(LIMIT, (*GRANIAN, "benchmarks.serving.limit:application"), "", environment),
    ]


@contextmanager
def serving(stacks: list[Stack]) -> Iterator[list[Server]]:
    """Run all stacks until the block ends. Yield their servers."""
    with ExitStack() as running:
        servers = [running.enter_context(_server(stack)) for stack in stacks]
        for server in servers:
            _wait_for(server)
        yield servers


@contextmanager
def _server(stack: Stack) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", *stack.server, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--log-level", "error"]
    with subprocess.Popen(command, env=stack.environment) as process:
        try:
            yield Server(stack, f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()


def _wait_for(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{server.stack.name} does not start")
