"""Finds the tests that a change concerns, by what imports what (`bin/test --changed`)."""

import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp

from bin.source_check import git

# These folders have packages of their own: the worker and the command line, with their tests.
_OTHER_ROOTS = ("agent", "cli", "cli/tests")
_PACKAGES_OF_TESTS = ("tests", "cli_tests")


def files(root: Path) -> list[str]:
    """Return the files that differ from the commit of `main` where this branch began, also uncommitted ones."""
    left = _git(root, "merge-base", "HEAD", "main") or _git(
        root, "merge-base", "HEAD", "origin/main"
    )
    changed = _git(root, "diff", "--name-only", *left or ["HEAD"])
    return [*changed, *_git(root, "ls-files", "--others", "--exclude-standard")]


def tests(root: Path, changed: list[str]) -> list[str]:
    """Return the test files that changed, lie beside a changed file, import it, or name it if it is no module."""
    graph = _graph(root)
    modules = {_module(path): path for path in _git(root, "ls-files", "-co", "*.py")}
    found: set[str] = set()
    for path in changed:
        if path.endswith(".py"):
            found.update(
                modules[each] for each in _importers(graph, _module(path)) if each in modules
            )
            folder = Path(path).parent
            found.update(each for each in modules.values() if Path(each).parent == folder / "tests")
            if Path(path).name == "conftest.py":
                found.update(each for each in modules.values() if folder in Path(each).parents)
        else:
            found.update(_git(root, "grep", "-lF", Path(path).name, "--", "*/tests/*.py"))
    return sorted(
        each for each in found if Path(each).name.startswith("test_") and (root / each).exists()
    )


def _importers(graph: grimp.ImportGraph, module: str) -> Iterator[str]:
    """Yield a module and all that import it, but not through `testing`, which nearly all tests import."""
    seen, waiting = {module}, [module]
    while waiting:
        each = waiting.pop()
        yield each
        passes_on = (
            each == module or not each.startswith("testing.") or module.startswith("testing.")
        )
        if each in graph.modules and passes_on:
            new = graph.find_modules_that_directly_import(each) - seen
            seen |= new
            waiting += new


@cache
def _graph(root: Path) -> grimp.ImportGraph:
    config = tomllib.loads((root / "pyproject.toml").read_text())
    packages = [*config["tool"]["importlinter"]["root_packages"], *_PACKAGES_OF_TESTS]
    before = sys.path[:]
    # Grimp looks for packages where Python does.
    sys.path[:0] = [str(root / each) for each in ("", *_OTHER_ROOTS)]
    try:
        return grimp.build_graph(*packages, cache_dir=str(root / ".import_linter_cache"))
    finally:
        sys.path[:] = before


def _module(path: str) -> str:
    for other in sorted(_OTHER_ROOTS, key=len, reverse=True):
        path = path.removeprefix(f"{other}/")
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _git(root: Path, *arguments: str) -> list[str]:
    return git(root, *arguments).splitlines()
