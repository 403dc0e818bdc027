"""Find the address of a request's client behind the proxies in front of this service."""

import logging
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

logger = logging.getLogger(__name__)

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def find_client(get_response: GetResponse) -> GetResponse:
    """Make REMOTE_ADDR the client's address; a middleware.

    X-Forwarded-For is only believed if it comes from one of TRUSTED_PROXIES: any client may send
    it.
    """
    warned = False

    def middleware(request: HttpRequest) -> HttpResponseBase:
        nonlocal warned
        if forwarded := request.META.get("HTTP_X_FORWARDED_FOR"):
            peer = request.META.get("REMOTE_ADDR", "")
            if _is_trusted(peer):
                request.META["REMOTE_ADDR"] = _client(peer, forwarded.split(","))
            elif not warned:
                warned = True
                logger.warning(
                    "X-Forwarded-For is not believed: %s, its sender, is not in TRUSTED_PROXIES",
                    peer,
                )
        return get_response(request)

    return middleware


def _client(peer: str, hops: Sequence[str]) -> str:
    """Return the nearest address that is not a trusted proxy's.

    `hops` are the addresses in X-Forwarded-For. Each proxy adds its own client's address at the
    end. The text before an untrusted address may therefore be forged.
    """
    for hop in reversed(hops):
        if _parsed(hop) is None:
            break
        peer = hop.strip()
        if not _is_trusted(peer):
            break
    return peer


def _is_trusted(address: str) -> bool:
    parsed: Any = _parsed(address)
    return parsed is not None and any(parsed in network for network in settings.TRUSTED_PROXIES)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.strip())
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
