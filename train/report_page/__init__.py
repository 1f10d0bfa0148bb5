"""Training runs as one HTML page: reading run folders, thinning what a screen cannot show, and drawing."""
