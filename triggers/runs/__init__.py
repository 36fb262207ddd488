"""Runs: the ledger and its state machine, and how a run reaches its worker."""
