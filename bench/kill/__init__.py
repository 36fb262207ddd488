"""`bin/bench kill` kills processes of every kind while there are runs, and then checks the ledger."""
