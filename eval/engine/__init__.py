"""One decoding engine: draft with some layers, verify with the rest, accept. Plain decoding drafts nothing."""
