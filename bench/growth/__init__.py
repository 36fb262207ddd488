"""`bin/bench growth` measures what a growing ledger costs: the statements behind every page, with their plans."""
