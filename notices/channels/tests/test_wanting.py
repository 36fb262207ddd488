"""Which channels a result reaches by its `when`."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from notices.channels.announcements import Announcement
from notices.channels.queueing import wants
from notices.states import RUN_RESULT


def test_all_channels_of_a_result_share_what_its_lists_were_searched_for() -> None:
    environment_id = uuid4()
    run = {"triggerId": "t", "status": "succeeded", "nothingNew": False}
    document: dict[str, Any] = {"output": {"found": list(range(1_000)), "text": "long " * 1_000}}
    announcement = Announcement(
        environment_id, RUN_RESULT, "", datetime.now(UTC), {"run": run}, document=document
    )
    searched = announcement.searched.members
    for value, path, is_wanted in (
        (7, "found", True),
        (-7, "found", False),
        ("ng l", "text", True),
    ) * 2:
        clause = {"path": f"/output/{path}", "op": "contains", "value": value}
        channel = {
            "environment_id": environment_id,
            "events": [RUN_RESULT],
            "trigger_ids": None,
            "tells_when": json.dumps([clause]),
        }
        kept = dict(searched)
        assert wants(channel, announcement) is is_wanted
        # A second channel finds the very set that the first one made.
        assert all(searched[key] is members for key, members in kept.items())
    assert [*searched] == [id(document["output"]["found"])]
    assert announcement.searched.characters == 0
