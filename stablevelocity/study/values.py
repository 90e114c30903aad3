"""Types of the values in a study or site file: what one key may hold, whatever the others do."""

import contextlib
import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WrapValidator
from pydantic_core import PydanticCustomError

Value = TypeVar("Value")
#: Tables are read back from CSV, where these would not stay text.
NO_WORDS = ("nan", "na", "n/a", "<na>", "#na", "#n/a", "null", "none", "true", "false")


def _number(value: Any) -> Any:
    """True is 1 to Python; in a study it is a mistake."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "Input should be a number")
    return value


def _flag(value: Any) -> Any:
    """Words of the command line come as text."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _distinct(values: list) -> list:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise PydanticCustomError("distinct", "Each value should stand there once")
    return values


def _text(value: Any) -> Any:
    if isinstance(value, str | Path) and not (str(value).isprintable() and str(value).strip()):
        raise PydanticCustomError("text", "Input should be printable text, not empty")
    return value


def one_of(names: tuple[str, ...]) -> AfterValidator:
    def known(value: str) -> str:
        if value not in names:
            near = difflib.get_close_matches(value, names, 3, 0.3) or names[:3]
            few = f"{', '.join(near)} and {len(names) - len(near)} more"
            raise PydanticCustomError("name", "Input should be one of {names}", {"names": few})
        return value

    return AfterValidator(known)


def _word(value: str) -> str:
    with contextlib.suppress(ValueError):
        float(value)
        value = "nan"
    if value.strip().lower() in NO_WORDS:
        raise PydanticCustomError("word", "Input should be no number, true, false or missing value to a table")
    return value


def _label(value: str) -> str:
    if value[0] in "=+-@":
        raise PydanticCustomError("label", "Input should not begin with =, +, - or @: a spreadsheet would compute it")
    return value


def _or(word: str, kind: Any) -> WrapValidator:
    """The word, or a `kind`: errors speak of the one, the schema of both."""
    return WrapValidator(
        lambda value, read: value if value == word else read(value),
        json_schema_input_type=kind | Literal[word],  # pyright: ignore (Literal takes a value that is known here)
    )


NUMBER = BeforeValidator(_number)
_TEXT, _DISTINCT = BeforeValidator(_text), AfterValidator(_distinct)
Flag = Annotated[bool, Field(strict=True), BeforeValidator(_flag)]
Positive = Annotated[int, Field(gt=0, le=10**9), NUMBER]
#: Samples of which a spread is computed.
Several = Annotated[int, Field(ge=2, le=10_000_000), NUMBER]
#: Along one axis of what is held in memory at once: a side, a width, a batch.
Size = Annotated[int, Field(gt=0, le=2**16), NUMBER]
#: Eight digits in the names of files.
Steps = Annotated[int, Field(gt=0, le=99_999_999), NUMBER]
#: Jobs of one stage; five digits in the names of files.
Shards = Annotated[int, Field(gt=0, le=99_999), NUMBER]
#: What generators of torch and of numpy take.
Seed = Annotated[int, Field(ge=0, lt=2**63), NUMBER]
PositiveFloat = Annotated[float, Field(gt=0, le=1e6), NUMBER]
Fraction = Annotated[float, Field(gt=0, lt=1), NUMBER]
Share = Annotated[float, Field(ge=0, le=1), NUMBER]
ShareBelow1 = Annotated[float, Field(ge=0, lt=1), NUMBER]
#: "auto" until the study's own split point is known (`load.resolve`), then a number; written as it is.
_AS_IT_IS = PlainSerializer(lambda value: value)
FractionOrAuto = Annotated[Fraction, _or("auto", Fraction), _AS_IT_IS]
ShareOrAuto = Annotated[ShareBelow1, _or("auto", ShareBelow1), _AS_IT_IS]
SeedOrByRun = Annotated[Seed, _or("by_run", Seed), _AS_IT_IS]
#: What the study, an arm or a sampler is called: part of paths, wildcards and job names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64), AfterValidator(_word)]
Text = Annotated[str, Field(max_length=1000), _TEXT]
#: Free text that tables and figures show.
Label = Annotated[str, Field(max_length=200), _TEXT, AfterValidator(_label), AfterValidator(_word)]
Location = Annotated[Path, _TEXT]
#: Values that are each worked through once; `Some`: one at least.
Distinct = Annotated[list[Value], Field(max_length=1000), _DISTINCT]
Some = Annotated[list[Value], Field(min_length=1, max_length=1000), _DISTINCT]
