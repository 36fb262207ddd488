"""Shows the revisions of a trigger, and restores one."""
