"""Schedules: the code that works out when a trigger comes due, and makes runs at these times."""
