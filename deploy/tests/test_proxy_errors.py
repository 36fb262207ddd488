"""The errors that a proxy answers by itself have the codes that API.md lists."""

import re

from pipedai.env import BASE_DIR
from testing.probes.error_codes import CODES

JSON = {"content-type": "application/json"}
UNAVAILABLE = "service_unavailable"


def test_nginx_has_a_sentence_and_a_code_for_each_status_that_it_answers() -> None:
    conf = (BASE_DIR / "deploy/vm/nginx.conf").read_text()
    codes = _map_of(conf, "$pipedai_code")
    assert codes.pop("default") == UNAVAILABLE
    assert codes.keys() == _map_of(conf, "$pipedai_sentence").keys() - {"default"}
    assert """return 200 '{"error":"$pipedai_sentence","code":"$pipedai_code"}';""" in conf
    for status, code in [*codes.items(), ("503", UNAVAILABLE)]:
        CODES.look_at("/api/v1/", int(status), JSON, f'{{"code": "{code}"}}')
    assert CODES.faults_since_last() == []


def test_nginx_passes_on_the_largest_body_that_the_service_takes(settings) -> None:
    conf = (BASE_DIR / "deploy/vm/nginx.conf").read_text()
    (mebibytes,) = re.findall(r"client_max_body_size (\d+)m;", conf)
    assert int(mebibytes) * 1024 * 1024 == max(settings.MAX_BODY_BYTES, settings.MAX_FILES_BYTES)
    assert f'413 "The body must not be over {mebibytes} MiB.";' in conf


def test_haproxy_says_that_the_service_is_unavailable() -> None:
    config = (BASE_DIR / "deploy/ha/haproxy.cfg").read_text()
    errors = re.findall(r"http-error status (\d+) .* string '(.*?)'", config)
    assert [status for status, _ in errors] == ["502", "503", "504"]
    for status, body in errors:
        assert f'"code":"{UNAVAILABLE}"' in body
        CODES.look_at("/api/v1/", int(status), JSON, body)
    assert CODES.faults_since_last() == []


def _map_of(conf: str, variable: str) -> dict[str, str]:
    """Returns the lines of nginx's map that sets the variable, by the status."""
    (lines,) = re.findall(rf"map \$status {re.escape(variable)} {{\n(.*?)\n}}", conf, re.DOTALL)
    return dict(re.findall(r"^ +(\w+) (.+);$", lines, re.MULTILINE))
