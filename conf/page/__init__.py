"""What all pages have in common: one HTML file each, which needs no network."""
