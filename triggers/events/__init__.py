"""Events: what they start, and why they start nothing."""
