"""The Django project, and the code that all its apps share."""

import atexit
import gc
import os
import sys
import zoneinfo
from pathlib import Path

# Every part of the service imports this package first, so that all of them find the settings.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")

# The worker program is a package of its own in agent/. The service shares its code for clauses, so both decide alike.
sys.path.append(str(Path(__file__).resolve().parent.parent / "agent"))

# The edition of the time zone database that is pinned with this version decides in every process when something is due.
# Python would prefer the machine's own, which may be older and differ on each machine.
zoneinfo.reset_tzpath(())

# These thresholds make Python's garbage collector run less often in every process of the service. A start makes
# hundreds of thousands of objects that stay, and a request leaves hardly any garbage in cycles. Python's default of 700
# costs 5 % of a start's time and 3 % of a request's. See docs/decisions/fast-paths.md.
gc.set_threshold(10_000, 10, 10)
# A process that ends need not look for garbage. Python looks several times, which takes 0.4 s of CPU time with all that
# the service has loaded: as long as the start.
atexit.register(gc.freeze)
