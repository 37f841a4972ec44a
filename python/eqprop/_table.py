"""Tables, in what the user has for them."""


def table(rows):
    """A DataFrame of pandas, or of polars, where one is installed; else the rows themselves, a list of dicts."""
    try:
        import pandas
    except ImportError:
        pass
    else:
        return pandas.DataFrame(rows)
    try:
        import polars
    except ImportError:
        return rows
    return polars.DataFrame(rows, infer_schema_length=None, strict=False)
