"""PipedAI's reference worker: it polls the API for runs, executes them, and reports how they ended."""

__version__ = "1.1.0.dev0"
