"""What a growing ledger costs: the statements behind every page, with their plans."""
