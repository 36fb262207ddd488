"""The first module that bin/run executes: until the other modules are loaded, Ctrl-C ends it silently."""

import signal
import sys

if __name__ == "__main__":
    # Python's own handler would print a traceback from the middle of an import.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from bin.stack import main

    signal.signal(signal.SIGINT, handler)
    sys.exit(main())
