"""Webhooks: the outbox of messages about ended runs, and how they are signed and sent."""
