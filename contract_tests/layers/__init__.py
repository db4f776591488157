"""The layers: each looks at the target in a way of its own."""
