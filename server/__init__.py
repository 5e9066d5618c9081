"""What coordinates: the Flower ServerApp, the strategy and the federated rounds."""
