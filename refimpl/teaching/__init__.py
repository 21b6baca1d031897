"""For learners: what happens in a forward and a backward pass (trace), where one number comes from (explain), a page
to play with (lesson), and exercises that are marked.
"""
