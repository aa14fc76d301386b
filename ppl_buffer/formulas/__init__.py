"""Formulas: how parameters depend on covariates, groups and conditions. Knows no language.

``design(net, seen, ["drift ~ condition + (1 | subject)"], covariates)`` says what a model is made of;
`ppl_buffer.numpyro.hierarchical_params`, and those of `ppl_buffer.pyro` and `ppl_buffer.pymc`, sample it.
"""

from ppl_buffer.formulas.build import design
from ppl_buffer.formulas.contrasts import Effects, effects
from ppl_buffer.formulas.terms import Centring, Design, ParameterDesign

__all__ = ["Centring", "Design", "Effects", "ParameterDesign", "design", "effects"]
