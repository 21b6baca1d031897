"""What a network is: its spec, its functions, its data.

- :mod:`~refimpl.network.spec`: `NetworkSpec`, `LayerSpec` and their JSON form
- :mod:`~refimpl.network.functions`: the catalogue of activations and losses
- :mod:`~refimpl.network.arithmetic`: what a network may be computed in
- :mod:`~refimpl.network.batch`: parameters and data, checked against a spec
- :mod:`~refimpl.network.examples`: the article's network, and one for handwritten digits
- :mod:`~refimpl.network.random_problems`: random networks and data
- :mod:`~refimpl.network.picture`: a network as SVG
"""
