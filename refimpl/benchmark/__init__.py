"""How fast the backends are, beside their peers and the floor: `refimpl bench`.

A *contender* is a backend that can place a network (`refimpl.backend.PlacingBackend`): ours, and those registered
under the entry-point group ``refimpl.contenders``, which is how a third party's joins. The *floor* is the matrix
products of forward and backward pass alone. A *group* is a network, a batch, a dtype, a device and a number of
threads; its contenders run in one process, in turns, so that ratios within a group hold where times do not.

- :mod:`~refimpl.benchmark.contenders`: who is measured; :mod:`~refimpl.benchmark.groups`: on what
- :mod:`~refimpl.benchmark.run`: a process a group; :mod:`~refimpl.benchmark.worker`: what it does;
  :mod:`~refimpl.benchmark.measure`: the timing, and the check before it
- :mod:`~refimpl.benchmark.machine`: what it ran on
- :mod:`~refimpl.benchmark.report`, :mod:`~refimpl.benchmark.page`: the results as Markdown, and as one HTML page
"""
