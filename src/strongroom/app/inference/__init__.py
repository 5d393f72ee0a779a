"""The serving half of an enclave: an OpenAI endpoint over a room that stays open."""
