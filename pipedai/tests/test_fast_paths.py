"""Each way round the framework is explained: its place points to the page, and the page to tests that exist."""

import re

from pipedai.env import BASE_DIR

PAGE = "docs/decisions/fast-paths.md"
TEXT = (BASE_DIR / PAGE).read_text()
CODE = ("accounts", "audit", "console", "notices", "pipedai", "triggers", "workers", "workspaces")
# The settings tell which calls pass by the middleware.
BESIDES = {"pipedai/settings.py"}


def places() -> set[str]:
    lines = re.findall(r"^- \*\*Where:\*\*(.*(?:\n  .*)*)", TEXT, re.MULTILINE)
    return {path for line in lines for path in re.findall(r"`([\w/]+\.py)`", line)}


def test_each_place_points_to_the_page_and_no_other():
    pointing = {
        str(path.relative_to(BASE_DIR))
        for app in CODE
        for path in (BASE_DIR / app).rglob("*.py")
        if "tests" not in path.parts and f"See {PAGE}." in path.read_text()
    }
    assert pointing == places() | BESIDES


def test_each_section_has_place_gain_trap_and_tests():
    for section in TEXT.split("\n## ")[1:]:
        found = re.findall(r"^- \*\*(\w+):\*\* ", section, re.MULTILINE)
        assert found == ["Where", "Gain", "Trap", "Tests"], section


def test_each_test_that_the_page_names_is_there():
    files = set(re.findall(r"`([\w/]+/test_\w+\.py)`", TEXT))
    names = set(re.findall(r"`(test_\w+)`", TEXT))
    defined = {
        name
        for path in files
        for name in re.findall(r"def (test_\w+)\(", (BASE_DIR / path).read_text())
    }
    assert len(names) > 10
    assert names - defined == set()
