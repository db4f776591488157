"""The contract suite: speaks HTTP to a target, and tells whether it keeps the documented contract.

It imports nothing of the mock; what it knows stands in `documented.csv` and in the OpenAPI files.
"""
