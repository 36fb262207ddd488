"""The events of runs: what the CLI of a run told, as its worker sends it. They are stored here, read, streamed and
dropped when they are old.
"""
