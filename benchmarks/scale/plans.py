"""Say a plan of Postgres in a line."""

from collections import Counter
from typing import Any

from django.db import connection

Plan = dict[str, Any]


def summary(explained: Plan) -> str:
    """Return the nodes of a plan, the top one first, and what it takes."""
    plan = explained["Plan"]
    parents = index_names()
    nodes: Counter[str] = Counter()
    removed = 0.0
    for node in _nodes(plan):
        if node.get("Actual Loops", 1) == 0:
            continue
        removed += sum(
            node.get(f"Rows Removed by {what}", 0) * node.get("Actual Loops", 1)
            for what in ("Filter", "Index Recheck", "Join Filter")
        )
        nodes[_named(node, parents)] += 1
    text = " ← ".join(f"{name} x{times}" if times > 1 else name for name, times in nodes.items())
    pages = plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0)
    planning, execution = explained.get("Planning Time", 0), explained.get("Execution Time", 0)
    return (
        f"planned in {planning:,.0f} ms, executed in {execution:,.0f} ms, {pages:,} pages, "
        f"{removed:,.0f} rows thrown away: {text}"
    )


def _nodes(plan: Plan) -> Any:  # noqa: ANN401 - a generator of plans
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _named(node: Plan, parents: dict[str, str]) -> str:
    kind = node["Node Type"]
    if index := node.get("Index Name"):
        return f"{kind} {parents.get(index, index)}"
    if "Relation Name" in node:
        table = node["Relation Name"]
        return f"{kind} {'runs' if table.startswith('systemtasks_taskrun') else table}"
    if keys := node.get("Sort Key"):
        return f"{kind} by {', '.join(key.rpartition('.')[2] for key in keys)}"
    return str(kind)


def index_names() -> dict[str, str]:
    """Return the names of the indexes of partitions, and that of the whole table's index."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT part.relname, whole.relname FROM pg_inherits "
            "JOIN pg_class AS part ON part.oid = inhrelid AND part.relkind = 'i' "
            "JOIN pg_class AS whole ON whole.oid = inhparent"
        )
        return dict(cursor.fetchall())
