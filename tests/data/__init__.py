"""Sources, tokenizers and the order of batches."""
