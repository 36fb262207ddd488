"""The endpoints by which hosts manage workers, stream their events, and learn of new releases."""
