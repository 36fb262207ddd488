"""The validation of customers' URLs accepts good ones and refuses bad ones."""

from pipedai.api.outside_urls import check_url
from testing.world.cases import cases

HOST = "Must be an http or https URL with a host."
USERINFO = "Must not hold a user name or password."
BLANKS = "Must not hold spaces or control characters."
NO_HOST = "Its host is not valid."


@cases(
    "url",
    [
        "https://mcp.example/v1",
        "http://mcp.example",
        "HTTPS://MCP.example:8443/a?b=c#d",
        "http://127.0.0.1:9000/mcp",
        "http://[::1]:9000/",
        "http://[fe80::1%25eth0]/",
        "https://mcp.example./",
        "https://under_score.example/",
        "https://mcp.example/?to=a@b.example",
        "https://mcp.example/a@b",
        "https://müller.example/",
        f"https://{'a' * 245}.example/",
    ],
)
def test_an_absolute_url_with_a_host_is_taken(url):
    assert check_url(url) is None


@cases(
    ("url", "problem"),
    [
        ("", HOST),
        ("mcp.example", HOST),
        ("//mcp.example/v1", HOST),
        ("/v1", HOST),
        ("https:", HOST),
        ("https://", HOST),
        ("https:///v1", HOST),
        ("https://:443/", HOST),
        ("https:mcp.example", HOST),
        ("ftp://mcp.example", HOST),
        ("file:///etc/passwd", HOST),
        ("javascript:alert(1)", HOST),
        ("ws://mcp.example", HOST),
        ("https://user@mcp.example", USERINFO),
        ("https://user:secret@mcp.example", USERINFO),
        ("https://:@mcp.example", USERINFO),
        ("https://@mcp.example", USERINFO),
        ("https://mcp.example/a b", BLANKS),
        ("https://mcp.example/\u00a0", BLANKS),
        ("https://mcp.example/\u202e", BLANKS),
        ("https://mcp .example/", BLANKS),
        ("https://mcp.example/\x7f", BLANKS),
        ("https://mcp.example:port/", "Not a URL."),
        ("https://mcp.example:99999/", "Not a URL."),
        ("https://[::1/", "Not a URL."),
        ("https://mcp.example:0/", "Its port must not be 0."),
        ("https://mcp.example\\.other.example/", NO_HOST),
        ("https://mcp.example%00/", NO_HOST),
        ("https://mcp.example%2f/", NO_HOST),
        ("https://mcp.example%20/", NO_HOST),
        ("https://mcp^example/", NO_HOST),
        ("https://mcp..example/", NO_HOST),
        ("https://.mcp.example/", NO_HOST),
        ("https://./", NO_HOST),
        ("https://../", NO_HOST),
        (f"https://{'a' * 246}.example/", "Its host must not be over 253 characters."),
    ],
)
def test_anything_else_is_told_what_is_wrong(url, problem):
    assert check_url(url) == problem


def test_in_production_webhooks_need_https():
    assert (
        check_url("http://hooks.example/", https_only=True) == "Must be an https URL with a host."
    )
    assert check_url("https://hooks.example/", https_only=True) is None
