"""Names of the dimensions of a design's sites, and the labels along them."""

from __future__ import annotations

import numpy as np

from ppl_buffer.formulas.tables import SUBJECT_COLUMN
from ppl_buffer.formulas.terms import Design


def labelled(design: Design) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Dimension -> labels, and site -> names of its dimensions, of coefficients and random effects.

    The dimension of the data sets, ``subject``, has its labels elsewhere.
    """
    coords: dict[str, np.ndarray] = {}
    dims: dict[str, list[str]] = {}
    for one in design.parameters.values():
        for site in one.sites:
            if site.labels:
                dims[site.name] = [f"{site.name}_level"]
                coords[f"{site.name}_level"] = np.array(site.labels)
        for grouping in one.groupings:
            if grouping.plate != SUBJECT_COLUMN:
                coords[grouping.plate] = np.array(grouping.levels)
            for effect in grouping.effects:
                if effect.spread.labels:
                    level = f"{effect.site}_level"
                    coords[level] = np.array(effect.spread.labels)
                    dims |= {effect.spread.name: [level], effect.offset: [grouping.plate, level]}
    return coords, dims
