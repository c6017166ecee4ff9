"""Forms of the Prefect UI: descriptions and limits of what a flow can be asked for."""

import inspect
from typing import Annotated, Any, TypeVar, get_type_hints

from prefect import Flow
from pydantic import Field
from pydantic.fields import FieldInfo

Root = Annotated[
    str, Field(description="Folder of the trial, filled in by cmrtrials serve; leave it as it is.")
]
Reason = Annotated[
    str,
    Field(
        min_length=3,
        description="Why, in a few words, and who asks. It is kept with the results and in the audit log.",
    ),
]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Subject or visit, as subjects.csv spells it."""

AnyFlow = TypeVar("AnyFlow", bound=Flow[..., Any])


def with_form(flow: AnyFlow) -> AnyFlow:
    """Have a flow's form show the descriptions of its parameters.

    Prefect takes them from the docstring, where they stand in Google's style, and overlooks annotations.
    """
    texts = {
        name: field.description
        for name, annotation in get_type_hints(flow.fn, include_extras=True).items()
        for field in getattr(annotation, "__metadata__", ())
        if isinstance(field, FieldInfo) and field.description
    }
    arguments = "".join(f"    {name}: {text}\n" for name, text in texts.items())
    flow.__doc__ = f"{inspect.getdoc(flow.fn)}\n\nArgs:\n{arguments}"
    return flow
