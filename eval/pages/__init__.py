"""Results as HTML pages of one file each, which need no network."""
