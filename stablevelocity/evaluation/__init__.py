"""How good the images are: fidelity to a data set, similarity to a longer run."""
