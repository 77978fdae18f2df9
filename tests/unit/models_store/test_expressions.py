import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_store.errors import InvalidModel
from models_store.expressions import check_guard, check_size

S = "Symbol('s17', positive=True, integer=True)"


@pytest.mark.parametrize(
    "text",
    [
        S,
        "Symbol('u0', integer=True)",
        f"Mul(Integer(6), {S})",
        f"Add({S}, Mul(Integer(-1), Symbol('s77', positive=True, integer=True)))",
        f"Max(Integer(1), TruncToInt(Mul(Float('1.5', precision=53), ToFloat({S}))))",
        f"FloorDiv(Add({S}, Integer(-1)), Integer(2))",
        f"Pow({S}, Integer(2))",
        f"Unequality({S}, Integer(1))",
        "Rational(1, 2)",
        "true",
    ],
)
def test_sizes_as_torch_writes_them_are_taken(text: str) -> None:
    check_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "open('x', 'w')",
        "__import__('os')",
        "Symbol('x')",
        "Symbol('s1', cls=open)",
        "Symbol('s1', **open('x'))",
        "Symbol(open('x'))",
        "Add(open('x'))",
        "Add(*open('x'))",
        "Add(x=open('x'))",
        "Integer('1')",
        "Integer(9999999999999999999999)",
        "Integer(True)",
        "Float('1e999999999', precision=53)",
        "Float('1.5', precision=1000000000)",
        f"Pow({S}, Integer(9))",
        f"Pow(Integer(9), {S})",
        "Pow(Integer(9), Integer(8), evaluate=True)",
        "S.Half",
        f"({S}).__class__",
        f"{S}.subs",
        "Lambda(x, x)",
        "lambda: 1",
        "1",
        "s17",
        f"{S} + {S}",
        f"{S} # comment",
        f"{S}\n",
        'Symbol("s1")',
        "Add(" * 300 + "true" + ")" * 300,
        "Add(" + ", ".join([S] * 200) + ")",
        "(" * 5000,
        "Add(",
        "\x00",
    ],
)
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InvalidModel):
        check_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "L['y'].size()[0] == L['x'].size()[0]",
        "(L['x'].size()[0] // 2) <= L['y'].size()[0] + L['x'].size()[0]",
        "(L['x'].size()[0] // 2) != 1",
        "L['x'].size()[0] % 8 == 0 and not L['x'].stride()[1] > 2",
        "L['pair'][0].size()[1] == L['named']['x'].storage_offset()",
        "Max(2, L['x'].size()[0]) < math.trunc(1.5 * float(L['n']))",
        "L['flat_args'][0] >= -3",
    ],
)
def test_guards_as_torch_writes_them_are_taken(text: str) -> None:
    check_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "open('x', 'w')",
        "L['x'].size()[0] == open('x')",
        "L['x'].size(open('x'))[0] == 1",
        "L['x'].size(x=open('x'))[0] == 1",
        "L['x'].size()[open('x')] == 1",
        "L['x'].numpy().tofile('x') == 1",
        "L['x'].size()[0].__class__ == 1",
        "L[open('x')].size()[0] == 1",
        "L['x y'].size()[0] == 1",
        "L['x)'].size()[0] == 1",
        "M['x'].size()[0] == 1",
        "max(*open('x')) == 1",
        "max() == 1",
        "math.pow(9, 9) == 1",
        "math.trunc.__self__ == 1",
        "9 ** 9 ** 9 == 1",
        "L['x'].size()[0] ** L['n'] == 1",
        "[x for x in L['x']] == 1",
        "(L['x'].size()[0] == 1 #\n)",
        "L['x'].size()[0] == 1, open('x')",
        "L['x'].size()[0] == 1 if open('x') else 2",
        "L['x'].size()[0] is 1",
        "L['x'].size()[0] in L['y']",
        "(x := 1) == 1",
        "1 == 'a'",
        'L["x"].size()[0] == 1',
        "L['x'].size()[0]",
        "f'{open(1)}' == 1",
        "lambda: 1",
    ],
)
def test_other_guards_are_refused(text: str) -> None:
    with pytest.raises(InvalidModel):
        check_guard(text)


@given(st.text(max_size=60))
def test_any_text_is_refused_or_harmless(text: str) -> None:
    for check in (check_size, check_guard):
        try:
            check(text)
        except InvalidModel:
            continue
        assert not set(text) & set('#\n"\\;{}@:')
