"""How the worker calls the API: one method a call, within bounds, again and again until it is answered."""
