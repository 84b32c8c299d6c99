"""The words that names of columns and values of event types are made of."""

import re
from collections.abc import Iterable, Sequence

USER_NAMES = (
    *("user", "customer", "client", "visitor", "member", "buyer", "shopper", "reviewer"),
    *("subscriber", "account", "person", "player", "patient", "reader", "listener", "uid"),
    *("profile", "cookie", "consumer", "viewer", "student", "borrower", "author", "kunde"),
)
ITEM_NAMES = (
    *("item", "product", "article", "movie", "film", "track", "song", "book", "sku", "asin"),
    *("stock", "business", "content", "listing", "offer", "video", "isbn", "page", "news"),
    *("artist", "course", "recipe", "hotel", "place", "venue", "game", "app", "iid", "good"),
    *("goods", "post", "episode", "show", "parent", "url", "artikel"),
)
TIME_NAMES = (
    *("timestamp", "time", "datetime", "date", "ts", "at", "when", "created", "occurred", "day"),
    *("clock", "moment", "zeit", "datum"),
)
SESSION_NAMES = ("session", "visit", "invoice", "basket", "order", "transaction", "receipt", "cart")
EVENT_NAMES = ("event", "action", "behavior", "behaviour", "activity", "interaction", "verb")
VALUE_NAMES = (
    *("rating", "stars", "score", "grade", "value", "quantity", "qty", "amount", "playtime"),
    *("plays", "duration", "dwell", "weight"),
)
"""Those further to the front are taken first."""
NUMERIC_NAMES = (
    *("price", "age", "year", "seconds", "minutes", "hours", "days", "length", "height", "width"),
    *("latitude", "longitude", "lat", "lon", "distance", "discount", "cost", "runtime", "duration"),
    *("quantity", "amount", "weight", "pages"),
)
SECOND_TIMES = frozenset(
    {"start", "end", "first", "last", "size", "birth", "updated", "modified", "release", "released"}
    | {"launch", "registered", "signup", "expires", "session", "id", "code", "number"}
)
"""A time with such a word in its name is hardly that of the interaction."""
LOOKING_AHEAD = frozenset(
    {"n", "count", "counts", "total", "mean", "median", "avg", "average", "popularity", "sum"}
)
"""Figures that whoever made the file counted over the whole log, its future included."""
EVENT_VALUES = frozenset(
    {"view", "viewed", "click", "clicked", "purchase", "purchased", "buy", "bought", "cart", "add"}
    | {"addtocart", "like", "liked", "play", "played", "return", "returned", "transaction", "order"}
    | {"pageview", "impression", "fav", "favorite", "pv", "share", "download", "read", "watch"}
    | {"rate", "save", "remove", "refund", "visit", "skip", "listen", "order", "checkout"}
)
NOT_INTERACTIONS = frozenset(
    {"return", "returned", "refund", "refunded", "cancel", "cancelled", "canceled", "remove"}
    | {"removed", "delete", "deleted", "dislike", "disliked", "unlike", "impression", "impressions"}
    | {"skip", "skipped"}
)
"""Event types that say no to an item, or that the user had no part in."""

_ENDINGS = ("ids", "id", "number", "num", "no", "nr", "code", "key", "uuid", "hash")


def words(name: str) -> list[str]:
    """The words of a name, in small letters.

    >>> words("click_deviceGroup")
    ['click', 'device', 'group']
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word for word in re.split(r"[^0-9a-zA-Zäöüß]+", apart.lower()) if word]


def named_like(name: str, known: Sequence[str]) -> float:
    """How well a name fits the known words: 0 not at all, 2 where it is one of them (and `id`).

    >>> named_like("CustomerID", ("customer",)), named_like("my_customers", ("customer",))
    (2.0, 1.0)
    >>> named_like("country", ("customer",))
    0.0
    """
    said = words(name)
    stems = [stem for word in said for stem in _stems(word)]
    if not set(stems) & set(known):
        return 0.0
    rest = [word for word in said if word not in _ENDINGS]
    exact = len(rest) <= 1 and bool(set(_bare(rest or said)) & set(known))
    return 2.0 if exact else 1.0


def _stems(word: str) -> list[str]:
    """A word, without a plural's s, and without an ending such as `id` that is grown to it."""
    found = [word, word.removesuffix("s")]
    return [*found, *_bare([word])]


def _bare(said: Iterable[str]) -> list[str]:
    found = []
    for word in said:
        found.append(word)
        found.extend(word.removesuffix(end) for end in _ENDINGS if word.endswith(end))
    return found
