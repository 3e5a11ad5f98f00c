"""Training and evaluation with ranks on a Ray cluster. Here, since `coat.trainer` knows nothing of Ray."""
