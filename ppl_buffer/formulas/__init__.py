"""Formulas: how parameters depend on covariates, groups and conditions. Knows no language."""
