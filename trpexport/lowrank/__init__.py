"""The mathematics: spectra, ranks, and the factors of linear layers."""
