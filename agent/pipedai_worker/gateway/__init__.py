"""The gateway: a local server that passes a run's MCP requests on with the trigger's headers and records tool calls."""

from pipedai_worker.gateway.gate import Gate
from pipedai_worker.gateway.gateway import Gateway
from pipedai_worker.gateway.look import Look, Looked
from pipedai_worker.gateway.upstream import Credentials

__all__ = ["Credentials", "Gate", "Gateway", "Look", "Looked"]
