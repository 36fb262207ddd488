"""Each package that our code imports is one that its requirements name, not one that only another package brings."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from django.conf import settings

BASE: Path = settings.BASE_DIR
SERVICE = (
    "accounts",
    "audit",
    "console",
    "notices",
    "pipedai",
    "triggers",
    "workers",
    "workspaces",
)
TOOLS = ("bench", "bin", "testing", "deploy", "conftest.py")
OWN = {*SERVICE, "bench", "bin", "testing", "deploy", "tests", "conftest", "pipedai_worker"}
OWN |= {"pipedai_cli", "cli_tests", "manage"}
# Every virtual environment has it.
OWN.add("pip")


def named(*files: str) -> set[str]:
    """Returns the packages that files of requirements name."""
    lines = [line for file in files for line in (BASE / file).read_text().splitlines()]
    return {_name(line) for line in lines if re.match(r"[A-Za-z]", line)}


def named_by_project(folder: str) -> set[str]:
    project = tomllib.loads((BASE / folder / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    return {_name(each) for group in (project["dependencies"], *extras) for each in group}


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def undeclared(folders: tuple[str, ...], declared: set[str], *, tests: bool) -> Iterator[str]:
    brought = packages_distributions()
    for folder in folders:
        place = BASE / folder
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if not tests and ("tests" in path.parts or path.name == "conftest.py"):
                continue
            for name in sorted(_imported(path) - OWN - sys.stdlib_module_names):
                if not {_name(each) for each in brought.get(name, [name])} & declared:
                    yield f"{path.relative_to(BASE)} imports {name}"


def _imported(path: Path) -> set[str]:
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.append(node.module or "")
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    ("folders", "declared", "tests"),
    [
        (SERVICE, named("requirements.in", "requirements-otel.in"), False),
        (("agent/pipedai_worker",), named_by_project("agent"), False),
        (("cli/pipedai_cli",), named_by_project("cli"), False),
        (
            (*SERVICE, *TOOLS, "agent/tests", "cli/tests"),
            named("requirements.in", "requirements-dev.in", "requirements-otel.in"),
            True,
        ),
    ],
    ids=["the service", "the worker", "the command line", "tests and tools"],
)
def test_what_is_imported_is_declared(
    folders: tuple[str, ...], declared: set[str], tests: bool
) -> None:
    assert list(undeclared(folders, declared, tests=tests)) == []


def test_an_import_that_only_another_package_brings_is_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("import sqlparse\nfrom rest_framework import views\n")
    assert _imported(tmp_path / "module.py") == {"sqlparse", "rest_framework"}
    assert "sqlparse" not in named("requirements.in")
