"""`python -m mock_server` is `wavemock`."""

from mock_server.cli import main

main(prog_name="wavemock")
