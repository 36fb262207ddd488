"""`bin/bench kill`: kill -9 of every kind of process while runs flow, and what the ledger says after it."""
