"""The benchmarks of bin/bench, each in a module or package of its own. docs/performance.md explains their figures."""
