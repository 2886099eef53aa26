"""What a run's figures are worth: intervals, minimum counts, comparisons, searches.

Pure: no clock, no sockets, no files, nothing else of this package; randomness comes in as a `random.Random`,
of which only `random()` is used, because that is what Python promises to repeat for a seed. Figures are made
of `+ - * /` and square roots alone (see `elementary`), so that whoever re-derives them gets the same bits.

    estimate      the two answers that everything here gives: Estimate, Comparison
    percentile    nearest rank
    tails         how many observations a claim about a tail needs
    intervals     of percentiles, shares, and anything else over requests
    warm_up       where the steady part of a series begins
    sequential    intervals that may be looked at while the run goes on
    paired        A against B in interleaved blocks
    saturation    the highest rate that meets an objective
    omission      what a closed loop did not see
    timeline      windows of equal length, the last of them perhaps partial
    slo_profiles  objectives with a name

None of these can repair a biased measurement: they take the numbers for what the run really did.
"""
