"""`python -m api.cli`: the same as `gateway`, where the console script is not installed."""

from api.cli import main

main()
