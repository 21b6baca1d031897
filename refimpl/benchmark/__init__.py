"""How fast the backends are, beside their peers and the floor: `refimpl bench`.

A *contender* is a backend that can place a network (`refimpl.backend.PlacingBackend`): ours, and those registered
under the entry-point group ``refimpl.contenders``, which is how a third party's joins. The *floor* is the matrix
products of forward and backward pass alone. A *group* is a network, a batch, a dtype, a device and a number of
threads; its contenders run in one process, in turns, so that ratios within a group hold where times do not.
"""
