"""Fills the templates of reports; every page holds its style and images itself, so that it opens offline."""

import jinja2

from lossatlas.lab.formatting import number


def fill(template: str, **values: object) -> str:
    """Return a page.

    Args:
        template: file below ``templates``.
        values: of the names in it; a name without a value is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lossatlas.lab.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = number
    return environment.get_template(template).render(**values)
