"""The Django project, and the code that all its apps share."""

import gc

# Garbage collections are rarer than Python's default of one per 700 new objects, in every process of ours from its
# start. A start makes hundreds of thousands of objects that all stay, and a request leaves hardly any cycles. With the
# default, collections would take a twentieth of a start and 3 % of a request.
gc.set_threshold(10_000, 10, 10)
