"""Commands of `sluice-bench`: they read options, show progress and print; they measure nothing themselves."""
