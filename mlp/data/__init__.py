"""From people's tables to rows on a device.

tables.py          columns by name, with their values and their gaps
columns.py         values of any dtype as columns of the few kinds there are
table_files.py     files of tables: which kind one is, and who reads it
text_columns.py    cells of text as columns of a kind
text_tables.py     CSV
columnar_files.py  Parquet and Arrow
array_files.py     NPY, NPZ and IDX
sparse_files.py    LIBSVM
packed.py          .gz, .bz2, .xz and .zst
frames.py          data frames and dictionaries of columns
readers.py         tables with their targets
labels.py          class labels and class numbers
finite.py          the search for what is missing or infinite
order.py           the order of an epoch, and what is held out
row_files.py       rows on disk, read in blocks
stored.py          data sets on disk
stored_tables.py   tables on disk, coded as they are read
parts.py           which rows are held out by time, column or group
preprocessing.py   columns of every kind into numbers
scaling.py         columns, shifted and scaled
samples.py         rows that have been checked
feed.py            rows into the buffers of an evaluation
"""
