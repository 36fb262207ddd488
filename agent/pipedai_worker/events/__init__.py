"""Tells the API what a run's program does while it does it, if the run's trigger asks for that (`recordEvents`)."""
