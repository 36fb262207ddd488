"""`bin/bench abuse` measures what one tenant notices when another tenant floods the service."""
