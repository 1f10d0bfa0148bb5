"""How a name of the Hugging Face hub is told from a path of this machine."""

HUB = "hf://"
