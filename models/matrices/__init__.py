"""Weight matrices of decoding, and the products with them."""
