"""The command line: one TOML file in, a folder with the trained network out."""
