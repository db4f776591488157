"""The control plane: look inside the server, move its clock, forget everything."""
