"""Serves a run's MCP server on the loopback interface, adds the trigger's headers, and journals its tool calls."""

from pipedai_worker.gateway.faults import ServerFault
from pipedai_worker.gateway.gateway import Gateway

__all__ = ["Gateway", "ServerFault"]
