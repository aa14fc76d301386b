"""`ppl_buffer` for PyMC: the distribution, its log densities trial by trial, hierarchies by formula, the box."""

from ppl_buffer.extras import needs

with needs("ppl_buffer.pymc", "pymc"):
    import pymc as _  # noqa: F401  (before what it brings along, so that the message names it)

    from ppl_buffer.pymc.box import into_box
    from ppl_buffer.pymc.distribution import JointPredictive, conditionals
    from ppl_buffer.pymc.hierarchy import hierarchical_params, linear_predictors, natural_params

__all__ = [
    "JointPredictive",
    "conditionals",
    "hierarchical_params",
    "into_box",
    "linear_predictors",
    "natural_params",
]
