"""What the platform has beside its models: uploads, a list of models, prices, credit, history."""
