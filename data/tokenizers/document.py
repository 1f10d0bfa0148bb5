"""The ids of a whole document."""


def as_document(ids: list[int], bos_id: int | None, eos_id: int) -> list[int]:
    """The same list with what begins a document (None: nothing does) before its ids and what ends it after them."""
    if bos_id is not None:
        ids.insert(0, bos_id)
    ids.append(eos_id)
    return ids
