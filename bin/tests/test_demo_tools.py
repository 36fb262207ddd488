"""The demo's MCP server answers what a client asks, and refuses the rest."""

import httpx
import pytest

from pipedai_worker.stand_in.mcp_server import answer
from pipedai_worker.stand_in.tools import McpClient, McpError
from testing.processes.tools_server import tools_server


@pytest.fixture(scope="module")
def url():
    with tools_server() as url:
        yield url


def test_a_client_calls_its_tool(url):
    client = McpClient({"url": url})
    client.connect()
    assert [tool["name"] for tool in client.tools] == ["local_time"]
    (block,) = client.call("local_time", {})["content"]
    assert block["text"].startswith("It is ")
    with pytest.raises(McpError, match="no such tool"):
        client.call("other", {})


def test_what_it_does_not_know_is_an_error():
    assert "error" in answer({"method": "resources/list"}, {})
    assert answer({"method": "ping"}, {}) == {"result": {}}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b" " * 1_000_001])
def test_a_body_that_is_no_message_is_refused(url, body):
    assert httpx.post(url, content=body).status_code == 400


def test_it_has_no_stream_and_nothing_elsewhere(url):
    assert httpx.get(url).status_code == 405
    assert httpx.post(f"{url}/other", json={"id": 1}).status_code == 400
