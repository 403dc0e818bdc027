"""Read the settings from environment variables.

Each function below ends the process, with a sentence that names the variable, if its value is
missing or malformed. An empty value counts as not set.
"""

import json
import re
import sys
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, NoReturn
from urllib.parse import SplitResult, unquote, urlsplit

import psycopg
from environs import Env, EnvError
from psycopg.conninfo import conninfo_to_dict

_env = Env()

PLACEHOLDER = re.compile(r"insecure|change.?me|secret.?key|example|placeholder", re.IGNORECASE)


def stop(sentence: str) -> NoReturn:
    """End the process with this sentence on standard error and exit code 1."""
    sys.exit(f"System Tasks cannot start: {sentence}")


def without_url(message: str, url: str) -> str:
    """Return the first line of an error's message, without any part of the URL.

    A password that is not encoded may be taken for another part: for a host, for example.
    """
    line, *_ = message.strip().splitlines() or [""]
    _scheme, *parts = re.split(r"[^\w.~%+-]+", url)
    for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
        if len(part) > 1:
            line = line.replace(part, "…")
    return line


def _read(read: Callable[..., Any], name: str, default: Any, expected: str) -> Any:  # noqa: ANN401
    try:
        return read(name, default) if text(name) else default
    except EnvError:
        stop(f"{name} must be {expected}, not {_env.str(name)!r}.")


def text(name: str, default: str = "") -> str:
    """Return the value without surrounding white space, or the default if it is not set."""
    return _env.str(name, "").strip() or default


def boolean(name: str, *, default: bool) -> bool:
    """Return the value of `true` or `false` (also 1/0, yes/no, on/off)."""
    return bool(_read(_env.bool, name, default, "true or false"))


def number(name: str, default: float, *, least: float = 0, most: float) -> float:
    """Return a number from `least` to `most`."""
    value = float(_read(_env.float, name, default, "a number"))
    if not least <= value <= most:
        stop(f"{name} must be from {least} to {most}, not {value}.")
    return value


def whole_number(name: str, default: int, *, least: int = 0, most: int) -> int:
    """Return a whole number from `least` to `most`."""
    value = int(_read(_env.int, name, default, "a whole number"))
    if not least <= value <= most:
        stop(f"{name} must be from {least} to {most}, not {value}.")
    return value


def json_object(name: str) -> dict[str, Any]:
    """Return a JSON object, which is empty if the variable is not set."""
    try:
        value = json.loads(text(name, "{}"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        stop(f"{name} must be a JSON object.")  # not shown: it may hold a password
    return value


def one_of(name: str, default: str, choices: tuple[str, ...]) -> str:
    """Return the choice that equals the value. Upper and lower case are the same."""
    value = text(name, default)
    for choice in choices:
        if choice.casefold() == value.casefold():
            return choice
    stop(f"{name} must be one of {', '.join(choices)}, not {value!r}.")


def schema(name: str, default: str) -> str:
    """Return the name of the service's own schema. SQL must accept it without quotes."""
    value = text(name, default)
    if not re.fullmatch(r"(?!pg_|public$|information_schema$)[a-z_][a-z0-9_]{0,62}", value):
        stop(
            f"{name} must name a schema of its own, in small letters, digits and underscores, "
            f"not {value!r}."
        )
    return value


def words(name: str, default: tuple[str, ...] = ()) -> list[str]:
    """Return the texts of a list that is separated by commas."""
    return [word.strip() for word in text(name).split(",") if word.strip()] or list(default)


def database(url: str) -> dict[str, Any]:
    """Return Django's settings of the Postgres database at this URL.

    The URL may have every option that libpq knows.
    """
    if not url.startswith(("postgres://", "postgresql://")):
        stop(
            "DATABASE_URL must begin with postgresql://, as in postgresql://user:password@host/db."
        )
    try:
        options: dict[str, Any] = dict(conninfo_to_dict(url))
    except psycopg.Error as error:
        stop(
            "DATABASE_URL is not a connection URL that libpq understands "
            f"({without_url(str(error), url)})."
        )
    if not options.get("dbname"):
        stop("DATABASE_URL names no database; it ends in /name.")
    port = str(options.get("port", ""))
    if port and not all(part.isdecimal() for part in port.split(",")):  # one for each host
        stop("DATABASE_URL has a port that is no number; a password may need percent-encoding.")
    return {
        "ENGINE": "config.postgres",
        "NAME": options.pop("dbname"),
        "USER": options.pop("user", ""),
        "PASSWORD": options.pop("password", ""),
        "HOST": options.pop("host", ""),
        "PORT": options.pop("port", ""),
        "OPTIONS": options,
    }


def broker(url: str) -> str:
    """Return the broker's URL. It must be one of Redis, Valkey or RabbitMQ that kombu accepts."""
    schemes = ("redis://", "rediss://", "redis+socket://", "sentinel://", "amqp://", "amqps://")
    if not url.startswith(schemes):
        stop(f"BROKER_URL must begin with {schemes[0]} (or {', '.join(schemes[1:])}).")
    for part in url.split(";"):  # one for each broker
        try:
            parts = urlsplit(part)
        except ValueError:
            stop("BROKER_URL is no URL; a password may need percent-encoding.")
        database = parts.path.strip("/")
        if parts.scheme in ("amqp", "amqps"):
            if not _has_valid_port(parts):
                stop("BROKER_URL must look like amqp://user:password@host:port/vhost.")
        elif parts.scheme == "redis+socket":
            if not database:
                stop("BROKER_URL names no socket; it looks like redis+socket:///path/of/the.sock.")
        elif not _has_valid_port(parts) or not (database.isdecimal() or not database):
            stop("BROKER_URL must look like redis://:password@host:port/number.")
    return url


def _has_valid_port(parts: SplitResult) -> bool:
    try:
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def hosts(name: str, default: tuple[str, ...]) -> list[str]:
    """Return host names that are separated by commas, for Django's ALLOWED_HOSTS."""
    names = words(name, default)
    if not names:
        stop(f"{name} is not set; it lists the host names of this service.")
    for host in names:
        if not re.fullmatch(r"\*|\.?[\w.-]+|\[[0-9a-fA-F:.]+\]", host):
            stop(f"{name} must list host names, without scheme, port or path.")
    return names


def origins(name: str) -> list[str]:
    """Return origins (`https://host`) that are separated by commas."""
    listed = words(name)
    for origin in listed:
        if not re.fullmatch(r"https?://[^/@\s]+", origin):
            stop(f"{name} must list origins like https://host.")
    return listed


def networks(name: str) -> list[IPv4Network | IPv6Network]:
    """Return addresses and networks (`10.0.0.0/8`) that are separated by commas."""
    try:
        return [ip_network(network) for network in words(name)]
    except ValueError:
        stop(f"{name} must list addresses or networks, like 10.0.0.1 or 10.0.0.0/8.")


def secret_key(value: str) -> str:
    """Return the secret key if it is long and random enough.

    The limits are those of Django's own deployment check, security.W009.
    """
    if not value:
        stop("SECRET_KEY is not set; it must be 50 or more random characters that you keep.")
    if len(value) < 50 or len(set(value)) < 5 or PLACEHOLDER.search(value):
        stop("SECRET_KEY is too short or a placeholder; it must be 50 or more random characters.")
    return value
