"""How one run is executed on this machine, and what is cleaned up after it."""
