"""GET /releases/latest"""

import pytest
from django.core.exceptions import ImproperlyConfigured

from pipedai import env
from pipedai.version import VERSION
from testing.world.cast import browser
from workers.releases import cli_package, worker_package


def test_it_tells_this_builds_worker_and_the_orchestrator_of_the_settings(settings):
    settings.LATEST_ORCHESTRATOR_VERSION = "0.8.0-rc.1"
    settings.PUBLIC_URL = "https://api.example.com"

    def told(name, package):
        url = f"https://api.example.com/downloads/{name}-{VERSION}-py3-none-any.whl"
        return {
            "latest": VERSION,
            "source": "build",
            "url": url,
            "sha256": package.sha256,
            "install": f"pipx install '{url}#sha256={package.sha256}'",
        }

    assert browser().get("/api/v1/releases/latest").json() == {
        "pipedaiWorker": told("pipedai_worker", worker_package()),
        "pipedai": told("pipedai", cli_package()),
        "pipedaiOrchestrator": {"latest": "0.8.0-rc.1", "source": "settings"},
    }


@pytest.mark.parametrize("value", ["1.2.3", "0.1.0-rc.1", "1.0.0+build.5", "10.20.30-a-b.0.x"])
def test_a_semantic_version_is_taken(monkeypatch, value):
    monkeypatch.setenv("LATEST_ORCHESTRATOR_VERSION", value)
    assert env.semver("LATEST_ORCHESTRATOR_VERSION", "0.0.0") == value


@pytest.mark.parametrize(
    "value", ["1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-01", "latest", "1.2.3+"]
)
def test_anything_else_is_refused_at_the_start(monkeypatch, value):
    monkeypatch.setenv("LATEST_ORCHESTRATOR_VERSION", value)
    with pytest.raises(
        ImproperlyConfigured, match="LATEST_ORCHESTRATOR_VERSION must be a semantic version"
    ):
        env.semver("LATEST_ORCHESTRATOR_VERSION", "0.0.0")
