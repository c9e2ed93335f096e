"""How long each layer takes in each way to write it: measured inside its network, where it runs."""
