"""Files that people write: read strictly, and what is wrong in them told in one line."""

import difflib
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from ct_triage.errors import ConfigurationError


class StrictModel(BaseModel):
    """Settings that cannot be changed, with no key beside those declared."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a YAML or JSON file.

        Raises
        ------
        ConfigurationError
            If the file cannot be read, holds an unknown key or a value that does not fit; the
            message names the file, the key and the nearest known key.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from error
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            place = getattr(error, "problem_mark", None)
            line = f" in line {place.line + 1}" if place else ""
            raise ConfigurationError(f"{path}: is not YAML{line}; correct it") from error
        try:
            # Files that this one refers to lie beside it.
            return cls.model_validate({} if content is None else content, context=path.parent)
        except ValidationError as error:
            problems = "; ".join(_explain(cls, detail) for detail in error.errors())
            raise ConfigurationError(f"{path}: {problems}") from error

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON schema of the file, for editors; ``docs`` holds a copy."""
        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        return dialect | cls.model_json_schema(by_alias=True)


def _explain(model: type[BaseModel], error: ErrorDetails) -> str:
    """Tell one problem: where, what, and for an unknown key which one was probably meant."""
    place = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] != "extra_forbidden":
        return f"{place}: {error['msg'].removeprefix('Value error, ')}"
    known = _keys_at(model, error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(known)}"
    return f"{place}: unknown key; {hint}"


def _keys_at(model: Any, place: tuple[int | str, ...]) -> list[str]:
    for part in place:
        if isinstance(part, str) and part in getattr(model, "model_fields", {}):
            annotation = model.model_fields[part].annotation
            model = next(_models_in(annotation), None)
    return list(getattr(model, "model_fields", {}))


def _models_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)
