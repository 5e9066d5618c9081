"""The classical models that the network is compared with. They alone import scikit-survival, which is GPL."""
