"""Servers that are wrong on purpose, and what the contract suite makes of them."""
