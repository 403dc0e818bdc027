"""The queue of a message is found, whatever its exchange and its routing key are."""

from types import SimpleNamespace
from typing import Any

import celery
import pytest
from kombu import Consumer, Exchange, Queue, binding

from systemtasks.capture.celery import queues, received
from systemtasks.capture.celery.apps import app_of
from systemtasks.runs.journal_line import Entry

FEEDS, WORK, NEWS = (
    Exchange("feeds", "topic"),
    Exchange("work", "topic"),
    Exchange("news", "fanout"),
)


@pytest.fixture
def app() -> celery.Celery:
    app = celery.Celery("shop", broker="memory://", set_as_current=False)
    app.conf.task_queues = [
        Queue("celery"),
        Queue("feeds", FEEDS, routing_key="feed.#"),
        Queue(
            "both",
            bindings=[binding(FEEDS, routing_key="*.csv"), binding(WORK, routing_key="both")],
        ),
        Queue("work", WORK, routing_key="work"),
        Queue("news", NEWS),
    ]
    app.finalize()
    return app


DELAY = "0." * 26 + "1.1."


@pytest.mark.parametrize(
    ("exchange", "routing_key", "queue"),
    [
        ("feeds", "feed", "feeds"),
        ("feeds", "feed.tsv.daily", "feeds"),
        ("feeds", "other.csv", "both"),
        ("feeds", "feed.csv", ""),  # it goes to two queues
        ("feeds", "nowhere", ""),
        ("work", "both", "both"),
        ("news", "anything", "news"),
        ("unknown", "work", ""),
        ("celery_delayed_27", f"{DELAY}work", "work"),
        ("shop_celery_delayed_delivery", f"{DELAY}work", "work"),
    ],
)
def test_queue_of_a_sent_message_is_the_only_one_that_gets_it(
    app: celery.Celery, exchange: str, routing_key: str, queue: str
) -> None:
    assert queues.sent_to(app, exchange, routing_key) == queue


@pytest.mark.parametrize(
    ("tag", "routing_key", "queue"),
    [("tag", "feed.csv", "feeds"), ("another", "feed.csv", "feeds"), (None, "x", "")],
)
def test_worker_knows_a_message_by_its_consumer_or_by_the_queues_that_it_consumes(
    app: celery.Celery, tag: str | None, routing_key: str, queue: str
) -> None:
    with app.connection_for_read() as connection:
        consumer: Any = Consumer(connection, [app.amqp.queues["feeds"]], tag_prefix="")
        consumer.consume()
        if tag == "tag":
            [tag] = consumer._active_tags.values()  # what queues.py reads
        worker = SimpleNamespace(app=app, task_consumer=consumer)
        where = {"exchange": "feeds", "routing_key": routing_key, "consumer_tag": tag}
        message = SimpleNamespace(delivery_info=where)
        assert queues.consumed(worker, message) == queue


def queued(name: str, args: Any, **where: Any) -> Entry:
    delivery = {"exchange": "", "routing_key": "celery", **where}
    entry = received.queued(name, {"id": "id-1"}, (args, {}, {}), delivery)
    assert entry is not None
    return entry


def test_routing_key_of_an_unknown_exchange_is_no_queue() -> None:
    assert queued("shop.charge", ()).record().queue == "celery"
    assert queued("shop.charge", (), exchange="unknown", routing_key="a.b").record().queue == ""


def test_task_of_another_app_than_the_current_one_is_recorded_by_its_own_options(
    app: celery.Celery,
) -> None:
    @app.task(
        name="queues.pay",
        shared=False,
        systemtasks_masked=["card"],
        systemtasks_uid=lambda card, amount: f"of {amount}",
    )
    def pay(card: str, amount: int) -> None:
        pass

    assert app_of("queues.pay") is app
    assert app_of("nobody.knows") is celery.current_app._get_current_object()  # type: ignore[attr-defined]
    entry = queued("queues.pay", ("4111 1111", 7))
    assert b"4111" not in entry.line
    record = entry.record()
    assert (record.args, record.uid) == ('["********",7]', "of 7")


def test_signature_of_a_task_of_another_app_is_masked_by_its_own_options(
    app: celery.Celery,
) -> None:
    @app.task(name="other.refund", shared=False, systemtasks_masked=["card"])
    def refund(card: str) -> None:
        pass

    entry = queued("tests.succeed", (dict(refund.s("4111 1111")),))
    assert b"4111" not in entry.line


def test_task_sent_by_itself_is_recorded_under_the_queue_of_its_app(app: celery.Celery) -> None:
    @app.task(name="other.work", shared=False)
    def work() -> None:
        pass

    record = queued("other.work", (), exchange="work", routing_key="work").record()
    assert record.queue == "work"
