"""Examines answers, statements, tables, logs and the schema for a test, and has a model to compare runs with."""
