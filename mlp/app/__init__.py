"""The command line: one TOML file in, a folder with the trained network out.

cli.py                the commands
config.py             the file, checked
prepare.py            from settings to data and an untrained model
run_folder.py         a run's folder, for one writer
endings.py            signals that end a run
fingerprint.py        what the data were
standing.py           where an earlier run stands, and whether it may be gone on with
runs.py               a run into its folder, and back
run_list.py           all runs; whether one is whole
terminal.py           what is printed, without control codes
progress.py           what is shown while training
plots.py              the history as a picture
prediction_table.py   predictions as a table
backend_report.py     a backend against NumPy, `mlp backends --check`
backend_times.py      how long a device takes
"""
