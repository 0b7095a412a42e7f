"""A catalog file under revision: what providers say of their models is written into its text.

The text stays the operator's: comments, order and everything that need not change are kept.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches, unified_diff
from typing import Any

import tomlkit
from tomlkit.container import OutOfOrderTableProxy
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable, Item

from api.cli.model_list import Entry, ModelList
from shared.catalog import Catalog
from shared.catalog_checks import CatalogInvalid
from shared.document import Model, ModelProvider
from shared.price import UNPRICED, Price

UNCONFIRMED = "unconfirmed"
"""In the comment beside `active = false`: the model waits for its provider to list it. Any other
inactive model was switched off by somebody, and stays off."""
CLOSEST = 3
NO_NEWLINE = "\n\\ No newline at end of file\n"
"""How a patch says that the file's last line has none."""

Lists = Mapping[str, ModelList]
"""Of the providers that have answered, by name."""


class Draft:
    def __init__(self, text: str) -> None:
        """Raises CatalogInvalid."""
        self._before = text
        self.document = Catalog.from_toml(text).document
        try:
            self._file = tomlkit.parse(text)
        except TOMLKitError as error:
            raise CatalogInvalid(str(error)) from error
        self.notes: list[str] = []
        """What a person should know that is not a change."""

    @property
    def text(self) -> str:
        """As it is now: a catalog, or CatalogInvalid is raised."""
        text = tomlkit.dumps(self._file)
        Catalog.from_toml(text)
        return text

    def diff(self, name: str) -> str:
        """As a patch; empty where nothing differs."""
        before, after = self._before.splitlines(True), self.text.splitlines(True)
        lines = unified_diff(before, after, name, name)
        return "".join(line if line.endswith("\n") else line + NO_NEWLINE for line in lines)

    def sync(self, lists: Lists) -> None:
        """Raises CatalogInvalid where a model is written in a way that cannot be revised."""
        for name, model in self.document.models.items():
            self._sync(name, model, lists)

    def _sync(self, name: str, model: Model, lists: Lists) -> None:
        found = list(self._found(name, model, lists))
        if not found:
            return
        table = self._table(name)
        self._sync_prices(table, model, found)
        entries = [entry for _, entry in found]
        for field in ("max_input_tokens", "max_output_tokens"):
            said = [entry.limits[field] for entry in entries if field in entry.limits]
            # Whichever provider answers must be able to take it.
            if said and min(said) != getattr(model, field):
                table[field] = min(said)
        for field in ("input_modalities", "output_modalities"):
            words = _common([entry.modalities.get(field, ()) for entry in entries])
            if words and set(words) != set(getattr(model, field)):
                table[field] = tomlkit.value("[" + ", ".join(f'"{word}"' for word in words) + "]")
        if not model.active:
            self._activate(name, table, is_whole=len(found) == len(model.providers))

    def _table(self, name: str) -> Any:
        table: Any = self._file["models"]
        table = table[name]
        if isinstance(table, OutOfOrderTableProxy):
            raise CatalogInvalid(
                f"models.{name}: stands in several places of the file, and which of them is to be "
                "changed cannot be told; put it into one table"
            )
        return table

    def _found(self, name: str, model: Model, lists: Lists) -> Iterator[tuple[int, Entry]]:
        """What each provider that was asked says of the model, by its place; notes what is odd."""
        for at, route in enumerate(model.providers):
            if route.provider not in lists:
                continue
            entry = lists[route.provider].entries.get(route.upstream_model)
            if entry is None:
                self.notes.append(f"models.{name}: {_unlisted(route, lists[route.provider])}")
                continue
            for field in entry.unusable:
                self.notes.append(
                    f"models.{name}: what {route.provider} says of {field} cannot be used"
                )
            yield at, entry

    def _sync_prices(self, table: Any, model: Model, found: list[tuple[int, Entry]]) -> None:
        """The first provider's price is the model's; another's is its own, where it differs."""
        price = listed = model.price or UNPRICED
        for at, entry in found:
            route = model.providers[at]
            if at == 0 and route.price is None:
                price = _revised(price, entry.prices)
                _write_price(table, listed, price)
                continue
            own = _revised(route.price or UNPRICED, entry.prices)
            is_worth_saying = route.price is not None or (entry.prices and own != price)
            if is_worth_saying and own != route.price:
                routes = table["providers"]
                if isinstance(routes[at], InlineTable):
                    routes[at] = _inline(routes[at], {"price": _text_of(own)})
                else:
                    _write_price(routes[at], route.price or UNPRICED, own)

    def _activate(self, name: str, table: Any, *, is_whole: bool) -> None:
        item = table.item("active")
        if not is_whole:
            return
        if UNCONFIRMED not in item.trivia.comment:
            self.notes.append(f"models.{name}: inactive, though its provider lists it")
            return
        table["active"] = True
        trivia = table.item("active").trivia
        trivia.comment = trivia.comment_ws = ""


def _common(lists: list[tuple[str, ...]]) -> list[str]:
    """What every provider that says something says, in the order of the first."""
    said = [words for words in lists if words]
    return [word for word in said[0] if all(word in words for words in said)] if said else []


def _unlisted(route: ModelProvider, models: ModelList) -> str:
    closest = get_close_matches(route.upstream_model, models.entries, CLOSEST)
    listed = f"; the closest it lists: {', '.join(map(repr, closest))}" if closest else ""
    return f"{route.provider} does not list {route.upstream_model!r}{listed}"


def _revised(price: Price, said: Mapping[str, Decimal]) -> Price:
    return Price(
        input=said.get("input", price.input),
        output=said.get("output", price.output),
        cached_input=said.get("cached_input", price.cached_input),
    )


def _amounts(price: Price) -> dict[str, str]:
    """As they are written: in plain digits, and none for a kind without a price of its own."""
    amounts = {"input": price.input, "output": price.output, "cached_input": price.cached_input}
    return {
        kind: format(amount.normalize(), "f")
        for kind, amount in amounts.items()
        if amount is not None
    }


def _text_of(price: Price) -> str:
    return "{ " + ", ".join(f"{kind} = {text}" for kind, text in _amounts(price).items()) + " }"


def _write_price(table: Any, old: Price, new: Price) -> None:
    if new == old:
        return
    known = _amounts(old)
    changes = {kind: text for kind, text in _amounts(new).items() if text != known.get(kind)}
    if "price" not in table:
        table["price"] = tomlkit.value(_text_of(new))
    elif isinstance(table["price"], InlineTable):
        table["price"] = _inline(table["price"], changes)
    else:
        for kind, text in changes.items():
            table["price"][kind] = tomlkit.value(text)


def _inline(table: Any, changes: Mapping[str, str]) -> Item:
    """The table on its one line with these members changed or added."""
    members = {name: table.item(name).as_string() for name in table} | dict(changes)
    return tomlkit.value(
        "{ " + ", ".join(f"{name} = {text}" for name, text in members.items()) + " }"
    )
