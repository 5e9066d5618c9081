"""The paper's experiment: the network beside its comparators on the same patients."""
