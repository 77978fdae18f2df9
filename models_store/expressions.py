"""The two small languages inside an exported program that torch evaluates: sizes and guards.

torch gives the text of a size to sympy, which evaluates it, and pastes the text of a guard into a function. So the
text must be of the kind that torch itself writes, down to its characters: no comments, no line ends, no attribute but
those named here, no name but those named here.
"""

import ast
import re

from models_store.errors import InvalidModel

LENGTH_MAX = 4096
CALLS_MAX = 256
POWER_MAX = 8
_SIZE_TEXT = re.compile(r"[A-Za-z0-9_ (),.'=\-]+")
_GUARD_TEXT = re.compile(r"[A-Za-z0-9_ (),.'=\-\[\]+*/%<>!]+")
_SYMBOL = re.compile(r"[a-z]{1,4}[0-9]{1,6}")
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,30})?(e[+-]?[0-9]{1,3})?")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGER_MAX = 2**63

SIZE_FUNCTIONS = frozenset(
    {
        *("Add", "Mul", "Min", "Max", "FloorDiv", "CleanDiv", "CeilDiv", "Mod", "PythonMod", "ModularIndexing"),
        *("Where", "ToFloat", "TruncToInt", "TruncToFloat", "CeilToInt", "FloorToInt", "RoundToInt", "IntTrueDiv"),
        *("FloatTrueDiv", "Identity", "Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan"),
        *("GreaterThan", "And", "Or", "Not"),
    }
)
GUARD_FUNCTIONS = frozenset(
    {
        "Max",
        "Min",
        "Mod",
        "PythonMod",
        "FloorDiv",
        "CleanDiv",
        "CeilDiv",
        "TruncToInt",
        "ToFloat",
        "max",
        "min",
        "float",
    }
)
_ASSUMPTIONS = frozenset({"positive", "negative", "nonnegative", "nonzero", "integer", "real", "finite"})
_MATH = frozenset({"floor", "ceil", "trunc"})
_GUARD_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Mod)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def check_size(text: str) -> None:
    """Raises InvalidModel unless `text` is a size as torch 2.13 writes it: a sum, product, quotient... of symbols."""
    if not _SIZE_TEXT.fullmatch(text) or not _is_size(_parsed(text, "size expression")):
        raise InvalidModel("a size expression is not one that torch writes")


def check_guard(text: str) -> None:
    """Raises InvalidModel unless `text` compares sizes of inputs, as in `L['x'].size()[0] % 2 == 0`."""
    if not _GUARD_TEXT.fullmatch(text) or not _is_guard(_parsed(text, "guard")):
        raise InvalidModel("a guard is not one that torch writes")


def _parsed(text: str, kind: str) -> ast.expr:
    if len(text) > LENGTH_MAX or text.count("(") + text.count("[") > CALLS_MAX:
        raise InvalidModel(f"a {kind} is longer than any that torch writes")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InvalidModel(f"a {kind} is not one that torch writes") from None


def _is_size(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="Pow" | "PowByNatural"), args=[base, exponent], keywords=[]):
            return _is_size(base) and _is_small_integer(exponent)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in SIZE_FUNCTIONS:
            return all(_is_size(one) for one in arguments)
    return _is_term(node)


def _is_term(node: ast.expr) -> bool:
    """A symbol, a number, true or false."""
    match node:
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))], keywords=assumptions):
            return bool(_SYMBOL.fullmatch(name)) and all(_is_assumption(one) for one in assumptions)
        case ast.Call(func=ast.Name(id="Integer" | "Rational"), args=numbers, keywords=[]):
            return all(_is_integer(number) for number in numbers)
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str(number))], keywords=precision):
            return bool(_NUMBER.fullmatch(number)) and all(_is_precision(one) for one in precision)
    return isinstance(node, ast.Name) and node.id in ("true", "false")


def _is_assumption(keyword: ast.keyword) -> bool:
    return keyword.arg in _ASSUMPTIONS and isinstance(keyword.value, ast.Constant) and type(keyword.value.value) is bool


def _is_precision(keyword: ast.keyword) -> bool:
    return keyword.arg == "precision" and isinstance(keyword.value, ast.Constant) and keyword.value.value == 53


def _is_integer(node: ast.expr, most: int = _INTEGER_MAX) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value <= most


def _is_small_integer(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="Integer"), args=[value], keywords=[]):
            return _is_integer(value, POWER_MAX)
    return False


def _is_guard(node: ast.expr) -> bool:
    match node:
        case ast.BoolOp(values=values):
            return all(_is_guard(one) for one in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _is_guard(operand)
        case ast.Compare(left=left, ops=operators, comparators=others):
            known = all(isinstance(one, _COMPARISONS) for one in operators)
            return known and all(_is_amount(one) for one in (left, *others))
    return False


def _is_amount(node: ast.expr) -> bool:
    """A number made of sizes, strides and offsets of inputs, or such an input."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_amount(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _is_amount(left) and _is_integer(right, POWER_MAX)
        case ast.BinOp(left=left, op=operator, right=right):
            return isinstance(operator, _GUARD_OPERATORS) and _is_amount(left) and _is_amount(right)
        case ast.Call(func=function, args=[_, *_] as arguments, keywords=[]):
            return _is_function(function) and all(_is_amount(one) for one in arguments)
    return _is_measure(node)


def _is_function(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="math"), attr=name):
            return name in _MATH
    return isinstance(node, ast.Name) and node.id in GUARD_FUNCTIONS


def _is_measure(node: ast.expr) -> bool:
    """A number, or what a tensor says of itself."""
    match node:
        case ast.Constant(value=value):
            return type(value) is float or _is_integer(node)
        case ast.Subscript(
            value=ast.Call(func=ast.Attribute(value=tensor, attr="size" | "stride"), args=[], keywords=[]), slice=place
        ):
            return _is_integer(place) and _is_input(tensor)
        case ast.Call(func=ast.Attribute(value=tensor, attr="storage_offset"), args=[], keywords=[]):
            return _is_input(tensor)
    return _is_input(node)


def _is_input(node: ast.expr) -> bool:
    """`L['name']`, or a member of it: `L['pair'][0]`, `L['named']['x']`."""
    match node:
        case ast.Subscript(value=ast.Name(id="L"), slice=ast.Constant(value=str(key))):
            return bool(_KEY.fullmatch(key))
        case ast.Subscript(value=inner, slice=ast.Constant(value=str(key))):
            return bool(_KEY.fullmatch(key)) and _is_input(inner)
        case ast.Subscript(value=inner, slice=place):
            return _is_integer(place) and _is_input(inner)
    return False
