"""Stage functions of the data: they read files and write files, one module for each code hash."""
