"""Many runs at once: comparisons, ablations, the paper's tables, the demonstration."""
