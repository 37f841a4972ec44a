"""Tables, as DataFrames of a library that the user has."""


def table(rows):
    """Returns a DataFrame of pandas, or of polars, where one is installed; else the rows, a list of dicts."""
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
