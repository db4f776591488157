"""What a run came to, for a terminal, a browser, a CI server and a program."""
