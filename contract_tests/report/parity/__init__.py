"""Reports of two targets side by side, one module per form."""
