"""What is inferred with a trained network: model evidence, data sets that a fitted model generates."""
