"""Everything that app.json names exists."""

import json
import re

from pipedai.env import BASE_DIR

APP = json.loads((BASE_DIR / "app.json").read_text())


def test_its_settings_are_ours():
    known = re.findall(r"^#([A-Z_]+)=", (BASE_DIR / ".env.example").read_text(), re.MULTILINE)
    assert APP["env"].keys() <= set(known)


def test_its_process_types_are_the_procfiles():
    procfile = (BASE_DIR / "Procfile").read_text()
    assert {f"{name}:" for name in APP["formation"]} <= set(procfile.split())
