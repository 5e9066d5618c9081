"""For all tests."""

from hypothesis import settings

# A loaded machine is slow, and that is no fault of the code.
settings.register_profile("stsmm", deadline=None)
settings.load_profile("stsmm")
