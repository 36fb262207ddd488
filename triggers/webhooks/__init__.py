"""Webhooks: the outbox of what runs' ends have to tell, how it is signed and sent."""
