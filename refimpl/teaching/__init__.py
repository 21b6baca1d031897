"""Where a gradient comes from, shown: traces, explanations, the lesson and exercises.

- :mod:`~refimpl.teaching.record`: `trace`, every step of a pass; :mod:`~refimpl.teaching.trace`: what that is
- :mod:`~refimpl.teaching.chain`: the chain rule with numbers; :mod:`~refimpl.teaching.explain`: beside what everybody
  says; :mod:`~refimpl.teaching.explanation`: how it is shown
- :mod:`~refimpl.teaching.notation`, :mod:`~refimpl.teaching.forms`: symbols, and the equations as they are read
- :mod:`~refimpl.teaching.display`: numbers and equations as text and HTML
- :mod:`~refimpl.teaching.lesson`: the page to step through
- :mod:`~refimpl.teaching.exercise`: a backward pass to fill in, bugs to find; :mod:`~refimpl.teaching.marking`: run
"""
