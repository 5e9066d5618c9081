"""The science of STSMM: everything a single centre needs, free of any federation framework."""
