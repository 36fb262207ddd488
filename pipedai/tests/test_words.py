"""What people read says one thing with one word, the glossary's (docs/glossary.md), and in plain English."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipedai.env import BASE_DIR
from testing.world.cases import cases

# Pages and mails. Staff's pages call rows by the names that the database and the logs have for them.
TEMPLATES = (
    "console/templates/**/*.html",
    "pipedai/templates/**/*.html",
    "pipedai/templates/**/*.txt",
)
OF_STAFF = ("/staff/", "/admin/")
# What the console itself says, why a run waits or how it ended, and what mails, Slack and webhooks tell.
OF_PAGES = ("console/**/*.py", "triggers/reasons.py", "triggers/explain/*.py", "notices/**/*.py")
# All modules whose sentences people read: the API's errors, the command lines, the pages of staff.
OF_ALL = (
    *(
        "accounts/**/*.py",
        "agent/pipedai_worker/**/*.py",
        "audit/**/*.py",
        "cli/pipedai_cli/**/*.py",
    ),
    *(
        "console/**/*.py",
        "notices/**/*.py",
        "pipedai/**/*.py",
        "triggers/**/*.py",
        "workers/**/*.py",
    ),
    "workspaces/**/*.py",
)
# What people read about the service. Code, decisions and the architecture may say more exactly how it does something.
DOCUMENTS = ("API.md", "README.md", "docs/*.md", "agent/*.md", "cli/*.md")
OF_CODE = ("docs/architecture.md", "docs/glossary.md")


class Word(NamedTuple):
    """A pattern that must not be found, what to say instead, and where that counts. `but` is what may stand there all
    the same, because it means another thing.
    """

    pattern: str
    instead: str
    places: tuple[str, ...]
    but: str = r"(?!)"


WORDS = {
    "worker": Word(
        r"\bworkers?\b",
        "machine: what people add and see",
        (*TEMPLATES, *OF_PAGES),
        # The program itself, which a person starts and whose log they read.
        r"worker program|worker's log|several workers|pipedai-worker",
    ),
    "host": Word(
        r"\bhosts?\b",
        "machine; a host is what a network name means",
        (*TEMPLATES, *OF_PAGES),
        r"[Hh]ost name|another host|docs/hosts\.md",
    ),
    "disabled": Word(
        r"\b(?:dis|en)abled?\b",
        "paused, and to resume",
        (*TEMPLATES, *OF_ALL, *DOCUMENTS),
        # The words of which `pipedai/events.py` makes audit actions.
        r"^enabled disabled$",
    ),
    "address": Word(
        r"(?<![Ee]-mail )(?<!IP )\baddress(?:es)?\b",
        "e-mail address; an IP address is another thing",
        (
            *TEMPLATES,
            "accounts/**/*.py",
            "console/**/*.py",
            "notices/**/*.py",
            "workspaces/members.py",
        ),
    ),
    "email": Word(
        r"(?<!\[)\b(?:[Ee]-mails?(?! address)|[Ee]mails?)\b",
        "e-mail address, or mail for what comes there",
        (*TEMPLATES, "console/**/*.py"),
    ),
    "sealed": Word(r"\b[Ss]eal(?:ed|s)?\b", "encrypted", (*TEMPLATES, *OF_ALL, *DOCUMENTS)),
    "ledger": Word(r"\bledger\b", "stay listed", (*TEMPLATES, "console/**/*.py")),
    # What the console's first pages said, in riddles.
    "riddles": Word(
        r"\bWell\b|What it (?:told|said)|Begun by|Or not\b|Has it come|[Bb]egins anew|[Oo]f it notional|Key in files"
        r"|for others right now|into it\b|marked below|It is here|Not over\b|\bGets in\b|like that\b|called so\b",
        "a word that a newcomer knows",
        (*TEMPLATES, "console/**/*.py"),
    ),
}


@cases("name", [*WORDS])
def test_people_read_one_word_for_one_thing(name):
    word = WORDS[name]
    found = [
        f"{path.relative_to(BASE_DIR)}: {text.strip()[:160]}"
        for path in sorted({path for glob in word.places for path in BASE_DIR.glob(glob)})
        if not _is_left_out(path)
        for text in _texts(path)
        if re.search(word.pattern, re.sub(word.but, "", text))
    ]
    assert found == [], "\n".join([f"say instead: {word.instead}", *found])


def _is_left_out(path: Path) -> bool:
    place = path.relative_to(BASE_DIR).as_posix()
    if "/tests/" in place or "/migrations/" in place:
        return True
    return place in OF_CODE or any(each in place for each in OF_STAFF)


@cache
def _texts(path: Path) -> tuple[str, ...]:
    read = {".py": _sentences, ".md": _prose}.get(path.suffix, _seen)
    return tuple(_CALL.sub("…", text) for text in read(path))


# A call of the API, which a remedy names, and what it sends.
_CALL = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE) /[\w/:-]+(?: \([^)]*\))?")


def _prose(path: Path) -> list[str]:
    """Returns the lines of a document without code, and without where links lead."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]+`|\]\([^)]*\)|https?://\S+", "…", text).splitlines()


def _seen(path: Path) -> Iterator[str]:
    """Yields what a template shows or has spoken: its text, and the attributes that hold words."""
    text = re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "…", path.read_text(), flags=re.DOTALL)
    text = re.sub(
        r"<(?:script|style|code|pre)\b.*?</(?:script|style|code|pre)>", " ", text, flags=re.DOTALL
    )
    yield from re.findall(r"\b(?:aria-label|placeholder|title|alt)=\"([^\"]*)\"", text)
    yield from re.sub(r"<[^>]*>", "\n", text).splitlines()


def _sentences(path: Path) -> Iterator[str]:
    """Yields the texts of a module that have several words, except docstrings, statements of SQL and logged lines."""
    tree = ast.parse(path.read_text())
    parts = {
        id(part): None
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts[id(node.value)] = None
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts
        ):
            text = node.value
        else:
            continue
        if _A_SENTENCE.search(text) and not _NO_SENTENCE.search(text):
            yield text


_A_SENTENCE = re.compile(r"\w[,;]? \w")
# SQL, and names of fields that stand in one text with blanks between them.
_NO_SENTENCE = re.compile(
    r"\b(?:SELECT|FROM|UPDATE|WHERE|AND|SET|IN|IS|NOT|ON)\b|^[\w ]*[a-z][A-Z][\w ]*$"
)
