"""The version of the service. All code and documents that show a version take it from here (docs/releasing.md).

`agent/pipedai_worker` has a copy, because the worker is a package of its own; a test compares the two.
"""

# A release is a semantic version (https://semver.org). After a release, the code has the next version with `.dev0`, as
# Python's packages write it (PEP 440).
VERSION = "1.1.0.dev0"
