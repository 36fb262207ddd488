"""Plays a shell command that claude runs in the background. When the command ends, claude goes on working."""

from __future__ import annotations

import time
import uuid

from pipedai_worker.stand_in.conversation import Conversation

_DESCRIPTION = "Work in the background"


class BackgroundTask:
    """One shell command in the background, which the model has started."""

    def __init__(self, talk: Conversation, seconds: float) -> None:
        """Write the events by which the model starts the command and claude says that the command runs."""
        self._talk = talk
        self._seconds = seconds
        self._task = {"task_id": uuid.uuid4().hex[:9], "run_id": uuid.uuid4().hex[:18]}
        arguments = {
            "command": f"sleep {seconds:g}",
            "description": _DESCRIPTION,
            "run_in_background": True,
        }
        self._call = talk.call("Bash", arguments)
        named = {"task_type": "local_bash", "description": _DESCRIPTION}
        talk.system("background_tasks_changed", tasks=[{**self._task, **named}])
        started = {**self._task, **named, "tool_use_id": self._call}
        talk.system("task_started", **started, is_backgrounded=True)
        returned = {
            **dict.fromkeys(("stdout", "stderr"), ""),
            **dict.fromkeys(("interrupted", "isImage", "noOutputExpected"), False),
            "backgroundTaskId": self._task["task_id"],
        }
        permitted = {"decision": "accept", "source": "user_permanent", "reason_type": "rule"}
        text = f"Command running in background with ID: {self._task['task_id']}."
        how = {"permission_decision": permitted}
        talk.answer(self._call, text, returned=returned, how=how, is_error=False)

    def end(self) -> dict[str, object]:
        """Wait until the command ends, and write the events about that.

        Claude then goes on working and gives another result. Return the field `origin` of that result.
        """
        time.sleep(self._seconds)
        patch = {"status": "completed", "end_time": round(time.time() * 1000)}
        self._talk.system("task_updated", **self._task, patch=patch)
        self._talk.system(
            "task_notification",
            **self._task,
            tool_use_id=self._call,
            status="completed",
            output_file="",
            summary=f'Background command "{_DESCRIPTION}" completed (exit code 0)',
        )
        self._talk.system("background_tasks_changed", tasks=[])
        run_id = self._task["run_id"]
        return {"kind": "task-notification", "producer": "session-task", "runId": run_id}
