"""Only a trusted proxy may tell the client's address."""

import logging
from ipaddress import ip_network

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from pytest_django import Settings

from config import proxies


@pytest.fixture(autouse=True)
def _proxies(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def found(peer: str, *forwarded: str) -> str:
    """Return the client's address that the views behind the middleware get."""
    seen: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(request.META["REMOTE_ADDR"])
        return HttpResponse()

    headers = {"x-forwarded-for": ",".join(forwarded)} if forwarded else {}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=peer)
    proxies.find_client(view)(request)
    [address] = seen
    return address


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.7",), "192.0.2.1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.7",), "198.51.100.7"),
        ("10.0.0.1", ("1.1.1.1, 198.51.100.7",), "198.51.100.7"),
        ("10.0.0.1", ("1.1.1.1", " 198.51.100.7 , 10.0.0.2"), "198.51.100.7"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("10.0.0.1", ("nonsense, 10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", ("198.51.100.7, nonsense",), "10.0.0.1"),
        ("10.0.0.1", (",",), "10.0.0.1"),
        ("::ffff:10.0.0.1", ("198.51.100.7",), "198.51.100.7"),
        ("fd00::1", ("2001:db8::7",), "2001:db8::7"),
        ("", ("198.51.100.7",), ""),
    ],
)
def test_client_is_the_nearest_address_that_is_no_trusted_proxy(
    peer: str, forwarded: tuple[str, ...], client: str
) -> None:
    assert found(peer, *forwarded) == client


def test_by_default_nobody_is_believed(settings: Settings) -> None:
    from config import settings as service

    assert service.TRUSTED_PROXIES == []
    settings.TRUSTED_PROXIES = service.TRUSTED_PROXIES
    assert found("127.0.0.1", "198.51.100.7") == "127.0.0.1"


def test_proxy_that_is_not_trusted_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    middleware = proxies.find_client(lambda _: HttpResponse())
    with caplog.at_level(logging.WARNING, logger="config.proxies"):
        for _ in range(3):
            headers = {"x-forwarded-for": "198.51.100.7"}
            middleware(RequestFactory().get("/", headers=headers, REMOTE_ADDR="192.0.2.1"))
    assert len(caplog.records) == 1
    assert "192.0.2.1" in caplog.text
    assert "TRUSTED_PROXIES" in caplog.text
