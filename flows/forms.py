"""Forms of the Prefect UI: titles, descriptions and limits of what a flow can be asked for."""

from typing import Annotated, Any, TypeVar, get_type_hints

from prefect import Flow
from pydantic import Field
from pydantic.fields import FieldInfo

Root = Annotated[
    str, Field(title="Folder of the trial", description="Filled in by cmrtrials serve; leave it as it is.")
]
Reason = Annotated[
    str,
    Field(
        title="Reason",
        min_length=3,
        description="Why, in a few words, and who asks. It is kept with the results and in the audit log.",
    ),
]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Subject or visit, as subjects.csv spells it."""

AnyFlow = TypeVar("AnyFlow", bound=Flow[..., Any])


def with_form(flow: AnyFlow) -> AnyFlow:
    """Give a flow's form the titles and descriptions of its parameters, which Prefect leaves out."""
    for name, annotation in get_type_hints(flow.fn, include_extras=True).items():
        for field in getattr(annotation, "__metadata__", ()):
            if isinstance(field, FieldInfo) and name in flow.parameters.properties:
                texts = {"title": field.title, "description": field.description}
                flow.parameters.properties[name] |= {key: text for key, text in texts.items() if text}
    return flow
