"""What Flower carries of this project to where it runs."""

from pathlib import Path

import stsmm_core


def test_no_module_is_named_like_a_test():
    """Flower leaves `test_*.py` and `*_test.py` out of an app: the run would end without a word."""
    root = Path(stsmm_core.__file__).parent.parent
    modules = [path for package in ("stsmm_core", "client", "server") for path in (root / package).rglob("*.py")]
    assert len(modules) > 50
    assert not [path for path in modules if path.stem.startswith("test_") or path.stem.endswith("_test")]
