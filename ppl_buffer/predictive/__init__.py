"""The joint predictive distribution of a set of trials: a query, and functions of it that score and draw.

No probabilistic programming language is needed: `query` holds all arguments, checked once; `density` and `sampling` are
functions of a query that both languages call.
"""
