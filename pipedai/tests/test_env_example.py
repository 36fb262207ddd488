"""`.env.example` lists all variables that the code reads from the environment, and no others."""

import re
from collections import Counter
from itertools import pairwise

from pipedai import env

PACKAGES = (
    "pipedai",
    "accounts",
    "workspaces",
    "triggers",
    "workers",
    "notices",
    "audit",
    "console",
)
LISTED = re.compile(r"#?([A-Z][A-Z0-9_]*)=")
READ = re.compile(
    r"""(?: \b(?:text|flag|whole|words|choice|semver|database_url|email_url)\(
        | \bos\.(?:getenv\(|environ(?:\[|\.get\()) )
        \s*"([A-Z][A-Z0-9_]*)\"""",
    re.VERBOSE,
)
# The XDG standard and OpenTelemetry define these variables, so the file need not list them.
STANDARD = {
    "XDG_DATA_HOME", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME", "OTEL_SDK_DISABLED",
}  # fmt: skip
GROUPS = ("Needed in production", "Usual", "Rare")


def example():
    return (env.BASE_DIR / ".env.example").read_text().splitlines()


def names_listed():
    return [found[1] for line in example() if (found := LISTED.match(line))]


def test_every_variable_that_is_read_is_listed_once_and_every_one_listed_is_read():
    read = {
        name
        for package in PACKAGES
        for path in (env.BASE_DIR / package).rglob("*.py")
        if "tests" not in path.parts
        for name in READ.findall(path.read_text())
    }
    assert Counter(names_listed()) == Counter(read - STANDARD)


def test_each_variable_is_explained_by_one_line_above_it():
    for (before, above), (_, line) in pairwise(pairwise(example())):
        if LISTED.match(line):
            assert (before, above[:2]) == ("", "# "), line


def test_there_are_few_in_three_groups():
    groups = [found[1] for line in example() if (found := re.match("# === (.*?) =", line))]
    assert tuple(groups) == GROUPS
    assert len(names_listed()) <= 39


def test_a_line_of_the_file_that_cannot_be_read_is_not_shown(tmp_path, caplog):
    (tmp_path / ".env").write_text("SECRET_KEY = planted\n")
    env.read_file(tmp_path / ".env")
    assert "planted" not in caplog.text
    assert ".env" in caplog.text
