"""The endpoints by which a worker program registers, gets runs and reports on them."""
