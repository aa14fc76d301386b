"""How NUTS writes the parameters of subjects: so that normal likelihoods would leave nothing correlated.

Let the population have means m and spreads s (vectors; D = diag(s)), and a subject the parameters m + D w. Were that
subject's likelihood of parameters x exp(b'x - x'Hx / 2), then w would be normal given m and s, with precision
A = I + D H D and mean A^-1 D (b - H m). NUTS moves z in place of w,

    w = L'^-1 (z + c),    L L' = A,    c = L^-1 D (b - H m),

which then is standard normal and depends on neither m nor s, wherever these are: an offset where nothing is known of a
subject (H = 0), and the parameters themselves where all is. It is a transport map (Osmundsen, Kleppe & Liesenfeld 2021,
J Comput Graph Stat 30, 906-919). H and b come from a quick fit. How all is written makes the sampler faster or slower;
the posterior of the parameters is the same.

With w ~ Normal(0, I) the elements of z are normal one after another, the last one first:

    z_k ~ Normal(sum of L_lk w_l over l > k - c_k, L_kk).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from ppl_buffer.network.backend import Array
from ppl_buffer.workflow.quick_fit import QuickFit


def parameters(
    xp: ModuleType,
    fit: QuickFit,
    means: Array,
    spreads: Array,
    offset: Callable[[int, Array, Array], Array],
) -> list[Array]:
    """Parameters of S subjects, P arrays (..., S).

    Args:
        xp: `numpy` or `jax.numpy`, whose arrays these are.
        fit: what is known of each subject.
        means: (..., P), of the population.
        spreads: (..., P), of the population.
        offset: function of the index of a parameter, and of the mean and the standard deviation, (..., S) each, of the
            z of all subjects: their z, (..., S). It is asked from the last parameter to the first.
    """
    count = len(fit.mean)
    # Not as a product of matrices, which an accelerator may round so far that no Cholesky factor is left.
    precision = (fit.roots[:, :, None] * fit.roots[:, None]).sum(-1)
    own = spreads[..., None, :]
    factor = xp.linalg.cholesky(xp.eye(count) + own[..., None] * own[..., None, :] * precision)
    slopes = fit.pulls - (precision * means[..., None, None, :]).sum(-1)
    shift: list[Array] = []
    for row in range(count):
        known = sum(factor[..., row, before] * shift[before] for before in range(row))
        shift.append((spreads[..., row, None] * slopes[..., row] - known) / factor[..., row, row])
    standard: dict[int, Array] = {}
    for row in reversed(range(count)):
        middle = sum((factor[..., later, row] * standard[later] for later in standard), -shift[row])
        scale = factor[..., row, row]
        standard[row] = (offset(row, middle, scale) - middle) / scale
    return [means[..., row, None] + spreads[..., row, None] * standard[row] for row in range(count)]
