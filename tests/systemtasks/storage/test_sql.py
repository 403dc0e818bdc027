"""Every statement has a text that says its purpose, and when it does nothing."""

import ast
from itertools import pairwise
from pathlib import Path

from systemtasks.storage import sql


def test_every_statement_has_a_description_that_says_when_it_does_nothing() -> None:
    descriptions = {}
    for node, following in pairwise(ast.parse(Path(sql.__file__).read_text()).body):
        if isinstance(node, ast.Assign) and isinstance(following, ast.Expr):
            text = ast.literal_eval(following.value)
            descriptions[ast.unparse(node.targets[0])] = " ".join(text.split())
    statements = [name for name, value in vars(sql).items() if isinstance(value, sql.Statement)]

    assert len(statements) >= 10
    for name in statements:
        assert "Does nothing" in descriptions[name], name
