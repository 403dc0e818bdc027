"""Real services for every test: the embedded ones, or those that the environment names."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from whitenoise.middleware import WhiteNoiseMiddleware

from events.throttling import token_rates, wrong_tokens
from events.usage import usage

collect_ignore = ["tested_project"]  # its tests run in their own processes


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> Iterator[None]:
    """Attach the embedded services until pytest-django has dropped the test database."""
    settings.EMBEDDED.attach()
    yield
    settings.EMBEDDED.detach()


@pytest.fixture(scope="session", autouse=True)
def _passwords_are_hashed_in_no_time() -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session", autouse=True)
def _static_files_are_found_once() -> Iterator[None]:
    """Find static files only once. Otherwise, each test's client searches every package."""
    find = WhiteNoiseMiddleware.add_files_from_finders
    found: dict[str, Any] = {}

    def find_once(middleware: WhiteNoiseMiddleware) -> None:
        if not found:
            find(middleware)  # type: ignore[no-untyped-call]
            found.update(middleware.files)
        middleware.files.update(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", find_once)
        yield


@pytest.fixture(autouse=True)
def _no_journal_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own journal, without the files of another test's killed processes."""
    monkeypatch.setenv("JOURNAL_DIR", str(settings.EMBEDDED.data / "journals" / uuid4().hex))


@pytest.fixture(autouse=True)
def _no_notes() -> Iterator[None]:
    """Forget the uses of tokens, so that they do not get into another test."""
    yield
    usage.clear()


@pytest.fixture(autouse=True)
def _no_rates_of_another_test() -> None:
    """Forget the rates. All tests have one address, and make their requests within a minute."""
    token_rates.clear()
    wrong_tokens.clear()
