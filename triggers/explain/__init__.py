"""Explains why a run has not been executed, and what became of a due time of a trigger."""
