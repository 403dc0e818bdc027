"""Find the queue of a message. Celery's requests have only its exchange and its routing key."""

import re
from typing import Any

from celery import Celery

_DELAY = re.compile(r"(?:[01]\.){28}")
"""The prefix of a routing key with RabbitMQ's delayed delivery: a countdown in bits."""
_DELAYED = re.compile(r"(?:.*_)?celery_delayed_(?:delivery|[0-9]+)")
"""The exchanges of RabbitMQ's delayed delivery."""


def is_delayed(exchange: str) -> bool:
    """Return True for an exchange of RabbitMQ's delayed delivery."""
    return _DELAYED.fullmatch(exchange) is not None


def consumed(consumer: Any, message: Any) -> str:  # noqa: ANN401 - Celery's and kombu's
    """Return the queue from which a worker's consumer took a message, or "" if it is not known."""
    delivery = message.delivery_info
    tags = getattr(getattr(consumer, "task_consumer", None), "_active_tags", {})
    # AMQP names the consumer, and kombu has a consumer for each queue. Its list has no public name.
    tag = delivery.get("consumer_tag")
    found = [queue for queue, own_tag in tags.items() if own_tag == tag] if tag else []
    if len(found) == 1:
        return str(found[0])
    queues = consumer.app.amqp.queues
    consumed = {name: queue for name, queue in queues.consume_from.items() if name in tags}
    return _only_match(consumed or queues, delivery.get("exchange"), delivery.get("routing_key"))


def sent_to(app: Celery, exchange: str, routing_key: str) -> str:
    """Return the queue to which an exchange routes a message, or "" if that is not known.

    Only the queues that the app knows are considered.
    """
    return _only_match(app.amqp.queues, exchange, routing_key)


def _only_match(queues: Any, exchange: object, routing_key: object) -> str:  # noqa: ANN401
    """Return the name of the only queue that gets a message with this exchange and routing key."""
    if not isinstance(exchange, str) or not isinstance(routing_key, str):
        return ""
    found = {name for name, queue in queues.items() if _gets(queue, exchange, routing_key)}
    return str(found.pop()) if len(found) == 1 else ""


def _gets(queue: Any, exchange: str, routing_key: str) -> bool:  # noqa: ANN401 - kombu's
    if is_delayed(exchange):
        # From there it goes to the queue's own exchange by the rest of the routing key.
        exchange_type = getattr(queue.exchange, "type", "direct")
        rest = _DELAY.sub("", routing_key, count=1)
        return exchange_type != "direct" and _matches("topic", queue.routing_key, rest)
    bindings = [(queue.exchange, queue.routing_key)]
    bindings += [(one.exchange, one.routing_key) for one in queue.bindings or ()]
    return any(
        own is not None and own.name == exchange and _matches(own.type, key, routing_key)
        for own, key in bindings
    )


def _matches(kind: str, pattern: str, routing_key: str) -> bool:
    if kind == "fanout":
        return True
    if kind == "topic":
        return _words_match((pattern or "").split("."), routing_key.split("."))
    return bool(pattern == routing_key)


def _words_match(pattern: list[str], words: list[str]) -> bool:
    """Return True if a topic's pattern matches: `*` is one word, and `#` any number of them."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], words[start:]) for start in range(len(words) + 1))
    if not words or pattern[0] not in ("*", words[0]):
        return False
    return _words_match(pattern[1:], words[1:])
