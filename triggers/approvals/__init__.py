"""Approvals: a person decides about a run's call of a tool before it is made."""
