"""What a worker program calls: it registers, polls for runs, and reports on those that it works on."""
