"""Files that people write: read strictly, and what is wrong in them told in one line."""

import difflib
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from ct_triage.errors import ConfigurationError

# Longer files are no settings that a person wrote.
MAX_FILE_BYTES = 1024 * 1024
SHOWN_PROBLEMS = 5
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map", "timestamp")


class _Loader(yaml.SafeLoader):
    """YAML of plain values, in which every key stands once and nothing repeats by an alias.

    Of two equal keys nobody can tell which was meant, and aliases can stand for more data than
    memory holds.
    """

    yaml_constructors: ClassVar = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _TAGS
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="an alias (*) is not taken", problem_mark=self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        super().flatten_mapping(node)


class StrictModel(BaseModel):
    """Settings that cannot be changed, with no key beside those declared."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
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
        content = _read_yaml(path)
        try:
            # Files that this one refers to lie beside it.
            return cls.model_validate({} if content is None else content, context=path.parent)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            problems = [_explain(cls, detail) for detail in details[:SHOWN_PROBLEMS]]
            if len(details) > SHOWN_PROBLEMS:
                problems.append(f"and {len(details) - SHOWN_PROBLEMS} more")
            # Keys and values are the file's, and can hold line breaks.
            told = " ".join("; ".join(problems).split())
            raise ConfigurationError(f"{path}: {told}") from error

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON schema of the file, for editors; ``docs`` holds a copy."""
        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        return dialect | cls.model_json_schema(by_alias=True)


def _read_yaml(path: Path) -> Any:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ConfigurationError(f"{path}: has {size} bytes; settings are shorter")
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path}: is nested too deeply; correct it") from error
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        told = " ".join(str(error.problem).split())
        raise ConfigurationError(f"{path}: is not YAML{line} ({told}); correct it") from error
    # Values that look like a number or a date and are none: "2001-99-99".
    except (ValueError, OverflowError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: is not YAML; correct it") from error


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
