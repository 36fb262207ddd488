"""PipedAI's reference worker: polls the API for runs, executes them on this machine, reports the outcome."""

__version__ = "0.1.0"
