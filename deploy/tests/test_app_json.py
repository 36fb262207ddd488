"""Everything that app.json names exists."""

import json

from pipedai.env import BASE_DIR
from pipedai.tests.test_env_example import names_listed

APP = json.loads((BASE_DIR / "app.json").read_text())


def test_its_settings_are_ours():
    assert APP["env"].keys() <= set(names_listed())


def test_its_process_types_are_the_procfiles():
    procfile = (BASE_DIR / "Procfile").read_text()
    assert {f"{name}:" for name in APP["formation"]} <= set(procfile.split())
