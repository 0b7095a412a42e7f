"""A template: text of the catalog's with places for a request's arguments, in a part of Jinja.

Only what ends is let in. Neither Jinja's sandbox nor another engine's count of steps bounds memory
(`x ~ x`, assigned forty times, is a terabyte), so calls, assignments, macros, multiplication and
inclusion are refused when the template is compiled; what is left takes time and space that grow
with its length and its arguments' size, but for loops, whose time is measured.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NoReturn

import msgspec
from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.exceptions import UndefinedError
from jinja2.filters import FILTERS
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from typing_extensions import override

MAX_ARGUMENT_BYTES = 1 << 20
"""As JSON, of one message."""
MAX_TEXT_BYTES = 4 << 20
"""Of all that is rendered for a request: more than the longest prompt that models take."""
MAX_SECONDS = 0.25
"""For a request. Of the processor, not of the clock: what else the machine does must not refuse it."""
TEMPLATES_KEPT = 1024
ALLOWANCE = "the allowance"
"""No name in a template can be this one."""
METERED = "metered"

ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.CondExpr),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword),
    *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Neg, nodes.Pos),
)
FILTER_NAMES = (
    "abs capitalize count d default first float int join last length list lower reverse round sort"
    " string title trim truncate unique upper"
).split()
"""None makes much of little, as long as its own arguments are constants."""
FREE_ARGUMENTS = ("d", "default")
LOOP_MEMBERS = frozenset(
    "index index0 revindex revindex0 first last length depth depth0 previtem nextitem".split()
)


class TemplateInvalid(Exception):
    """The text is not a template; the message says where and why."""


class ArgumentsMisfit(Exception):
    """A template cannot be rendered with these arguments. The message repeats no value."""


class Allowance:
    """The time and the text that all renderings for one request may take."""

    def __init__(self) -> None:
        self._began = time.thread_time()
        self._bytes_left = MAX_TEXT_BYTES

    def check_time(self) -> None:
        """Raises ArgumentsMisfit."""
        if time.thread_time() - self._began > MAX_SECONDS:
            raise ArgumentsMisfit("the templates take too long")

    def take(self, text: str) -> str:
        """Raises ArgumentsMisfit."""
        self._bytes_left -= len(text.encode())
        if self._bytes_left < 0:
            raise ArgumentsMisfit(f"the text would be larger than {MAX_TEXT_BYTES} bytes")
        return text


class Template:
    """Compiled. Values are put in as they are: nothing in them is read as a template."""

    def __init__(self, text: str) -> None:
        """Raises TemplateInvalid."""
        try:
            tree = _ENVIRONMENT.parse(text)
            _check(tree)
            self.names = find_undeclared_variables(tree)
            """The variables it has places for."""
            for loop in tree.find_all(nodes.For):
                loop.iter = nodes.Filter(loop.iter, METERED, [], [], None, None, lineno=loop.lineno)
            self._template = _ENVIRONMENT.from_string(tree)
        except TemplateSyntaxError as error:
            raise TemplateInvalid(f"line {error.lineno}: {error.message}") from error
        except (RecursionError, SyntaxError, MemoryError) as error:
            # The last two are Python's own compiler's, of which Jinja's output is too much.
            raise TemplateInvalid("it is nested too deeply") from error

    def render(self, arguments: Mapping[str, Any], allowance: Allowance) -> str:
        """Raises ArgumentsMisfit."""
        allowance.check_time()
        if len(msgspec.json.encode(arguments)) > MAX_ARGUMENT_BYTES:
            raise ArgumentsMisfit(f"the values are larger than {MAX_ARGUMENT_BYTES} bytes")
        try:
            pieces = self._template.generate({**arguments, ALLOWANCE: allowance})
            return "".join([allowance.take(piece) for piece in pieces])
        except UndefinedError as error:
            raise ArgumentsMisfit(error.message or "a variable is undefined") from error
        except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            # Its message may repeat a value, which is a part of somebody's prompt.
            raise ArgumentsMisfit("a value is not of the kind that is wanted") from error


@lru_cache(maxsize=TEMPLATES_KEPT)
def compiled(text: str) -> Template:
    """Raises TemplateInvalid."""
    return Template(text)


def _check(tree: nodes.Node) -> None:
    """Raises TemplateSyntaxError at what is not among the allowed."""
    for node in (tree, *tree.find_all(nodes.Node)):
        if not isinstance(node, ALLOWED):
            _refuse(node, f"'{type(node).__name__.lower()}' is not available in templates")
        if isinstance(node, nodes.For) and node.recursive:
            _refuse(node, "a loop cannot be recursive in templates")
        if isinstance(node, nodes.Filter) and node.name not in FREE_ARGUMENTS:
            given = [*node.args, *(keyword.value for keyword in node.kwargs)]
            if not all(isinstance(one, nodes.Const) for one in given) or node.dyn_args:
                _refuse(node, f"the arguments of '{node.name}' must be constants")


def _refuse(node: nodes.Node, message: str) -> NoReturn:
    raise TemplateSyntaxError(message, node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """Members are looked up in data alone: no attribute of a Python object can be reached."""

    @override
    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in LOOP_MEMBERS:
            return getattr(obj, attribute)
        return self._member(obj, attribute, hint=None)

    @override
    def getitem(self, obj: Any, argument: Any) -> Any:
        # The key may be a value of the request's: it is not named.
        return self._member(obj, argument, hint="a member that is asked for is not there")

    def _member(self, obj: Any, key: Any, *, hint: str | None) -> Any:
        if isinstance(obj, Undefined):
            str(obj)  # raises, and names what is undefined
        if isinstance(obj, dict | list | str | tuple):
            try:
                return obj[key]
            except (LookupError, TypeError):
                pass
        return self.undefined(hint, obj=obj, name=key)


@pass_context
def _metered(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    """What a loop goes through, until the template has had its time."""
    allowance = context[ALLOWANCE]
    for item in items:
        allowance.check_time()
        yield item


def _shown(value: Any) -> Any:
    """A value as it stands in the text: what is not a text, as JSON."""
    return value if isinstance(value, str) else _to_json(value)


def _to_json(value: Any) -> str:
    if isinstance(value, Undefined):
        str(value)  # raises, and names what is undefined
    return msgspec.json.encode(value).decode()


def _environment() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, finalize=_shown
    )
    environment.globals.clear()
    filters: dict[str, Callable[..., Any]] = {name: FILTERS[name] for name in FILTER_NAMES}
    environment.filters = {**filters, "tojson": _to_json, METERED: _metered}
    return environment


_ENVIRONMENT = _environment()
