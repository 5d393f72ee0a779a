"""The enclave's machine: what is measured, how it is started, and the simulated platform that signs for it."""
