"""The network, its heads and joint prediction in JAX."""
