"""Pages that people look at, drawn from stored arrays and rows alone: one a visit, one a trial."""
