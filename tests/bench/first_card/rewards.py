"""A reward that responses of random weights differ in, so that there is something to learn."""


def share_of_even_characters(response: str, example: object) -> float:
    """Return the share of characters whose code is even, 0 for an empty response."""
    return sum(ord(c) % 2 == 0 for c in response) / max(len(response), 1)
