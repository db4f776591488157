"""The kill tests: real processes, dozens of faults, and a history of all replies to check in the end."""
