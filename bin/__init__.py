"""The Python code of the scripts bin/run, bin/test and bin/setup. The service itself does not use it."""
