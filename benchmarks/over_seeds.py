"""A mean over seeds with its t interval, as the benchmarks print it."""

from collections.abc import Sequence

from scipy.stats import ttest_1samp


def mean_with_interval(values: Sequence[float]) -> str:
    """Mean and 95 % t interval, each with its sign; of one seed the value alone."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:+.3f}"
    low, high = ttest_1samp(values, 0.0).confidence_interval(0.95)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
