"""Makes the embedded default: word problems, traces, preference pairs, tokenizer, policy."""
