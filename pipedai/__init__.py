"""The Django project, and the code that all its apps share."""

import gc

# For every process of ours, before it loads anything: a start makes hundreds of thousands of objects that all stay,
# and a request many that leave hardly a cycle behind. Python's own 700 costs a twentieth of a start, 3 % of a request.
# See docs/decisions/fast-paths.md.
gc.set_threshold(10_000, 10, 10)
