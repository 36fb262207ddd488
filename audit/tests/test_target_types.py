"""Staff can go from an audit entry to its target, whatever type that is of."""

import ast
from collections.abc import Iterator

from pipedai.admin.site import model_named
from pipedai.env import BASE_DIR
from workspaces.resources import Resource

CODE = ("pipedai", "accounts", "workspaces", "triggers", "workers", "notices", "audit")
# Entries of these types are about no row, or about one that has no page: an address that channels write to.
WITHOUT_ROW = {"audit-log", "address"}


def target_types() -> Iterator[str]:
    """The fourth argument of each Event in product code."""
    for app in CODE:
        for path in (BASE_DIR / app).rglob("*.py"):
            if "tests" in path.parts or "Event(" not in (code := path.read_text()):
                continue
            for node in ast.walk(ast.parse(code)):
                if not isinstance(node, ast.Call) or getattr(node.func, "id", None) != "Event":
                    continue
                target = node.args[3]
                if ast.unparse(target) == "self.noun":
                    yield from (resource.noun for resource in Resource.__subclasses__())
                    continue
                assert isinstance(target, ast.Constant), f"{path}:{node.lineno}"
                yield str(target.value)


def test_every_target_type_of_the_code_has_a_page():
    without = {name for name in target_types() if model_named(name) is None}
    assert without == WITHOUT_ROW
