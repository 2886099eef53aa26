"""What an inference engine is, and one adapter per engine."""
