"""Executes runs, with `claude` (the default) or with any other program."""
