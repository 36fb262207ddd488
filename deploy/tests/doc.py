"""Reads the commands in a document, so that the tests run exactly these."""

import re

from pipedai.env import BASE_DIR


def commands(heading: str, document: str = "deploy.md") -> list[str]:
    """Returns the `sh` blocks of a section of a document in docs/ and of its subsections, in order."""
    text = (BASE_DIR / "docs" / document).read_text()
    level = heading.partition(" ")[0]
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, heading
    section = re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
