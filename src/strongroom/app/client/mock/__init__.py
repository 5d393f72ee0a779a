"""Mocks: public stand-ins of a table, made from what its owner agrees to reveal and from nothing else.

    reveal    what an owner agrees to reveal of each column, as a small JSON document
    notation  how a column's type is spelled in it
    pattern   texts of one shape, such as ids
    making    the mock, from a reveal description and a seed: it never sees the data
    tabular   a table in a file: Parquet, CSV, JSON lines, Arrow
    survey    one pass over the owner's table: what a suggestion and a check go by
    suggesting  a reveal description that the owner reads and edits
    fitting   whether a mock and a table have one form
    report    what a mock reveals, in words

See ``docs/mocks.md``. Needs the extra ``data``.
"""
