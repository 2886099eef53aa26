"""Model architectures: one decoder, configured by flags, and the table that finds it."""
