"""What tells networks apart: digests of their weights, and of all that decides what they compute."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.files import to_numpy

if TYPE_CHECKING:
    from ppl_buffer.network.network import Network


def network_digest(net: Network) -> str:
    """SHA-256 of a network's schema, sizes, standardization and weights, the same in both backends."""
    description = {
        "schema": net.schema.to_dict(),
        "config": net.config.to_dict(),
        "standardization": {name: [float(x) for x in pair] for name, pair in net.standardization.items()},
    }
    sha = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(net.weights):
        sha.update(name.encode())
        # As a file holds them, whatever number type they are computed with.
        sha.update(to_numpy(net.weights[name]).astype(np.float32).tobytes())
    return sha.hexdigest()


def weights_digest(net: Network) -> str:
    """SHA-256 of a network's weights alone, of either backend: what the record of a training's start keeps."""
    sha = hashlib.sha256()
    for name in sorted(net.weights):
        sha.update(to_numpy(net.weights[name]).tobytes())
    return sha.hexdigest()
