"""The mathematics: spectra, ranks, and the factors of convolutions."""
