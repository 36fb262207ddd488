"""Remembers from which addresses a workspace's signed events come (SPEC §25).

Many tenants' events come from the same few addresses of a provider. So requests to a hook share what is scarce as their
workspace's, once the source has signed from that address, and as the address's before.
"""

from collections.abc import Hashable
from threading import Lock
from uuid import UUID

from pipedai.server.headers import HOOKS

# A process remembers so many pairs of a source and an address: those whose signed events came last.
_MOST = 10_000
_workspaces: dict[tuple[str, str], UUID] = {}
# Threads note senders at the same time.
_noting = Lock()


def note_sender(source_id: UUID, address: str, workspace_id: UUID) -> None:
    """Notes that a source of the workspace has signed a request from the address. Who only names the source, from
    another address, does not get into the workspace's turn.
    """
    sender = (str(source_id), address)
    with _noting:
        _workspaces.pop(sender, None)
        _workspaces[sender] = workspace_id
        if len(_workspaces) > _MOST:
            del _workspaces[next(iter(_workspaces))]


def group_of(path: str, address: str) -> Hashable:
    """Returns who a request to this path counts for: a workspace whose events come from the address, or the address."""
    if not path.startswith(HOOKS):
        return address
    return _workspaces.get((path.removeprefix(HOOKS), address), address)
