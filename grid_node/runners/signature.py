"""The signature of a model: its inputs, each with type and rules, and the type of its output.

Numbers, defaults and choices may be strings, as the first clients send them; they are coerced by the input's type.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

from grid_node import canonical
from grid_node.errors import InvalidSignature
from grid_node.runners import coercion
from grid_node.runners.coercion import NotValid
from grid_node.runners.rules import PATTERN_MAX, Patience, Rules, compiled
from grid_node.wire import strict_json

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
CHOICES_MAX = 1000
STORED = 10**9
"""As many inputs as it has: a stored signature was within the limit when it came."""
BAD_ITEMS_TOLD = 10
"""Bad items of one list that are told; a list may have half a million."""

_BASE = "str|int|float|bool|Path|File"
_TYPE = re.compile(rf"(?P<optional>Optional\[)?(?P<list>list\[)?(?P<base>{_BASE})(?(list)\])(?(optional)\])")
_ITERATOR = re.compile(rf"Iterator\[(?:list\[(?:{_BASE})\]|{_BASE}|dict|Any)\]|ConcatenateIterator\[str\]|dict|Any")
_TYPES_TEXT = "str, int, float, bool, Path, File, list[T], Optional[T]"
BAD_TYPE = f"Must be one of: {_TYPES_TEXT}."
BAD_OUTPUTS = f"Must be one of: {_TYPES_TEXT}, Iterator[T], ConcatenateIterator[str], dict, Any."
DUPLICATE = "Duplicate name."
BAD_PATTERN = "Not a valid pattern."

Fields = dict[str, list[str]]
"""What is wrong, by dotted path."""


@dataclass(frozen=True, slots=True)
class InputType:
    """`base` is one of coercion.TYPES."""

    base: str
    is_list: bool
    is_optional: bool

    @property
    def is_file(self) -> bool:
        return self.base in ("Path", "File")


@dataclass(frozen=True, slots=True)
class Input:
    """One input. `default` means something where `has_default`; None there: the worker has one of its own, or null."""

    name: str
    type: InputType
    rules: Rules = field(default_factory=Rules)
    has_default: bool = False
    default: Any = None
    description: str | None = None

    @property
    def required(self) -> bool:
        return not (self.has_default or self.type.is_optional)

    @property
    def takes_null(self) -> bool:
        return self.type.is_optional or (self.has_default and self.default is None)


@dataclass(frozen=True, slots=True)
class Signature:
    """`version` is 64 hex, `text` the JSON of `inputs` and `outputs` as they came."""

    inputs: tuple[Input, ...]
    outputs: str
    version: str
    text: str = field(repr=False)

    def input(self, name: str) -> Input | None:
        return next((one for one in self.inputs if one.name == name), None)


def parse_signature(document: Any, max_inputs: int) -> Signature:
    """The signature in a registration. Raises InvalidSignature with everything that is wrong."""
    if not isinstance(document, dict):
        raise InvalidSignature(fields={"_schema": ["Invalid input type."]})
    problems: Fields = {}
    inputs = _inputs(document.get("inputs"), max_inputs, problems)
    outputs = document.get("outputs")
    with _noted(problems, "outputs"):
        _check_outputs(outputs)
    if problems:
        raise InvalidSignature(fields=problems)
    signed = {"inputs": document["inputs"], "outputs": outputs}
    return Signature(inputs, str(outputs), _version(signed), strict_json.dumps(signed))


@lru_cache(maxsize=64)
def signature_of(text: str) -> Signature:
    """A signature as `Signature.text` kept it."""
    return parse_signature(strict_json.loads(text), STORED)


def input_type(text: Any) -> InputType:
    """Raises NotValid."""
    match = _TYPE.fullmatch(coercion.string(text))
    if match is None:
        raise NotValid(BAD_TYPE)
    return InputType(match["base"], match["list"] is not None, match["optional"] is not None)


def checked(declared: Input, value: Any, path: str, problems: Fields, patience: Patience) -> Any:
    """The value as the worker gets it; what is wrong with it is noted in `problems`."""
    if value is None:
        if not declared.takes_null:
            problems[path] = [coercion.NULL]
        return None
    if not declared.type.is_list:
        return _checked_item(declared, value, path, problems, patience)
    if not isinstance(value, list):
        problems[path] = [coercion.NOT_LIST]
        return None
    before, items = len(problems), []
    for index, item in enumerate(value):
        items.append(_checked_item(declared, item, f"{path}.{index}", problems, patience))
        if len(problems) - before >= BAD_ITEMS_TOLD:
            break
    return items


def _checked_item(declared: Input, item: Any, path: str, problems: Fields, patience: Patience) -> Any:
    try:
        value = coercion.TYPES[declared.type.base](item)
    except NotValid as error:
        problems[path] = error.texts if item is not None else [coercion.NULL]
        return None
    broken = declared.rules.broken(value, patience)
    if broken:
        problems[path] = broken
    return value


@contextmanager
def _noted(problems: Fields, path: str) -> Iterator[None]:
    try:
        yield
    except NotValid as error:
        problems[path] = error.texts


def _version(signed: dict[str, Any]) -> str:
    """sha256 of the RFC 8785 form; of sorted JSON where that form does not exist: integers beyond 2**53."""
    try:
        return canonical.digest(signed)
    except ValueError:
        return sha256(strict_json.dumps(_sorted(signed)).encode()).hexdigest()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _check_outputs(outputs: Any) -> None:
    if outputs is None:
        raise NotValid(coercion.REQUIRED)
    text = coercion.string(outputs)
    if not _TYPE.fullmatch(text) and not _ITERATOR.fullmatch(text):
        raise NotValid(BAD_OUTPUTS)


def _inputs(given: Any, most: int, problems: Fields) -> tuple[Input, ...]:
    with _noted(problems, "inputs"):
        if given is None:
            raise NotValid(coercion.REQUIRED)
        if not isinstance(given, list):
            raise NotValid(coercion.NOT_LIST)
        if len(given) > most:
            raise NotValid(f"Longer than maximum length {most}.")
        names, patience = set[str](), Patience()
        found = [_Reader(f"inputs.{index}", problems, names, patience).read(one) for index, one in enumerate(given)]
        return tuple(one for one in found if one is not None)
    return ()


class _Reader:
    """Reads one input; notes what is wrong under its path."""

    def __init__(self, path: str, problems: Fields, names: set[str], patience: Patience) -> None:
        self._path = path
        self._problems = problems
        self._names = names
        self._patience = patience

    def read(self, given: Any) -> Input | None:
        if not isinstance(given, dict):
            self._problems[self._path] = [coercion.NOT_MAPPING]
            return None
        name, type = self._name(given.get("name")), self._type(given.get("type"))
        validation = given.get("validation")
        if validation is not None and not isinstance(validation, dict):
            self._problems[f"{self._path}.validation"] = [coercion.NOT_MAPPING]
        elif type is not None:
            declared = self._input(name or "", type, validation or {})
            return declared if name is not None else None
        return None

    def _at(self, *path: str) -> Any:
        return _noted(self._problems, ".".join((self._path, *path)))

    def _name(self, given: Any) -> str | None:
        with self._at("name"):
            if given is None:
                raise NotValid(coercion.REQUIRED)
            if not NAME.fullmatch(coercion.string(given)):
                raise NotValid(coercion.NO_MATCH)
            if given in self._names:
                raise NotValid(DUPLICATE)
            self._names.add(given)
            return str(given)
        return None

    def _type(self, given: Any) -> InputType | None:
        with self._at("type"):
            if given is None:
                raise NotValid(coercion.REQUIRED)
            return input_type(given)
        return None

    def _input(self, name: str, type: InputType, validation: dict[str, Any]) -> Input:
        description = self._optional(validation, "description", coercion.string)
        declared = Input(name, type, self._rules(type, validation), description=description)
        if "default" not in validation:
            return declared
        default = self._default(declared, validation["default"])
        return Input(name, type, declared.rules, True, default, description)

    def _optional(self, validation: dict[str, Any], key: str, read: Any, applies: str | None = None) -> Any:
        """The value under this key; null is as good as none. `applies`: the type that the rule is not for, if so."""
        value = validation.get(key)
        if value is None:
            return None
        with self._at("validation", key):
            if applies is not None:
                raise NotValid(f"Does not apply to {applies}.")
            return read(value)
        return None

    def _rules(self, type: InputType, validation: dict[str, Any]) -> Rules:
        no_number = None if type.base in ("int", "float") else type.base
        no_text = None if type.base == "str" else type.base
        rules = Rules(
            ge=self._optional(validation, "ge", coercion.TYPES[type.base], no_number),
            le=self._optional(validation, "le", coercion.TYPES[type.base], no_number),
            min_length=self._optional(validation, "min_length", _length, no_text),
            max_length=self._optional(validation, "max_length", _length, no_text),
            pattern=self._optional(validation, "regex", _pattern, no_text),
            choices=self._choices(type, validation),
        )
        self._check_order("ge", rules.ge, rules.le)
        self._check_order("min_length", rules.min_length, rules.max_length)
        return rules

    def _check_order(self, key: str, low: Any, high: Any) -> None:
        with self._at("validation", key):
            if low is not None and high is not None and low > high:
                raise NotValid(f"Must be less than or equal to {high}.")

    def _choices(self, type: InputType, validation: dict[str, Any]) -> dict[Any, None] | None:
        items = self._optional(validation, "choices", _choice_list)
        if items is None:
            return None
        single, problems = Input("", InputType(type.base, True, False)), self._problems
        return dict.fromkeys(checked(single, items, f"{self._path}.validation.choices", problems, self._patience))

    def _default(self, declared: Input, given: Any) -> Any:
        """The default as the worker gets it. It obeys the rules, unless it is null."""
        if given is None:
            return None
        with self._at("validation", "default"):
            value = _json_list(given) if declared.type.is_list else given
            return checked(declared, value, f"{self._path}.validation.default", self._problems, self._patience)
        return None


def _length(value: Any) -> int:
    length = coercion.integer(value)
    if length < 0:
        raise NotValid("Must be greater than or equal to 0.")
    return length


def _pattern(value: Any) -> Any:
    text = coercion.string(value)
    if len(text) > PATTERN_MAX:
        raise NotValid(f"Longer than maximum length {PATTERN_MAX}.")
    found = compiled(text)
    if found is None:
        raise NotValid(BAD_PATTERN)
    return found


def _choice_list(value: Any) -> list[Any]:
    items = _json_list(value)
    if not 1 <= len(items) <= CHOICES_MAX:
        raise NotValid(f"Length must be between 1 and {CHOICES_MAX}.")
    return items


def _json_list(value: Any) -> list[Any]:
    """A list, or the one that a text says as JSON. Raises NotValid."""
    try:
        items = strict_json.loads(value) if isinstance(value, str) else value
    except strict_json.InvalidJSON:
        items = None
    if not isinstance(items, list):
        raise NotValid(coercion.NOT_LIST)
    return items
