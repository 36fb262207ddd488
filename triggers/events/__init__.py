"""Events: who may send them, what came, and what each of them starts."""
