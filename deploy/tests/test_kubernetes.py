"""The example for Kubernetes names what there is: settings, commands, ports and the paths of the probes."""

from collections.abc import Iterator
from typing import Any

import yaml
from django.urls import resolve

from bin.services import procfile
from pipedai.env import BASE_DIR
from pipedai.tests.test_env_example import names_listed

FOUND = {
    (each["kind"], each["metadata"]["name"]): each
    for each in yaml.safe_load_all((BASE_DIR / "deploy/kubernetes/pipedai.yaml").read_text())
}


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name of each workload with its one container."""
    for (kind, name), each in FOUND.items():
        if kind in ("Job", "Deployment"):
            (container,) = each["spec"]["template"]["spec"]["containers"]
            yield name.removeprefix("pipedai-"), container


def test_all_that_it_sets_are_settings():
    given = {*FOUND["Secret", "pipedai"]["stringData"], *FOUND["ConfigMap", "pipedai"]["data"]}
    given |= {each["name"] for _, container in containers() for each in container.get("env", [])}
    assert given <= set(names_listed())


def test_it_has_the_processes_of_the_procfile_and_they_have_the_settings():
    processes = procfile(BASE_DIR / "Procfile")
    assert {name for name, _ in containers()} == processes.keys()
    for name, container in containers():
        # The web process is the image's own command.
        assert processes[name].endswith(" ".join(container.get("command", [])))
        assert ("command" in container) is (name != "web")
        assert container["envFrom"] == [
            {"secretRef": {"name": "pipedai"}}, {"configMapRef": {"name": "pipedai"}},
        ]  # fmt: skip
        assert container["securityContext"]["readOnlyRootFilesystem"]


def test_the_probes_and_the_service_ask_what_answers():
    probes = {
        name: [each for key, each in container.items() if key.endswith("Probe")]
        for name, container in containers()
    }
    assert {name: len(each) for name, each in probes.items()} == {
        "release": 0,
        "web": 3,
        "scheduler": 1,
    }
    for name, container in containers():
        for probe in probes[name]:
            (asked,) = (probe[key] for key in ("httpGet", "tcpSocket") if key in probe)
            assert {"containerPort": asked["port"]} in container["ports"]
            if "path" in asked:
                assert resolve(asked["path"])
    (service,) = FOUND["Service", "pipedai"]["spec"]["ports"]
    assert service["targetPort"] == 8000
