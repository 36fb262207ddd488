"""`bin/bench abuse`: what one tenant notices of another tenant's flood."""
