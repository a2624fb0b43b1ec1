"""How the nearest points are found and counted; knows nothing of information."""
