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
# The XDG standard and not PipedAI defines this variable, so the file need not list it.
STANDARD = {"XDG_DATA_HOME"}


def example():
    return (env.BASE_DIR / ".env.example").read_text().splitlines()


def test_every_variable_that_is_read_is_listed_once_and_every_one_listed_is_read():
    listed = Counter(found[1] for line in example() if (found := LISTED.match(line)))
    read = {
        name
        for package in PACKAGES
        for path in (env.BASE_DIR / package).rglob("*.py")
        if "tests" not in path.parts
        for name in READ.findall(path.read_text())
    }
    assert listed == Counter(read - STANDARD)


def test_each_variable_is_explained_by_a_comment_above_it():
    for above, line in pairwise(example()):
        if LISTED.match(line):
            assert above.startswith("# "), line
