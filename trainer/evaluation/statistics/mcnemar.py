"""McNemar's exact test: whether one of two models is right more often where they differ."""


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p, exact. The counts are of rows that one model alone has right.

    If neither is better, each such row is as likely to be the one's as the other's: a fair coin, tossed
    `only_first + only_second` times.
    """
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    ways = tail = 1
    for heads in range(1, fewer + 1):
        ways = ways * (tosses - heads + 1) // heads
        tail += ways
    return min(1.0, 2 * tail / (1 << tosses))
