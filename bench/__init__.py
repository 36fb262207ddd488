"""What bin/bench measures, each in a module of its own; docs/performance.md explains the figures."""
