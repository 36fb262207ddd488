"""Runs a private PostgreSQL from a pip package, with a Django engine that starts it when needed."""
