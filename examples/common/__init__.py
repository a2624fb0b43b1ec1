"""What the programs share: data, networks, methods and training."""
