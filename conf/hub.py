"""How a name of the Hugging Face hub is distinguished from a path of this machine."""

HUB = "hf://"
