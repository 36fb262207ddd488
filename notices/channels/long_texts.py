"""Makes the plain texts of what may tell much: results and summaries (SPEC §26)."""

import json
from collections.abc import Callable
from typing import Final

from notices.channels.plain import fit
from notices.channels.results import result_facts, result_title, said_lines
from notices.channels.summary_words import summary_lines, summary_title
from notices.states import RUN_RESULT, SUMMARY
from pipedai.sql import Row

# The events that are plain text alone, also by mail.
LONG: Final = (RUN_RESULT, SUMMARY)


def long_text(
    row: Row, most: int, size: Callable[[str], int], *, most_items: int
) -> tuple[str, list[str]]:
    """Returns the title and the lines of a claimed notice, which together have the size `most` at most. Of a summary's
    items, `most_items` of each kind are told.
    """
    body, environment = json.loads(row["body"]), row["environment_name"]
    if row["event"] == SUMMARY:
        title = summary_title(body["summary"], environment)
        lines = summary_lines(body["summary"], environment, most_items)
        return title, fit(lines, most - size(title) - 1, size)
    run, output = body["run"], row["run_output"]
    title, facts = result_title(run), result_facts(run, environment, row["timezone"])
    most -= sum(size(line) + 1 for line in (title, "", *facts))
    said = said_lines(run, output and json.loads(output), has_output=output is not None)
    return title, [*fit(said, most, size), "", *facts]
