"""How a gradient is judged.

- :mod:`~refimpl.judge.tolerance`: how far a correct implementation may lie from the truth
- :mod:`~refimpl.judge.bounds`: worst case and statistical bounds of any graph; :mod:`~refimpl.judge.first_order`: what
  its roundings come to, by :mod:`~refimpl.judge.tangents`; :mod:`~refimpl.judge.remainders`: what that leaves out
- :mod:`~refimpl.judge.submission`: what somebody's code returned, as arrays
- :mod:`~refimpl.judge.judge`: `Judge`, the truth and a tolerance to hold an answer against
- :mod:`~refimpl.judge.verdicts`: PASS, FAIL or UNDETERMINED for every element
- :mod:`~refimpl.judge.declarations`: what an answer that is a FAIL would be within, had its arithmetic been declared
- :mod:`~refimpl.judge.report`: the verdicts, and how they are shown
- :mod:`~refimpl.judge.soak`: thousands of random networks; :mod:`~refimpl.judge.workers`: over processes
"""
