"""Failures of this app's own are counted, and logged once in a minute."""

import logging
import os

import pytest

from systemtasks.storage import failures as failures_module
from systemtasks.storage.failures import Failures


def fail(failures: Failures, kind: str) -> None:
    try:
        raise RuntimeError(f"of {kind}")
    except RuntimeError:
        failures.report(kind)


def test_each_kind_is_logged_with_its_traceback_once_in_a_minute_and_always_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("systemtasks.storage.failures.time.monotonic", lambda: now)
    failures = Failures()
    for _ in range(3):
        fail(failures, "one")
    fail(failures, "other")
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "RuntimeError: of one" in caplog.text
    now += failures_module.REPORT_INTERVAL
    fail(failures, "one")

    assert len(caplog.records) == 3
    assert failures.counts() == {"one": 4, "other": 1}


def test_forked_child_begins_at_0() -> None:
    failures_module.failures.count("in the parent")
    try:
        assert failures_module.failures.counts()["in the parent"] == 1
        if (child := os.fork()) == 0:
            os._exit(len(failures_module.failures.counts()))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        failures_module.failures.reset()
