"""The kinds of callers of the API, and who of them may call a route."""

from dataclasses import dataclass

# Each kind of caller, in the order of a matrix's columns; pipedai/api/tests/test_permissions.py makes their clients.
PEOPLE = ("viewer", "operator", "admin", "owner")
KEYS = ("pwk viewer", "pwk operator", "pwk admin")
OTHER_TOKENS = ("wkt", "wkt of another", "wrk", "hos", "hos elsewhere")
CALLERS = ("nobody", "stranger", *PEOPLE, *KEYS, "pwk elsewhere", *OTHER_TOKENS, "deactivated")


@dataclass(frozen=True)
class Audience:
    """Who may call a route. `refusals` has the status of every caller who is not answered.

    `name` is what a section of API.md begins with if this audience may call the route.
    """

    name: str
    refusals: dict[str, int]

    def statuses(self, answer: int) -> dict[str, int]:
        """The status for each caller of a route that answers those who may call it with `answer`."""
        return {caller: self.refusals.get(caller, answer) for caller in CALLERS}


def _everyone_but(*answered: str, **others: int) -> dict[str, int]:
    """401 for all but these; `others` are given with `_` in place of spaces."""
    told = {name.replace("_", " "): status for name, status in others.items()}
    return {caller: 401 for caller in CALLERS if caller not in answered} | told


def _members(name: str, *, least: str) -> Audience:
    """Members with this role or a higher one, and `pwk_` keys of the environment with it."""
    rank = PEOPLE.index(least)
    too_low = dict.fromkeys((*PEOPLE[:rank], *KEYS[:rank]), 403)
    refused = _everyone_but(*PEOPLE, *KEYS, stranger=404, pwk_elsewhere=404)
    return Audience(name, refused | too_low)


PUBLIC = Audience("Public", {})
# Public as well, but to log in or out: a token is refused.
BROWSER = Audience("Public", dict.fromkeys((*KEYS, "pwk elsewhere", *OTHER_TOKENS), 401))
# Everybody whose credentials are good, except a `wrk_` token, which can only register a worker.
ANY_CREDENTIAL = Audience(
    "Any credentials",
    _everyone_but(
        *("stranger", *PEOPLE, *KEYS, "pwk elsewhere"),
        *(each for each in OTHER_TOKENS if each != "wrk"),
    ),
)
SIGNED_IN = Audience("Session.", _everyone_but("stranger", *PEOPLE))
VIEWER = _members("Viewer", least="viewer")
OPERATOR = _members("Operator", least="operator")
ADMIN = _members("Admin", least="admin")
OWNER = _members("Owner", least="owner")
# A worker's own token.
WORKER = Audience("The worker itself", _everyone_but("wkt", wkt_of_another=404))
# The token with which a worker registers.
REGISTRATION = Audience("Public", _everyone_but("wrk"))
# The key of a host that enrolled, or a `pwk_` key of an admin.
HOST = Audience(
    "`hos_` keys",
    _everyone_but(
        "pwk admin",
        "hos",
        pwk_viewer=403,
        pwk_operator=403,
        pwk_elsewhere=404,
        hos_elsewhere=404,
    ),
)
# A hook, which takes no credentials but the signature of its source.
UNSIGNED = Audience("Public", dict.fromkeys(CALLERS, 401))
# Those that are told apart by their names.
AUDIENCES = (PUBLIC, ANY_CREDENTIAL, SIGNED_IN, VIEWER, OPERATOR, ADMIN, OWNER, WORKER, HOST)
