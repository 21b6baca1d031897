"""Gradient descent as the article has it, to the end: data, update rules, stopping criteria, checkpoints."""
