"""Pools: groups of workers, any of which may take the runs of the triggers that name the pool."""
