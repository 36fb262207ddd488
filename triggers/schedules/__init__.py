"""Schedules: they work out when a trigger comes due, and make runs of due times."""
