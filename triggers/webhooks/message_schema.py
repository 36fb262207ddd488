"""Adds the webhook message to the OpenAPI schema."""

from typing import Any

from pipedai.api.schema import reference
from pipedai.api.schema.auto import JSON
from pipedai.api.schema.operation import Schema
from triggers.states import TERMINAL

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_MESSAGE: Schema = {
    "runId": {"type": "string", "format": "uuid", "description": "The nil UUID in a test."},
    "triggerId": {"type": "string", "format": "uuid"},
    "status": {"type": "string", "enum": [status.value for status in TERMINAL]},
    "durationMs": {"type": ["integer", "null"]},
    "shortMessage": _TEXT_OR_NULL,
    "errorMessage": _TEXT_OR_NULL,
    "costUsd": _TEXT_OR_NULL,
    "faultClass": {"$ref": "#/components/schemas/FaultClass"},
    "endedAt": {"type": "string", "format": "date-time"},
}
# For each header of a webhook: its description, and whether every message has it.
_HEADERS = {
    "webhook-id": ("The same for each attempt: deduplicate by it.", True),
    "webhook-timestamp": ("Unix seconds of this attempt.", True),
    "webhook-signature": ("By Standard Webhooks, if the trigger has a secret.", False),
    "X-Pipedai-Signature": ("`sha256=` and the HMAC-SHA256 of the body, if it has one.", False),
}


def add_webhook(result: Schema, **_: Any) -> Schema:
    """Adds the message that a trigger's `webhookUrl` gets when a run ends. drf-spectacular calls it with the schema."""
    section = reference.thing("Webhooks")
    result["components"]["schemas"]["WebhookMessage"] = {
        "type": "object",
        "required": list(_MESSAGE),
        "properties": _MESSAGE,
        "examples": [section.example],
    }
    operation = {
        "operationId": "runEnded",
        "summary": "A run has ended",
        "description": section.prose,
        "tags": ["Webhooks"],
        "security": [],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": always,
                "description": says,
                "schema": _TEXT,
            }
            for name, (says, always) in _HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/WebhookMessage"}}},
        },
        "responses": {"2XX": {"description": "Taken. Any other answer is not."}},
    }
    return {**result, "webhooks": {"runEnded": {"post": operation}}}
