"""Threads are followed even if other libraries wrap them, too. Those are not affected."""

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import pytest

from tests import processes

pytestmark = pytest.mark.slow

OURS = "systemtasks"
ORDERS = [
    *("systemtasks", "sentry systemtasks", "systemtasks sentry"),
    *("opentelemetry systemtasks", "systemtasks opentelemetry"),
    *("sentry systemtasks opentelemetry", "opentelemetry systemtasks sentry"),
    *("gevent systemtasks", "gevent sentry systemtasks", "gevent systemtasks sentry"),
    *("gevent opentelemetry systemtasks", "gevent systemtasks opentelemetry"),
]


@cache
def outcome(names: str) -> Mapping[str, Any]:
    """Install these libraries in a process, in this order, and return its output."""
    patch = ["-m", "gevent.monkey", "--module"] if "gevent" in names else ["-m"]
    command = [sys.executable, *patch, "tests.systemtasks.capture.thread_kinds", *names.split()]
    ended = subprocess.run(
        command, cwd=processes.ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return MappingProxyType(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("order", ORDERS)
def test_each_thread_logs_to_its_run_and_no_other(order: str) -> None:
    told = outcome(order)

    assert told["errors"] == []
    assert told["first"] == ["first"]
    assert told["said"] == {kind: [kind] for kind in told["said"]}
    assert told["together"] == {
        name: [f"{name} {time}" for time in range(5)] for name in told["together"]
    }
    assert len(told["said"]) >= 17
    assert len(told["together"]) >= 2 * 14


@pytest.mark.parametrize("order", [order for order in ORDERS if order.split() != [OURS]])
def test_each_thread_is_in_the_trace_that_it_would_be_in_anyway(order: str) -> None:
    alone = " ".join(name for name in order.split() if name != OURS)

    assert outcome(order)["in_trace"] == outcome(alone)["in_trace"]
    assert outcome(alone)["errors"] == []
