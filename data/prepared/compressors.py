"""What general compressors make of a text: what a language model must at least beat."""

import gzip
import lzma


def compressors(text: str, max_bytes: int = 32 * 10**6) -> dict[str, float]:
    """Bits per byte that gzip -9 and xz -9 need for a text; nothing for an empty one."""
    raw = text.encode("utf-8")[:max_bytes]
    if not raw:
        return {}
    return {
        "gzip_bits_per_byte": 8 * len(gzip.compress(raw, 9)) / len(raw),
        "xz_bits_per_byte": 8 * len(lzma.compress(raw, preset=9)) / len(raw),
    }
