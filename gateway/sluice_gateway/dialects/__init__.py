"""APIs other than OpenAI's chat that the gateway speaks for engines that do not."""
