"""Language models: what is asked of them, and the engines that answer. Knows nothing of keys, contracts or the network."""
