"""What django-axes asks about a login."""

from django.http import HttpRequest

from events.rates import client_of

client_address = client_of
"""The address by which failed logins are counted."""


def client_text(
    username: str | None, address: str | None, _agent: str, _path: str, _request: HttpRequest
) -> str:
    """Return the client for a line of the log, which nothing in a name can end."""
    return f"{address} as {username!a}"
