"""The queue: it holds signed requests for runs, and brings them to enclaves in turn. Nobody trusts it."""
