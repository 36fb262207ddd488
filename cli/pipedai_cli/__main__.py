"""`python -m pipedai_cli` is `pipedai`."""

from pipedai_cli.main import main

main()
