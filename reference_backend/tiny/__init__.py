"""The offline model: a small FLUX that ships with the project, and the program that trains it."""
