"""Tables, figures, claims and the report page, made from the files of a results folder."""
