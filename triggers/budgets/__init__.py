"""Budgets: what the runs of an environment may cost in a day or a month, and what is reserved for each."""
