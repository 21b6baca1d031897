"""Who the backends are measured beside: what a good user writes by hand in PyTorch and JAX, HIPS autograd,
scikit-learn's `_backprop`, and the floor, which is the matrix products alone.

Each is a contender (`refimpl.benchmark`), registered under ``refimpl.contenders``; autograd and scikit-learn are
backends too, as proof that the plug-in door is enough for a third party.
"""
