"""Functions that django-axes calls about a login."""

from django.http import HttpRequest

from events.rates import client_of

client_address = client_of
"""Failed logins are counted by this address."""


def client_text(
    username: str | None, address: str | None, _agent: str, _path: str, _request: HttpRequest
) -> str:
    """Return the client for a line of the log. A name's line breaks cannot end the line."""
    return f"{address} as {username!a}"
