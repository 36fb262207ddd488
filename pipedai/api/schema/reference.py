"""Reads API.md, so that the schema takes its prose and examples from there instead of repeating them."""

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from pipedai.env import BASE_DIR

_HEADING = re.compile(r"^###? ([^\n]+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"^```json\n(.*?)^```\n?", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| (`.+?`(?:(?:, | or )`.+?`)*) \| (.*) \|$", re.MULTILINE)
# The parts of a field's description that are true only when a resource is created, such as "Required" and "by default".
# In a change every field may be absent, and then stays as it is.
_OF_SOMETHING_NEW = re.compile(
    r"^Required; |; [^.;]+ by default(?=\.)|^[^.;]+ by default\. ?| \(default\)"
)
_ANSWERS = re.compile(r"^Answers: (.*?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
_AUDIT_ACTION = re.compile(r"`([a-z-]+\.[a-z-]+)`")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
# The sentence by which a section refers to another section that also explains its fields or parameters.
_EXPLAINED_BY = re.compile(
    r"(?:Parameters as for|fields that|under the rules of) \[[^\]]+\]\(#([\w-]+)\)"
)


@dataclass(frozen=True)
class Section:
    # The heading without backquotes. That of an endpoint is, for example, `GET /environments/:envId/runs`.
    heading: str
    # Its number among all sections, by which operations are sorted.
    place: int
    text: str

    @property
    def path(self) -> str:
        """The path of an endpoint in the form of a schema, `/triggers/{triggerId}`, with the names of API.md."""
        return re.sub(r":(\w+)", r"{\1}", self.heading.partition(" ")[2])

    @property
    def anchor(self) -> str:
        return anchor(self.heading)

    @property
    def prose(self) -> str:
        without = _EXAMPLE.sub("", self.text)
        paragraphs = (part.strip() for part in without.split("\n\n"))
        kept = [part for part in paragraphs if part and not part.startswith("|")]
        return plain("\n\n".join(kept))

    @property
    def fields(self) -> dict[str, str]:
        """The description of each field or parameter, from this section and from the one to which it refers."""
        own = {
            name: _sentence(row[1])
            for row in _ROW.findall(self.text)
            for name in re.findall(r"`\??(\w+)`", row[0])
        }
        linked = self.explained_by.fields if self.explained_by else {}
        if self.heading.startswith("PATCH "):
            linked = {name: of_change(text) for name, text in linked.items()}
        return {**linked, **own}

    @property
    def explained_by(self) -> "Section | None":
        if (found := _EXPLAINED_BY.search(self.text)) is None:
            return None
        (section,) = (each for each in _sections().values() if each.anchor == found[1])
        return section

    @property
    def answers(self) -> dict[int, str]:
        """The meaning of each status, or "" if the section does not explain it. They are in the paragraph that begins
        with "Answers: ", as in "Answers: 200 with the run · 401 · 404. Audit: `run.canceled`."
        """
        parts = (part.partition(" ") for part in self._endings[0].split(" · "))
        return {int(status): _sentence(meaning) for status, _, meaning in parts}

    @property
    def audit(self) -> list[str]:
        """The audit actions that a call may write."""
        return _AUDIT_ACTION.findall(self._endings[1])

    @cached_property
    def _endings(self) -> tuple[str, str]:
        found = _ANSWERS.search(self.text)
        if found is None:
            raise LookupError(
                f"API.md has no paragraph `Answers: …` in {self.heading}: see An endpoint in CONTRIBUTING.md."
            )
        answers, _, audit = " ".join(found[1].split()).partition(". Audit: ")
        return answers.removesuffix("."), audit

    @property
    def example(self) -> Any:
        found = _EXAMPLE.search(self.text)
        return None if found is None else json.loads(found[1])


def anchor(heading: str) -> str:
    """Returns the fragment that leads to a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def plain(markdown: str) -> str:
    return _LINK.sub(r"\1", markdown)


def of_change(text: str) -> str:
    """Makes a field's description fit a change, where absent fields stay: "Required" and defaults are removed."""
    return _sentence(_OF_SOMETHING_NEW.sub("", text))


def endpoint(method: str, path: str) -> Section:
    """`path` is in the form of the schema: `/triggers/{triggerId}`. Raises LookupError if there is no such section."""
    return section(f"`{method} {re.sub(r'{[^}]+}', ':id', path)}`")


def things() -> dict[str, str]:
    """Returns the headings of sections such as "The run", by the name of the component in the schema, such as `Run`."""
    found = [heading for heading in _sections() if heading.startswith("The ")]
    return {heading[4:].title().replace(" ", ""): heading for heading in found}


def section(heading: str) -> Section:
    """Raises LookupError if there is no section with this heading."""
    try:
        return _sections()[heading]
    except KeyError:
        raise LookupError(
            f"API.md has no section {heading}: see An endpoint in CONTRIBUTING.md."
        ) from None


@cache
def _sections() -> dict[str, Section]:
    text = (BASE_DIR / "API.md").read_text()
    return {
        re.sub(r":\w+", ":id", heading): Section(heading.replace("`", ""), place, body)
        for place, (heading, body) in enumerate(_HEADING.findall(text))
    }


def _sentence(text: str) -> str:
    text = plain(text).strip()
    return text and f"{text[0].upper()}{text[1:].rstrip('.')}."
