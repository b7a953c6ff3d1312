"""From people's tables to rows on a device.

readers.py   files
labels.py    class labels and class numbers
finite.py    the search for what is missing or infinite
order.py     the order of an epoch, and what is held out
scaling.py   columns, shifted and scaled
tables.py    columns by name
row_files.py rows on disk
stored.py    data sets on disk
samples.py   rows that have been checked
feed.py      rows into the buffers of an evaluation
"""
