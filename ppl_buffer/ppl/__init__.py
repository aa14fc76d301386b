"""What the distributions of NumPyro and Pyro share."""
