"""How time grows with the context N, the targets K and the draws S: fitted powers against theory's, and a picture.

Decoding is the rollout given an encoded context. Theory's power is the slope of the operations needed (`flops.py`) over
the same range: O(N^2 + S (NK + K^2)) has it exactly only in its limit. Encoding is also timed in a network whose
context is summarised by latent tokens, whose theory is a power of 1. The picture shows rollout, encoding included,
and re-encoding at every step against N in both backends; times of the latter come from single steps of a few draws
(`rollout.py` says how).

    python benchmarks/scaling.py [--quick] [--out DIR] [--seconds 6]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import flops
import rollout
from harness import (
    BACKENDS,
    FUNCTION,
    bar,
    config_of,
    draws_of,
    interleaved,
    normals,
    parse,
    print_bars,
    print_table,
    random_network,
    settled,
    slope,
    to_backend,
    uniforms,
    write_results,
)

# Of the picture: as it is drawn for people who read it once.
_COLOURS = {"jax": "#1f6f8b", "torch": "#c8553d"}


# Latent tokens in place of a context.
LATENTS = 16


def sweep(backend: str, size: str, settings: Sequence[tuple[int, int, int]], seconds: float) -> dict[str, list[float]]:
    """Median times of decoding and of encoding, with and without latents, in each (N, K, S), all of them in turn."""
    net = random_network(config_of(size), backend)
    summarising = random_network(replace(config_of(size), latents=LATENTS), backend)
    decode, encode, summarise = draws_of(net), _encoder(net), _encoder(summarising)
    ways: dict[str, Callable[[], Any]] = {}
    for context, trials, draws in settings:
        known = to_backend(net, normals(context, 2))
        encoded = net.encode({"x": known[:, 0], "y": known[:, 1]})
        x, noise = to_backend(net, normals(trials)), to_backend(net, uniforms(draws, trials, 3))
        ways[f"decode {context} {trials} {draws}"] = settled(backend, decode, encoded, x, noise)
        ways[f"encode {context}"] = settled(backend, encode, known)
        ways[f"summarise {context}"] = settled(backend, summarise, known)
    times = interleaved(ways, repeats=7, seconds=seconds)
    return {
        "decode": [times[f"decode {n} {k} {s}"]["median"] for n, k, s in settings],
        "encode": [times[f"encode {n}"]["median"] for n, _, _ in settings],
        "summarise": [times[f"summarise {n}"]["median"] for n, _, _ in settings],
    }


def _encoder(net: Any) -> Callable[[Any], Any]:
    def encode(known: Any) -> Any:
        return net.encode({"x": known[:, 0], "y": known[:, 1]})

    if net.backend == "torch":
        return encode
    import jax

    return jax.jit(encode)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Picture of time against N, with the powers fitted to the larger half of the sizes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.0, 4.6), layout="constrained")
    for key, style, label in (("reference_seconds", "--", "re-encoding"), ("rollout_seconds", "-", "rollout")):
        last = {backend: [row[key] for row in rows if row["backend"] == backend][-1] for backend in BACKENDS}
        for backend in BACKENDS:
            of_backend = [row for row in rows if row["backend"] == backend]
            # The two backends often end close to each other: their names go above and below.
            shift = 8 if last[backend] == max(last.values()) else -8
            x, y = [row["context"] for row in of_backend], [row[key] for row in of_backend]
            half = len(x) // 2
            axes.plot(x, y, style, marker="o", markersize=4, color=_COLOURS[backend])
            power = slope(x[half:], y[half:])
            axes.annotate(
                f"{label}, {'JAX' if backend == 'jax' else 'torch'}: N$^{{{power:.2f}}}$",
                (x[-1], y[-1]), xytext=(8, shift), textcoords="offset points", va="center", color=_COLOURS[backend],
            )  # fmt: skip
    first = rows[0]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted({row["context"] for row in rows}), labels=sorted({row["context"] for row in rows}))
    axes.set_xlabel("context points N")
    axes.set_ylabel("seconds")
    title = f"{first['draws']} draws of {first['trials']} dependent outcomes; powers fitted to the right half"
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", alpha=0.25)
    axes.margins(x=0.03)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, bbox_inches="tight")
    plt.close(figure)
    print(f"drawn: {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, draw and write."""
    options = parse(__doc__, arguments, seconds=6.0)
    size = "tiny" if options.quick else "paper"
    sweeps = {
        "N": [(n, 8, 16) for n in (1024, 2048, 4096, 8192)],
        "K": [(256, k, 16) for k in (16, 32, 64, 128)],
        "S": [(256, 8, s) for s in (16, 64, 256, 1024)],
    }
    pictured = [64, 128, 256, 512, 1024, 2048]
    draws = 64
    if options.quick:
        sweeps, pictured, draws = {"N": [(4, 2, 2), (16, 2, 2)], "S": [(4, 2, 2), (4, 2, 6)]}, [4, 8, 16], 2
    config = config_of(size)
    rows, bars = [], []
    for backend in BACKENDS:
        for letter, settings in sweeps.items():
            times = sweep(backend, size, settings, 3 * options.seconds)
            x = [setting["NKS".index(letter)] for setting in settings]
            kinds = {"decode": [float(flops.decode(config, FUNCTION, *setting)) for setting in settings]}
            if letter == "N":
                kinds["encode"] = [float(flops.encode(config, FUNCTION, n)) for n in x]
                kinds["summarise"] = [float(n) for n in x]
            for kind, needed in kinds.items():
                power, theory = slope(x, times[kind]), slope(x, needed)
                rows.append(
                    {"backend": backend, "what": kind, "against": letter, "from": x[0], "to": x[-1],
                     "settings": settings, "seconds": times[kind], "slope": power, "theory": theory}
                )  # fmt: skip
                if kind == "summarise" or (kind == "decode" and letter in "NS"):
                    verb = "decoding" if kind == "decode" else f"encoding with {LATENTS} latents, the"
                    what = f"slope of {verb} time in {letter} ({x[0]} to {x[-1]}), {backend}"
                    bars.append(bar(what, power, most=1.1))
    print_table(
        "Powers with which time grows",
        ["backend", "what", "against", "from", "to", "measured", "theory"],
        [[row[key] for key in ("backend", "what", "against", "from", "to", "slope", "theory")] for row in rows],
    )
    cells = [
        rollout.measure(backend, (size, n, 3 if options.quick else 16, draws), options.seconds / 3)
        for n in pictured
        for backend in BACKENDS
    ]
    draw(cells, options.out / "speed.png")
    print_bars(bars)
    write_results("scaling", {"slopes": rows, "picture": cells, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
