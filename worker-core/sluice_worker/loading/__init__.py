"""From a model folder or hub name to tensors and a tokenizer."""
