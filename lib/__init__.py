"""The library of the book *Credit Assignment*: small enough to read in an evening.

A learning rule is what you call instead of ``loss.backward()``. Everything else (nets, data,
the training loop, measurements) is the same for every rule.
"""
