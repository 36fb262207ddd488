"""How the worker asks for runs, begins them, and ends itself."""
