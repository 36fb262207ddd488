"""Asks a run's MCP server for its tools as a client would, before the run uses the model (SPEC §20)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from pipedai_worker.gateway import faults, limits
from pipedai_worker.gateway.conversation import (
    Conversation,
    ModernConversation,
    PostConversation,
    ServerError,
    StreamConversation,
)
from pipedai_worker.gateway.faults import ServerFailed, ServerFault
from pipedai_worker.gateway.upstream import Upstream
from pipedai_worker.gateway.waiting import Effects

# The versions of MCP in which a conversation begins with `initialize`. The probe offers the first one to the server.
VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
UNSUPPORTED_VERSION = -32022


async def probe(upstream: Upstream, effects: Effects, *, older: bool) -> ServerFault | None:
    """Initialise the server, list its tools, and end the session, in 30 s at most. Return None if it can be used."""
    try:
        await asyncio.wait_for(_probe(upstream, effects, older=older), limits.PROBE_SECONDS)
    except ServerFailed as failed:
        return failed.fault
    except asyncio.TimeoutError:
        return faults.infra(
            f"The MCP server did not tell its tools within {limits.PROBE_SECONDS:g} s."
        ).fault
    return None


async def _probe(upstream: Upstream, effects: Effects, *, older: bool) -> None:
    conversation: Conversation = (
        StreamConversation(upstream) if older else PostConversation(upstream)
    )
    async with conversation:
        try:
            await _ask(conversation, effects)
        except ServerError as error:
            if older or error.code != UNSUPPORTED_VERSION:
                raise
            # The server speaks only versions of MCP without `initialize` (2026-07-28 and later).
            await _list_tools(ModernConversation(upstream), effects)


async def _ask(conversation: Conversation, effects: Effects) -> None:
    """Initialise the server, list its tools if it has any, and end the session even if that fails."""
    try:
        if await _initialize(conversation):
            await _list_tools(conversation, effects)
    except ServerFailed:
        await _leave(conversation)
        raise
    await _leave(conversation)


async def _leave(conversation: Conversation) -> None:
    """End the session, which a server might otherwise keep for long. It does not matter whether the server answers."""
    with contextlib.suppress(ServerFailed, asyncio.TimeoutError):
        await asyncio.wait_for(conversation.leave(), limits.FAREWELL_SECONDS)


async def _initialize(conversation: Conversation) -> bool:
    """Agree with the server on a version of MCP. Return whether it says that it has tools."""
    result = await conversation.request(
        "initialize",
        {
            "protocolVersion": VERSIONS[0],
            "capabilities": {},
            "clientInfo": conversation.client,
        },
    )
    version = result.get("protocolVersion")
    if version not in VERSIONS:
        raise faults.client("The MCP server speaks another version of the protocol.")
    conversation.version = version
    await conversation.notify("notifications/initialized")
    capabilities = result.get("capabilities")
    return isinstance(capabilities, dict) and isinstance(capabilities.get("tools"), dict)


async def _list_tools(conversation: Conversation, effects: Effects) -> None:
    cursors: set[str] = set()
    params: dict[str, Any] = {}
    for _ in range(limits.MOST_TOOLS_PAGES):
        result = await conversation.request("tools/list", params)
        if not isinstance(result.get("tools"), list):
            raise faults.client("The MCP server's list of tools is no list.")
        await effects.learn_apart(result)
        cursor = result.get("nextCursor")
        if cursor is None:
            return
        if not isinstance(cursor, str) or cursor in cursors:
            raise faults.client("The MCP server's list of tools has no end.")
        cursors.add(cursor)
        params = {"cursor": cursor}
    raise faults.client(
        f"The MCP server's list of tools has more than {limits.MOST_TOOLS_PAGES} pages."
    )
