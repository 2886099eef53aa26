"""What a server's answers are worth, through its public API alone: perplexity, divergence, agreement."""
