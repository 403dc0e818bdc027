"""Rates of requests, counted in this process."""

import time
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock

from django.http import HttpRequest

MINUTE = 60.0  # seconds
MOST_KEYS = 10_000


class Rates:
    """Counts the requests of each of many keys, by the generic cell rate algorithm.

    At a rate of N a minute, each request costs an Nth of a minute, and at most a whole minute may
    be spent in advance.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self.clear()

    def clear(self) -> None:
        """Forget all requests."""
        self._spent_until: dict[str, float] = {}  # by the monotonic clock

    def wait(self, key: str, rate: int) -> float:
        """Return the seconds until a request with this key is allowed, or 0 if it is allowed now.

        `rate` is in requests a minute. The request is not counted.
        """
        if (spent_until := self._spent_until.get(key)) is None:
            return 0.0
        return max(spent_until + MINUTE / rate - time.monotonic() - MINUTE, 0.0)

    def spend(self, key: str, rate: int) -> float:
        """Count a request with this key if it is allowed. Return the same as `wait`."""
        with self._lock:
            if seconds := self.wait(key, rate):
                return seconds
            now = time.monotonic()
            self._spent_until[key] = max(self._spent_until.get(key, now), now) + MINUTE / rate
            if len(self._spent_until) > MOST_KEYS:
                self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Forget the keys that have nothing spent in advance. If too many are left, forget all."""
        left = {key: until for key, until in self._spent_until.items() if until > now}
        self._spent_until = left if len(left) < MOST_KEYS / 2 else {}


def client_of(request: HttpRequest) -> str:
    """Return the address of the request's client. In IPv6, return the first one of its network.

    One client in IPv6 has all addresses of a /64 network.
    """
    return _network(request.META.get("REMOTE_ADDR", ""))


@lru_cache(maxsize=1024)
def _network(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:  # a socket has none
        return address
    if isinstance(parsed, IPv6Address):
        if (mapped := parsed.ipv4_mapped) is not None:
            return str(mapped)
        return str(ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)
