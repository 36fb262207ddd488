"""The code of runs: their state machine, their retries, and how workers get them."""
