"""Schedules: when a trigger comes due, and how a due time becomes a run."""
