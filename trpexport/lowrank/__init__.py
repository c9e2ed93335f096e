"""The mathematics: spectra, ranks, and the rewrite of convolutions into pairs."""
