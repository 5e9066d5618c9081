"""Everything that goes wrong at a hospital, checked before it does: `stsmm site check`."""
