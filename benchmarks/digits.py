"""The lower half of digits that nobody saw, given the upper one: bits a pixel of our network and of two of one task.

    python benchmarks/digits.py [--quick] [--out DIR]

Handwritten digits of 8 x 8 pixels and 17 grey levels (scikit-learn's; Alpaydin & Kaynak 1998). Test pictures, training
pictures and our network are those of examples/digits.py. `MADE` and the masked convolutions know one order, the raster;
they are given the upper half as its first 32 pixels. Ours, which knows any order, is given 24 of these, as many as it
was trained with: those at the left and right margins are nearly always blank. Beside them whole pictures by zlib and as
PNG files, of all test pictures at once.
"""

from __future__ import annotations

import io
import math
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402
from rivals.single_task import MADE, MaskedConvolutions, fit  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402

LEVELS, SIDE, TEST, VALIDATION = 17, 8, 300, 195
NETWORK = Path(__file__).parents[1] / "examples" / "digits.safetensors"
ORDERS = 8


def ours(test: np.ndarray, orders: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Bits a pixel of each picture, (pictures,): pixels alone, in raster order, in one random order, and several."""
    net = pb.load(NETWORK, backend="torch")
    row, column = (x.ravel() for x in np.indices((SIDE, SIDE)))
    shown, missing = np.flatnonzero((row < 4) & (column > 0) & (column < 7)), np.flatnonzero(row > 3)

    def pixels(places: np.ndarray) -> dict[str, torch.Tensor]:
        at = {"row": row[places], "column": column[places]}
        return {name: torch.as_tensor(x, dtype=torch.float32).expand(len(test), -1) for name, x in at.items()}

    values = torch.as_tensor(test, dtype=torch.float32)
    context = net.encode({**pixels(shown), "grey": values[:, shown]})
    rng = np.random.default_rng(seed)

    def together(order: np.ndarray, **more: int) -> np.ndarray:
        query = Query.build(net, pixels(order), context=context, **more)
        return density.log_prob(query, values[:, order]).numpy()

    with torch.no_grad():
        query = Query.build(net, pixels(missing), context=context)
        result = {
            "ours, each pixel alone": density.marginals(query, values[:, missing]).sum(-1).numpy(),
            "ours, raster": together(missing),
            "ours, one random order": together(rng.permutation(missing)),
            f"ours, {orders} orders": together(missing, orders=orders),
        }
    return {name: -x / len(missing) / math.log(2) for name, x in result.items()}


def others(pictures: np.ndarray, test: np.ndarray, quick: bool) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The same of networks that know the raster alone, and after how many epochs each was at its best."""
    torch.manual_seed(0)
    train, validation = (torch.as_tensor(x) for x in (pictures[:-VALIDATION], pictures[-VALIDATION:]))
    nets = {"MADE": MADE(SIDE**2, LEVELS), "masked convolutions": MaskedConvolutions(SIDE, LEVELS)}
    bits, epochs = {}, {}
    for name, net in nets.items():
        fitted, count = fit(net, train[:70] if quick else train, validation, patience=1 if quick else 12)
        with torch.no_grad():
            log_prob = fitted.log_prob(torch.as_tensor(test))[:, SIDE**2 // 2 :].mean(1).numpy()
        bits[name], epochs[name] = -log_prob / math.log(2), count
    return bits, epochs


def packed(test: np.ndarray) -> dict[str, float]:
    """Bits a pixel of whole pictures, all of them in one file."""
    grey = test.astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey.reshape(-1, SIDE)).save(file, "png", optimize=True)
    return {"zlib": 8 * len(zlib.compress(grey.tobytes(), 9)) / test.size, "PNG": 8 * len(file.getvalue()) / test.size}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the others, score, print, write."""
    options = harness.parse(__doc__, arguments)
    images = load_digits().images.reshape(-1, SIDE**2).astype(int)
    pictures, test = images[:-TEST], images[-TEST:][: 20 if options.quick else TEST]
    bits, epochs = others(pictures, test, options.quick)
    bits = {**ours(test, 2 if options.quick else ORDERS), **bits}
    figures = {
        name: {"bits": float(x.mean()), "standard_error": float(x.std(ddof=1) / math.sqrt(len(x)))}
        for name, x in bits.items()
    }
    harness.print_table(
        "Lower halves of test pictures given the upper ones", ["", "bits a pixel", "s.e."],
        [[name, row["bits"], row["standard_error"]] for name, row in figures.items()],
    )  # fmt: skip
    whole = packed(test)
    harness.print_table("Whole pictures", ["", "bits a pixel"], [list(row) for row in whole.items()])
    if not options.quick:
        results = {"figures": figures, "whole_pictures": whole, "epochs": epochs, "test_pictures": len(test)}
        harness.write_results("digits", results, options.out)


if __name__ == "__main__":
    main()
