"""Shows the revisions of a trigger, and restores one (SPEC §23)."""
