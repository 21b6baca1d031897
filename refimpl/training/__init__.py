"""Gradient descent as the article has it, to the end.

- :mod:`~refimpl.training.config`: `TrainingConfig`, what decides a run
- :mod:`~refimpl.training.datasets`: data read from files; :mod:`~refimpl.training.preparation`: made fit for a network
- :mod:`~refimpl.training.optimisers`: the update rules and schedules
- :mod:`~refimpl.training.gradient_trainer`: training with any backend
- :mod:`~refimpl.training.run`: `Run`, the loop; :mod:`~refimpl.training.checkpoints`: from which it goes on
- :mod:`~refimpl.training.model`: what came of it, and its predictions; :mod:`~refimpl.training.curves`: as a picture
- :mod:`~refimpl.training.scikit_learn`: to and from scikit-learn's MLP
"""
